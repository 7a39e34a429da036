"""What the user's own calls say about an export: which columns matter, and into which base to merge."""
