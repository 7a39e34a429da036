"""What a fine-tuned model has to beat before it is worth its trouble: each rival answers the same calls."""
