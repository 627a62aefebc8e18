"""SMPP 3.4 as records."""
