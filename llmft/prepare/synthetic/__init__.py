"""Calls of our own making, their planted personal data, and the embedded base's text."""
