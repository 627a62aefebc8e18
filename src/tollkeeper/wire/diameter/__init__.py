"""Diameter (RFC 6733, RFC 8506) as records."""
