"""Ways to run a model outside of PyTorch's eager mode."""
