"""Usage that comes as files: mediation, pricing, matching with live sessions, and the books."""
