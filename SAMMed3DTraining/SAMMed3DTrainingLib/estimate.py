"""What a run would cost, measured on a few of its own steps: --dry_run."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from .progress import duration
from .trainer import Trainer
from .training_data import SampleSlots
from .validation import Validator

_MEASURED_STEPS = 3
_Result = TypeVar("_Result")


def estimate(trainer: Trainer, slots: SampleSlots, validator: Validator) -> str:
    """Time and memory of a run in words, from some of its own steps; nothing learns and nothing is saved.

    Args:
        trainer: of the run.
        slots: its samples.
        validator: its validation.
    """
    config, model, device = trainer.config, trainer.network.model, trainer.world.device
    before = _peak_memory(device)
    keys = slots.slots(0)[: config.batch_size * _MEASURED_STEPS]
    samples, sample_s = _timed(lambda: [slots[key] for key in keys])
    sample_s /= len(keys)
    encode_s, step_s = 0.0, math.inf
    for n in range(0, len(keys), config.batch_size):
        part, embedding = samples[n : n + config.batch_size], None
        if trainer.encodings:
            crops = torch.from_numpy(np.stack([sample.crop for sample in part]))
            embedding, encode_s = _timed(lambda crops=crops: model.encode(crops))
        keys_of_part = keys[n : n + config.batch_size]
        _, seconds = _timed(lambda k=keys_of_part, p=part, e=embedding: trainer.rehearse(k, p, e))
        step_s = min(step_s, seconds)
    memory = max(_peak_memory(device) - before, 0)
    _, validation_s = _timed(lambda: validator.validate(trainer.network.averaged()))

    sample_s /= max(config.num_workers, 1)
    data_s = sample_s * config.batch_size
    if trainer.encodings:
        data_s = 0.0
    step = max(step_s, data_s) if config.num_workers else step_s + data_s
    encoding = trainer.encodings * (sample_s + encode_s / config.batch_size)
    total = trainer.steps * step + trainer.epochs * validation_s + encoding
    learning = sum(parameter.numel() for parameter in trainer.network.parameters)
    lines = [
        f"{trainer.epochs} epochs of {slots.per_epoch} samples: {trainer.steps} steps of {config.batch_size}; "
        f"{learning / 1e6:.1f} million parameters learn",
        f"about {duration(total)} on {device}: {step:.2f} s a step, {duration(validation_s)} a validation"
        + (f", {duration(encoding)} for the embeddings" if encoding else ""),
    ]
    if memory:
        lines.append(f"about {memory / 2**30:.1f} GB of memory beyond the loaded network")
    return "\n".join(lines)


def _timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    begun = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begun


def _peak_memory(device: torch.device) -> int:
    """Bytes at most so far; 0 where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
