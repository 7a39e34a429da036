"""How the service does: counters for Prometheus, and what the journal says over days."""
