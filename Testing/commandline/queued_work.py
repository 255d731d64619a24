"""Work for the tests of the task queue, in a module of its own so that other processes find it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """Square a number.

    Attributes:
        number: to square.
        folder: gets a file for each time that a task is begun.
        deaths: so many times the process dies instead.
        pause: seconds that it takes.
    """

    number: int
    folder: str
    deaths: int = 0
    pause: float = 0.0


def square(task: Task) -> int:
    """The number's square; the process may die over it."""
    begun = len(list(Path(task.folder).glob(f"{task.number}-*")))
    (Path(task.folder) / f"{task.number}-{begun}-{os.getpid()}").touch()
    time.sleep(task.pause)
    if begun < task.deaths:
        os._exit(9)
    return task.number**2


def begun(folder: Path, number: int) -> int:
    """How often a task was begun."""
    return len(list(folder.glob(f"{number}-*")))


def processes(folder: Path) -> set[int]:
    """Who was at work."""
    return {int(file.name.rpartition("-")[2]) for file in folder.iterdir()}


def fail(task: Task) -> int:
    """What ends everything."""
    raise ZeroDivisionError(task.number)
