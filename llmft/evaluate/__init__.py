"""Evaluation: what base, adapter and each GGUF decide on the same test calls, and what that is worth."""
