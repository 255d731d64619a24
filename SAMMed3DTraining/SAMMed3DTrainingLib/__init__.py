"""Training, evaluation and baselines for SAMMed3D."""
