"""The learning rate over a run."""

from __future__ import annotations

import math

from .training_config import TrainingConfig

_FLOOR = 0.02


def learning_rate(update: int, updates: int, updates_per_epoch: float, config: TrainingConfig) -> float:
    """The rate for the update of this number (from 0), before the groups' factors.

    A linear warm-up over ``config.warmup`` of all updates, then a cosine down to a fiftieth, steps at given epochs, or
    nothing.
    """
    highest = float(config.lr or 0)
    warmup = max(1, round(config.warmup * updates))
    if update < warmup:
        return highest * (update + 1) / warmup
    if config.lr_scheduler == "multisteplr":
        epoch = update / updates_per_epoch
        return highest * config.gamma ** sum(epoch >= step for step in config.step_size)
    if config.lr_scheduler == "constant":
        return highest
    progress = min((update - warmup) / max(updates - warmup, 1), 1.0)
    return highest * (_FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * progress)))
