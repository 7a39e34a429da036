"""What happened to the calls, to look at and to sign."""
