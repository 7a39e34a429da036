"""What makes a step fast without changing what it computes: attention, layer kernels, the head."""
