"""Call detail records: one codec a switch's format, bytes in, usage records out."""
