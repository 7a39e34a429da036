"""The tokenizer in a GGUF, and the check that it cuts text as the original does."""
