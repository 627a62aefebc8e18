"""Asterisk: the FastAGI server, and the agent that follows its calls by AMI."""
