"""FreeSWITCH: the agent on its event socket, and what it asks over HTTP."""
