"""What goes with a file: model card, settings, the way into GPT4All desktop."""
