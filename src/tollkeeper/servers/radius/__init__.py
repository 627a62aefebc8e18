"""RADIUS: authentication, accounting, and requests to end or extend calls."""
