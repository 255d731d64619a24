"""Estimates time, memory and disk space of a run by a few of its own steps (--dry_run)."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from SAMMed3DLib.commandline.terminal import duration
from SAMMed3DLib.torch_setup.device import free_memory

from .trainer import Trainer
from .training_data import RunCases, SampleSlots
from .validation import Validator

_MEASURED_STEPS = 3
_CLEAR_REFS = Path("/proc/self/clear_refs")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a run.

    Attributes:
        time_s: seconds in all: embeddings, steps and validations.
        step_s, validation_s, encoding_s: seconds of a step, of a validation and of all embeddings.
        memory_mb: beyond the loaded network, in MiB; 0 where the system does not say.
        disk_mb: of the run's folder and of the unpacked cases, in MiB.
        epochs, steps, samples: of the run; samples of an epoch.
        batch_size: samples of a step.
        nodules, cases: that are trained on.
        validated: nodules of a validation.
        parameters: that learn.
        device: where it would run.
    """

    time_s: float
    step_s: float
    validation_s: float
    encoding_s: float
    memory_mb: float
    disk_mb: float
    epochs: int
    steps: int
    samples: int
    batch_size: int
    nodules: int
    cases: int
    validated: int
    parameters: int
    device: str

    @property
    def text(self) -> str:
        """Formats the estimate for people."""
        lines = [
            f"{self.epochs} epochs of {self.samples} samples: {self.steps} steps of {self.batch_size}; "
            f"{self.parameters / 1e6:.1f} million parameters learn",
            f"about {duration(self.time_s)} on {self.device}: {self.step_s:.2f} s a step, "
            f"{duration(self.validation_s)} a validation"
            + (f", {duration(self.encoding_s)} for the embeddings" if self.encoding_s else ""),
        ]
        if self.memory_mb:
            lines.append(f"about {self.memory_mb / 1024:.1f} GB of memory beyond the loaded network")
        lines.append(f"about {self.disk_mb / 1024:.2f} GB on the disk")
        return "\n".join(lines)


def show_estimate(estimated: Estimate, as_json: bool) -> None:
    """Prints an estimate, for people or as one line of JSON ({"event": "estimate", ..., "text": ...})."""
    values = {"event": "estimate", **asdict(estimated), "text": estimated.text}
    sys.stdout.write((json.dumps(values) if as_json else estimated.text) + "\n")
    sys.stdout.flush()


def estimate(trainer: Trainer, slots: SampleSlots, validator: Validator, cases: RunCases) -> Estimate:
    """Estimates time, memory and disk space of a run from some of its own steps; nothing learns, nothing is saved."""
    config, model, device = trainer.config, trainer.network.model, trainer.world.device
    before = _begin_peak(device)
    keys = slots.slots(0)[: config.batch_size * _MEASURED_STEPS]
    samples, sample_s = _timed(lambda: [slots[key] for key in keys])
    sample_s /= len(keys)
    encode_s, step_s = 0.0, math.inf
    for n in range(0, len(keys), config.batch_size):
        part, embedding = samples[n : n + config.batch_size], None
        if trainer.encodings:
            crops = torch.from_numpy(np.stack([sample.crop for sample in part]))
            embedding, encode_s = _timed(partial(model.encode, crops))
        keys_of_part = keys[n : n + config.batch_size]
        _, seconds = _timed(partial(trainer.rehearse, keys_of_part, part, embedding))
        step_s = min(step_s, seconds)
    memory = max(_peak_memory(device) - before, 0)
    _, validation_s = _timed(lambda: validator.validate(trainer.network.averaged()))

    sample_s /= max(config.num_workers or 0, 1)
    data_s = sample_s * config.batch_size
    if trainer.encodings:
        data_s = 0.0
    step = max(step_s, data_s) if config.num_workers else step_s + data_s
    encoding = trainer.encodings * (sample_s + encode_s / config.batch_size)
    learning = sum(parameter.numel() for parameter in trainer.network.parameters)
    return Estimate(
        time_s=trainer.steps * step + trainer.epochs * validation_s + encoding,
        step_s=step,
        validation_s=validation_s,
        encoding_s=encoding,
        memory_mb=memory / 2**20,
        disk_mb=(_saved_bytes(trainer, learning) + sum(case.array_kji.nbytes for case in (*cases.train, *cases.val)))
        / 2**20,
        epochs=trainer.epochs,
        steps=trainer.steps,
        samples=slots.per_epoch,
        batch_size=config.batch_size,
        nodules=cases.nodules,
        cases=len(cases.train),
        validated=len(validator),
        parameters=learning,
        device=str(device),
    )


def fitting_batch(trainer: Trainer, slots: SampleSlots, most: int = 32) -> int:
    """Finds the largest batch, a power of two, whose step fits into four fifths of the free memory.

    Measured on steps of one and of two samples, whose gradients are thrown away; 4 where the system does not say.
    """
    device = trainer.world.device
    peaks = []
    for count in (1, 2):
        keys = slots.slots(0)[:count]
        samples, embedding = [slots[key] for key in keys], None
        if trainer.encodings:
            embedding = trainer.network.model.encode(torch.from_numpy(np.stack([s.crop for s in samples])))
        before = _begin_peak(device)
        trainer.rehearse(keys, samples, embedding)
        peaks.append(_peak_memory(device) - before)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    return largest_batch(peaks[0], peaks[1], free, most)


def largest_batch(one: int, two: int, free: int | None, most: int) -> int:
    """Computes the largest power of two of samples, up to ``most``, that four fifths of ``free`` bytes hold.

    Args:
        one, two: bytes of a step of one and of two samples; 0 where they are not known.
        free: None where it is not known.
        most: samples.
    """
    each = max(two - one, two // 4)
    if not each or free is None:
        return min(4, most)
    fits = max((0.8 * free - (one - each)) / each, 1.0)
    return min(2 ** math.floor(math.log2(fits)), most)


def _saved_bytes(trainer: Trainer, learning: int) -> int:
    """Size of three checkpoints and the state: network, average, and two moments of the learning parameters."""
    whole = sum(tensor.numel() for tensor in trainer.network.model.state_dict().values())
    return 4 * (3 * whole + whole + 3 * learning)


def _timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    begun = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begun


def _begin_peak(device: torch.device) -> int:
    """Returns the bytes in use, and starts a new peak for :func:`_peak_memory`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError):  # Linux: forgets the peak so far, which loading may have made
        _CLEAR_REFS.write_text("5", encoding="utf-8")
    return _linux_memory("VmRSS") or _peak_memory(device)


def _peak_memory(device: torch.device) -> int:
    """Returns the peak of bytes in use; 0 where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # On Linux getrusage tells the parent's peak where that was larger, as Slicer's is.
    peak = _linux_memory("VmHWM")
    if peak:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _linux_memory(name: str) -> int:
    """Reads a line of /proc/self/status in bytes; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
