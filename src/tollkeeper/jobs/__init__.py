"""Timers and queues: expiring holds, sending the outbox, keeping partitions ahead."""

from __future__ import annotations
