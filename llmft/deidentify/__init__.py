"""Personal data out of the words of a call, before anything is trained on them or written down."""
