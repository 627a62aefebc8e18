"""Sockets and HTTP: a server translates a request, calls a service and answers."""

from __future__ import annotations
