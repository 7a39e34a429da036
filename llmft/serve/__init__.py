"""The operator's desk: API, console, and what they store."""
