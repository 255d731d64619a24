"""Training runs as seen from outside: started, followed, stopped, listed. Nothing here needs PyTorch, Qt or Slicer."""
