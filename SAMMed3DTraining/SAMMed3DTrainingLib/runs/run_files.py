"""The small files of a run's folder that tie the training process and those who follow it together.

=============== =======================================================================================================
events.jsonl    what happened, one JSON object a line; described in ``run_folder.py``
control         one word, "run", "pause" or "stop", written by whoever watches, read at every step
lock            held by the training process as long as it lives, however it ends
process.json    which process that is, and where in events.jsonl its events begin
config.json     the configuration, resolved
run.log         standard output and standard error, where a panel started the run
=============== =======================================================================================================
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from SAMMed3DLib.files.output_files import LockHeld, file_lock, is_locked, whole_file
from SAMMed3DLib.inference.errors import InputError

Command = Literal["run", "pause", "stop"]

EVENTS = "events.jsonl"
CONTROL = "control"
LOCK = "lock"
PROCESS = "process.json"
CONFIG = "config.json"
LOG = "run.log"
STATE = "training_state.pth"
LATEST = "sam_model_latest.pth"
DICE_BEST = "sam_model_dice_best.pth"
LOSS_BEST = "sam_model_loss_best.pth"
#: Environment variable by which a started process and all its descendants are known.
SESSION = "SAMMED3D_SESSION"
#: Environment variable with the number of the process that started those of several GPUs.
ROOT_PID = "SAMMED3D_ROOT_PID"

#: Whoever asks whether a lock is held holds it for an instant: that is waited for.
_LOCK_SECONDS = 1.0
#: Windows does not replace a file while another program reads it.
_REPLACE_TRIES, _REPLACE_SECONDS = 20, 0.02


class RunError(RuntimeError):
    """Something cannot be done with a run; the message is for its user and names the cure."""


class RunUnderWay(RunError):
    """Another process is training this run."""


@dataclass(frozen=True)
class ProcessNote:
    """The process that trains a run, or trained it last.

    Attributes:
        pid: of the process whose end ends all others of the run.
        host: the machine it runs on.
        session: what its starter called it; "" without one.
        time: seconds since 1970.
        offset: length of events.jsonl in bytes when it began.
    """

    pid: int
    host: str
    session: str
    time: float
    offset: int


# -- control ----------------------------------------------------------------------------------------------------------


def read_command(folder: Path) -> Command:
    """Reads the control file; "run" where there is none, or nothing readable in it."""
    return read_word(folder / CONTROL)


def read_word(control: Path) -> Command:
    """Reads the word in any control file, as :func:`read_command` does."""
    try:
        word = control.read_text(encoding="utf-8").strip().lower()
    except (OSError, UnicodeDecodeError):
        return "run"
    return cast("Command", word) if word in ("pause", "stop") else "run"


def write_command(folder: Path, command: Command) -> None:
    """Writes the control file. Raises RunError when it cannot be written."""
    write_whole(folder / CONTROL, command)


def write_whole(path: Path, text: str) -> None:
    """Writes a small text file, whole or not at all. Raises RunError when it cannot be written."""
    for attempt in range(_REPLACE_TRIES):
        try:
            with whole_file(path) as part:
                part.write_text(text, encoding="utf-8")
            return
        except InputError as error:
            being_read = os.name == "nt" and isinstance(error.__cause__, PermissionError)
            if not being_read or attempt == _REPLACE_TRIES - 1:
                raise RunError(str(error)) from error
        time.sleep(_REPLACE_SECONDS)


def plain(value: Any) -> Any:
    """Makes of a value what JSON has: arrays become lists, floats have 6 digits, NaN and infinity become None."""
    if hasattr(value, "tolist"):  # of NumPy
        value = value.tolist()
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


# -- the lock ---------------------------------------------------------------------------------------------------------


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Holds a run for this process; the system lets go however it ends.

    Raises:
        RunUnderWay: another process holds it.
        OSError: the folder cannot be written.
    """
    try:
        with file_lock(folder / LOCK, _LOCK_SECONDS):
            yield
    except LockHeld as error:
        raise RunUnderWay(
            f"the run {folder} is under way in another process: stop that one, or choose another name"
        ) from error


def lock_is_held(folder: Path) -> bool:
    """Whether a process is training this run now."""
    return is_locked(folder / LOCK)


# -- who trains -------------------------------------------------------------------------------------------------------


def note_process(folder: Path, pid: int, session: str, clock: Callable[[], float] = time.time) -> None:
    """Writes process.json; for the process that holds the lock, before its first event. Raises RunError."""
    try:
        offset = (folder / EVENTS).stat().st_size
    except OSError:
        offset = 0
    write_whole(
        folder / PROCESS, json.dumps(asdict(ProcessNote(pid, platform.node(), session, round(clock(), 3), offset)))
    )


def read_process(folder: Path) -> ProcessNote | None:
    """The content of process.json; None where there is none that can be read."""
    try:
        values = json.loads((folder / PROCESS).read_text(encoding="utf-8"))
        return ProcessNote(
            int(values["pid"]),
            str(values["host"]),
            str(values["session"]),
            float(values["time"]),
            int(values["offset"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run; empty where there is none that can be read."""
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def best_weights(folder: Path) -> Path | None:
    """The weights of the highest validation Dice, else the latest; None before the first save."""
    return next((path for name in (DICE_BEST, LATEST) if (path := folder / name).is_file()), None)
