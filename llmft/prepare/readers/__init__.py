"""Whatever people have, read as raw calls."""
