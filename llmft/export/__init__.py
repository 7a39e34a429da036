"""Export: base + LoRA adapter to quantised GGUF in one streaming pass, and the proof that the file is the model."""
