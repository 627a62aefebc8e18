"""The SIP redirect server."""
