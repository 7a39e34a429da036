"""The model that a file is made of: weights read from safetensors, and what each family becomes in a GGUF."""
