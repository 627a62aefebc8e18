"""Diameter credit control (RFC 8506): connections, sessions, events."""
