"""Text files of any encoding, as lines or whole."""
