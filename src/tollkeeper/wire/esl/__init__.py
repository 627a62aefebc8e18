"""FreeSWITCH's event socket as records."""
