"""Draws a run's curves from its events: Loss.png and Dice.png, TensorBoard, and loggers of other packages."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from SAMMed3DLib.files.output_files import whole_file
from SAMMed3DLib.inference.errors import InputError

from .run_folder import read_events
from .training_config import TrainingError

Logger = Callable[[dict[str, Any]], None]
#: Entry points of other packages: callables that take a run's folder and give a Logger.
LOGGER_GROUP = "sammed3d.loggers"


def draw_plots(folder: Path) -> list[Path]:
    """Draws both plots into a run's folder, whole or not at all; returns those that were written.

    Nothing is drawn where matplotlib is missing (inside Slicer the module draws its own plots) or the disk is full.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return []
    events = read_events(folder)
    steps = [event for event in events if event["event"] == "step"]
    validations = [event for event in events if event["event"] == "validation"]
    if not steps:
        return []
    written = []
    for name, label in (("Loss", "loss"), ("Dice", "Dice")):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        if name == "Loss":
            _curve(axes, steps, "loss", "training", "tab:blue")
            axes.plot(*_points(validations, "loss"), "o-", color="tab:orange", label="validation")
        else:
            _curve(axes, steps, "dice_first", "training, first click", "tab:blue")
            _curve(axes, steps, "dice_last", "training, last click", "tab:green")
            for click in range(len(validations[0]["dice"]) if validations else 0):
                x = [event["step"] for event in validations]
                y = [event["dice"][click] for event in validations]
                alpha = 1.0 if click == 0 else 0.4
                axes.plot(x, y, "o-", color="tab:orange", alpha=alpha, label=f"validation @{click + 1}")
            axes.set_ylim(0, 1)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
        path = folder / f"{name}.png"
        try:
            with whole_file(path) as part:
                figure.savefig(part, dpi=110)
            written.append(path)
        except InputError:
            continue
    return written


def make_logger(name: str, folder: Path) -> Logger:
    """Makes the logger of this name: a callable that takes each event, as events.jsonl has it.

    Args:
        name: "tensorboard", or an entry point of the group ``sammed3d.loggers``.
        folder: of the run.

    Raises:
        TrainingError: there is no such name, or it cannot be loaded.
    """
    if name == "tensorboard":
        if importlib.util.find_spec("tensorboard") is None:
            raise TrainingError("--log_to tensorboard: it is not installed; pip install tensorboard")
        return TensorBoard(folder / "tensorboard").hear
    offered = {each.name: each for each in entry_points(group=LOGGER_GROUP)}
    if name not in offered:
        raise TrainingError(f"--log_to {name}: there are {', '.join(['tensorboard', *sorted(offered)])}")
    try:
        return offered[name].load()(folder)
    except Exception as error:  # another package's
        raise TrainingError(f"--log_to {name} cannot begin: {type(error).__name__}: {error}") from error


class TensorBoard:
    """Writes a run's figures in TensorBoard's format.

    Args:
        folder: made with the first figure.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def hear(self, event: dict[str, Any]) -> None:
        """Takes the numbers of steps and validations; writes them out with every validation and at the end."""
        kind = event["event"]
        if kind not in ("step", "validation", "end") or (kind == "end" and self._writer is None):
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # Steps that a resumed run does again take the place of the old ones.
            self._writer = SummaryWriter(str(self._folder), purge_step=event["step"])
        for key, value in event.items():
            if isinstance(value, float) and key != "time":
                self._writer.add_scalar(f"{kind}/{key}", value, event["step"])
        if kind != "step":
            self._writer.flush()


def _curve(axes: Any, steps: list[dict[str, Any]], key: str, label: str, color: str) -> None:
    """Draws a curve: single steps faintly, their moving mean clearly."""
    x, y = _points(steps, key)
    if not len(y):
        return
    width = max(1, len(y) // 40)
    mean = np.convolve(y, np.ones(width) / width, mode="valid")
    axes.plot(x, y, color=color, alpha=0.2, linewidth=0.7)
    axes.plot(x[width - 1 :], mean, color=color, label=label)


def _points(events: list[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(event["step"], event[key]) for event in events if event.get(key) is not None]
    return np.array([x for x, _ in pairs]), np.array([y for _, y in pairs], dtype=float)
