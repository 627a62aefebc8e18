"""The REST API under /v1, described by its OpenAPI document."""

from __future__ import annotations
