"""Asterisk's gateway and manager interfaces as records."""
