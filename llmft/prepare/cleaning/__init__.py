"""Text made plain, languages told apart, doubles and contradictions found."""
