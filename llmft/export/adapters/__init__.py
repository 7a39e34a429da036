"""What adapters change, and the sum of base and adapters."""
