"""What --resume continues from: one file, written whole or not at all, read without running anything in it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch

from SAMMed3DLib.files.output_files import whole_file
from SAMMed3DLib.inference.errors import InputError

from .trainable import Trainable
from .training_config import TrainingConfig, TrainingError

_FORMAT = 1
#: Options that may change when a run is continued; every other one decides what it computes.
_FREE = {
    "resume", "device", "precision", "num_workers", "save_minutes", "json", "dry_run", "multi_gpu", "gpu_ids", "port",
    "work_dir", "task_name", "checkpoint", "data", "cache_gb", "patient_pattern", "labels",
}


def save_state(
    path: Path, config: TrainingConfig, network: Trainable, optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler, progress: dict[str, Any],
) -> None:
    """Writes the state of a run. Raises TrainingError when it cannot be written; an older state stays."""
    content = {
        "format": _FORMAT, "config": _fixed(config), "network": network.state_dict(),
        "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(),
        "progress": {k: repr(v) if isinstance(v, float) else v for k, v in progress.items()},
    }
    try:
        with whole_file(path) as part:
            torch.save(content, part)
    except (InputError, RuntimeError) as error:
        raise TrainingError(f"{path} could not be written ({error}); free disk space and use --resume") from error


def load_state(
    path: Path, config: TrainingConfig, network: Trainable, optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> dict[str, Any]:
    """Puts a saved state into network and optimizer and returns the progress.

    Raises:
        TrainingError: there is none, it is damaged, or the run was another one; the message names the difference.
    """
    if not path.is_file():
        raise TrainingError(f"nothing to resume: there is no {path}. Start without --resume")
    try:
        content = torch.load(path, map_location=network.model.device, weights_only=True)
        saved, progress = content["config"], content["progress"]
    except Exception as error:  # every kind of damage that torch can meet
        raise TrainingError(f"{path} is damaged or no state of ours ({error}); start again without --resume") from error
    here = _fixed(config)
    different = sorted(name for name in here if saved.get(name) != here[name])
    if content.get("format") != _FORMAT or different:
        what = ", ".join(f"--{name} {saved.get(name)} then, {here[name]} now" for name in different) or "another format"
        raise TrainingError(f"--resume continues the same run, but this one differs: {what}. Use another --task_name")
    try:
        network.load_state_dict(content["network"])
        optimizer.load_state_dict(content["optimizer"])
        scaler.load_state_dict(content["scaler"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise TrainingError(f"{path} is of another network: use another --task_name ({error})") from error
    return {k: float(v) if isinstance(v, str) else v for k, v in progress.items()}


def _fixed(config: TrainingConfig) -> dict[str, Any]:
    values = {k: v for k, v in dataclasses.asdict(config).items() if k not in _FREE}
    return {k: list(v) if isinstance(v, tuple) else (None if v is math.nan else v) for k, v in values.items()}
