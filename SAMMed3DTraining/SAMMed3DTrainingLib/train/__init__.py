"""Fine-tuning: options, network, loop, state of a run."""
