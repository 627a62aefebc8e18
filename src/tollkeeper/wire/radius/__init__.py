"""RADIUS (RFC 2865 and its kin) as records."""
