"""The HTTP paths; docs/serve.md is their contract."""
