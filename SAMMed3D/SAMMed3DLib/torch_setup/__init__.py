"""PyTorch in Slicer: whether it is there, installing it, and loading it without disturbing the window."""
