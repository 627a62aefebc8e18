"""What Kamailio and we say to each other, as records."""
