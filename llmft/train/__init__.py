"""Train: the embedded base from scratch, and an adapter on any base with QLoRA."""
