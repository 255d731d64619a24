"""The folder of a run: its events, control file, state and weights, through which other programs follow it.

``events.jsonl`` has one JSON object a line, always with "event" and "time" (seconds since 1970):

=============== =======================================================================================================
start           schema (1), task_name, config, versions, cases, nodules, patients, split, parts ("train", "val" and
                "test" with their cases and patients), caution (what figures on them do not say, or ""), step (done so
                far), steps (of all epochs), resumed
step            epoch, step, steps, loss, dice_first, dice_last, iou_error, lr, data_s, step_s, left_s (seconds to go);
                the first four figures are means over all processes
reading         done, total (cases that are unpacked before training starts; about one event a second)
encoding        done, total (embeddings that a frozen encoder computes before the first step)
validation      epoch, step, loss, dice (after each click), mean_dice, nodules, best (whether the best so far, by more
                than the standard error of the change); that of epoch 0 is of the weights that the run starts from,
                later ones have the mean change since then, pair by pair, its standard error change_error, and sizes:
                by size group nodules, dice and change
saved           path, reason
paused, resumed epoch, step
warning         message
end             reason ("finished", "stopped" or "failed"), message; of a failure also kind: "out_of_memory",
                "disk_full", "bad_data" (a data set or a case of it) or "other". Where several processes fail, the
                first one tells why
=============== =======================================================================================================

After a resumed run the steps since the last saved state appear twice: the later line counts.

``control`` holds one word, written by whoever watches: "run", "pause" or "stop". It is read at every step. The other
small files are described in ``runs/run_files.py``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from SAMMed3DLib.files.output_files import whole_file
from SAMMed3DLib.inference.errors import InputError

from ..options import ALIASES
from ..runs import run_files
from ..runs.run_files import Command, RunError, plain
from .trainable import Trainable
from .training_config import OPTIONS, TrainingConfig, TrainingError

SCHEMA = 1
_FORMAT = 1
#: Options that may change when a run is continued; every other one decides what it computes.
_FREE = {each.target for each in OPTIONS if each.group in ("run", "machine")} - {"model_type", "preset", "seed"}
_FREE |= {"minutes", "patience", "patient_pattern", "labels"}


class RunFolder:
    """The files of one run.

    Args:
        folder: made if need be.
        echo: called with every event, to show it.

    Attributes:
        latest, dice_best, loss_best: weights of the last save, of the highest validation Dice, of the lowest loss.
        state: what --resume continues from.

    Raises:
        TrainingError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, echo: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.folder = folder
        self.latest, self.state = folder / run_files.LATEST, folder / run_files.STATE
        self.dice_best, self.loss_best = folder / run_files.DICE_BEST, folder / run_files.LOSS_BEST
        self._echo = echo
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / run_files.EVENTS).open("a+b") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # a full disk or a kill has torn the last line
                        file.write(b"\n")
        except OSError as error:
            raise TrainingError(
                f"the run's folder {folder} cannot be written: {error.strerror or error}; choose another --work_dir"
            ) from error

    def write(self, event: str, **values: Any) -> None:
        """Appends an event. Raises TrainingError when the disk is full."""
        line = {"event": event, "time": round(time.time(), 3), **plain(values)}
        try:
            with (self.folder / run_files.EVENTS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{self.folder} cannot be written: {error.strerror or error}; free disk space and use --resume"
            ) from error
        if self._echo is not None:
            self._echo(line)

    def command(self) -> Command:
        """Reads the control file; "run" where there is none, or nothing readable in it."""
        return run_files.read_command(self.folder)

    def set_command(self, command: Command) -> None:
        """Writes the control file. Raises TrainingError when it cannot be written."""
        try:
            run_files.write_command(self.folder, command)
        except RunError as error:
            raise TrainingError(f"{error}; free disk space and use --resume") from error


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Reads all events of a run so far, in order; a line that is still being written is left out.

    Of steps and validations that a resumed run repeated only the later ones are given.
    """
    try:
        lines = (folder / run_files.EVENTS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    events: list[dict[str, Any]] = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if not isinstance(event, dict) or "event" not in event:
            continue
        if event["event"] == "start" and event.get("resumed"):
            begun = event.get("step", 0)
            events = [e for e in events if e["event"] not in ("step", "validation") or e.get("step", 0) <= begun]
        events.append(event)
    return events


def save_state(
    path: Path,
    config: TrainingConfig,
    network: Trainable,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: dict[str, Any],
) -> None:
    """Writes the state of a run. Raises TrainingError when it cannot be written; an older state stays."""
    content = {
        "format": _FORMAT,
        "config": _fixed(config),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "progress": {k: repr(v) if isinstance(v, float) else v for k, v in progress.items()},
    }
    try:
        with whole_file(path) as part:
            torch.save(content, part)
    except (InputError, RuntimeError) as error:
        raise TrainingError(f"{path} could not be written ({error}); free disk space and use --resume") from error


def load_state(
    path: Path,
    config: TrainingConfig,
    network: Trainable,
    optimizer: torch.optim.Optimizer,
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
    saved = {**saved, "preset": ALIASES.get(saved["preset"], saved["preset"])}
    # What a state of an earlier version does not name was not there to be chosen.
    different = sorted(name for name in here if name in saved and saved[name] != here[name])
    if "num_epochs" in different and (here["num_epochs"] or 0) > (saved["num_epochs"] or 0):
        different.remove("num_epochs")  # the run is extended
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
    values["preset"] = ALIASES.get(values["preset"], values["preset"])
    return {k: list(v) if isinstance(v, tuple) else (None if v is math.nan else v) for k, v in values.items()}
