"""Fine-tuning: configuration, data, network, training loop and the state of a run."""
