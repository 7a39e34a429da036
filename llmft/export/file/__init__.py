"""The GGUF itself: types, headers, kernels, the streaming pass."""
