"""Runs written by hand: their events, and a process that is whatever a test says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from SAMMed3DTrainingLib.runs.run_files import CONFIG, EVENTS, note_process

CONFIGURATION = {
    "task_name": "run",
    "data": ["/data/set"],
    "checkpoint": None,
    "preset": "quick",
    "num_epochs": 2,
    "batch_size": 4,
    "accumulation_steps": 1,
    "lr": 0.0002,
    "device": "auto",
    "multi_gpu": False,
    "gpu_ids": [0],
    "versions": {},
}


class Process:
    """A child process without a process: ``code`` is its exit code, None while it runs."""

    pid = 4711

    def __init__(self, session: str = "mine", log_offset: int = 0) -> None:
        self.session, self.log_offset = session, log_offset
        self.code: int | None = None
        self.ended: list[str] = []

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.ended.append("terminate")
        self.code = -15

    def kill_tree(self, grace_s: float = 0.0) -> None:
        self.ended.append("kill")
        self.code = -9


def write(folder: Path, *events: dict[str, Any], since: float = 1000.0) -> None:
    """Appends events, one a second from ``since`` on."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / EVENTS).open("a", encoding="utf-8") as file:
        for number, event in enumerate(events):
            file.write(json.dumps({"time": since + number, **event}) + "\n")


def begin(folder: Path, session: str = "mine", time: float = 1000.0) -> None:
    """What a training process does first."""
    folder.mkdir(parents=True, exist_ok=True)
    note_process(folder, 4711, session, lambda: time)
    (folder / CONFIG).write_text(json.dumps(CONFIGURATION), encoding="utf-8")


def start(step: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "event": "start",
        "config": CONFIGURATION,
        "nodules": 6,
        "cases": 3,
        "split": "random",
        "step": step,
        "steps": 10,
        "resumed": step > 0,
        **more,
    }


def step(number: int, loss: float | None = 0.5) -> dict[str, Any]:
    return {
        "event": "step",
        "epoch": (number - 1) // 5 + 1,
        "step": number,
        "steps": 10,
        "loss": loss,
        "dice_first": 0.1,
        "dice_last": 0.2,
        "left_s": 10.0 - number,
    }


def validation(epoch: int, dice: float, best: bool = True) -> dict[str, Any]:
    return {
        "event": "validation",
        "epoch": epoch,
        "step": 5 * epoch,
        "loss": 1.0,
        "dice": [dice, dice],
        "mean_dice": dice,
        "nodules": 2,
        "best": best,
    }


def end(reason: str = "finished", **more: Any) -> dict[str, Any]:
    return {"event": "end", "reason": reason, "message": f"it {reason}", **more}
