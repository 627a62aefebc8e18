"""Kamailio: the agent on its evapi line, and the simple road by JSON-RPC."""
