"""Starts child processes, in which Python and environment they run; they outlive whoever started them.

Output goes to a file, never into a pipe: a pipe fills up when nobody reads it, and breaks when the reader goes.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import SAMMed3DLib

from .process_tree import end_tree
from .run_files import LOG, SESSION, RunError, lock_is_held, read_process

_LOG_BYTES = 32 * 1024
PACKAGE = "SAMMed3DTrainingLib"
_TRAINING_FOLDER = Path(__file__).resolve().parents[2]
_ENGINE_FOLDER = Path(SAMMed3DLib.__file__).resolve().parents[1]


class ChildProcess(Protocol):
    """A child process, started here or found on disk, that can be polled and ended.

    Attributes:
        session: its name in its environment and in process.json.
        log_offset: where its output begins in the log.
    """

    @property
    def log_offset(self) -> int: ...

    @property
    def session(self) -> str: ...

    def poll(self) -> int | None:
        """The exit code, or None while it runs. Returns at once."""

    def terminate(self) -> None:
        """Asks it to end, where the system has a way to ask; ends it elsewhere. Returns at once."""

    def kill_tree(self, grace_s: float = 0.0) -> None:
        """Ends it and everything it started, after ``grace_s`` seconds to end by themselves. Raises RunError."""


class TrainingProcess:
    """A process that was started here. It goes on when this program ends.

    Attributes:
        pid: its number, and on POSIX that of its process group.
        session: its name, new for every start.
        log_offset: where its output begins in the log.
    """

    def __init__(self, process: subprocess.Popen[bytes], session: str, log_offset: int) -> None:
        self._process = process
        self.pid, self.session, self.log_offset = process.pid, session, log_offset

    @classmethod
    def start(
        cls, command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path | None = None
    ) -> TrainingProcess:
        """Starts a command as the head of a process group of its own.

        Args:
            command: program and arguments, one string each; no shell sees them.
            environment: the whole environment.
            log: its standard output and error are appended there; the folder is made.
            cwd: its working folder.

        Raises:
            RunError: it cannot be started.
        """
        session = uuid.uuid4().hex
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                offset = file.seek(0, os.SEEK_END)
                process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**environment, SESSION: session},
                    cwd=cwd,
                    **_own_group(),
                )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunError(f"{command[0]} could not be started with its log in {log}: {reason}") from error
        return cls(process, session, offset)

    def poll(self) -> int | None:
        """The exit code, negative after a signal, or None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """SIGTERM to the process group. On Windows, where nothing can be asked, the tree ends."""
        if os.name == "nt":
            self.kill_tree()
        else:
            with suppress(OSError):
                os.killpg(self.pid, 15)

    def kill_tree(self, grace_s: float = 0.0) -> None:
        """Ends the process and all that come from it. Raises RunError when some cannot be ended."""
        left = end_tree(self.pid, self.session, grace_s)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0 if not left else 0.0)
        _complain(left)


class AttachedProcess:
    """The process that trains a run found on disk: it lives as long as it holds the run's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def session(self) -> str:
        """Session name, as process.json has it; "" without."""
        note = read_process(self._folder)
        return note.session if note else ""

    @property
    def log_offset(self) -> int:
        """Offset of the last part of the log, some hundred lines."""
        try:
            return max(0, (self._folder / LOG).stat().st_size - _LOG_BYTES)
        except OSError:
            return 0

    def poll(self) -> int | None:
        """None while the lock is held, then 0: how it ended stands in the run's events."""
        return None if lock_is_held(self._folder) else 0

    def terminate(self) -> None:
        """SIGTERM to the process. On Windows the tree ends. Raises RunError for that of another machine."""
        pid = self._pid_here()
        if os.name == "nt":
            self.kill_tree()
        elif pid:
            with suppress(OSError):
                os.kill(pid, 15)

    def kill_tree(self, grace_s: float = 0.0) -> None:
        """Ends the process and all that come from it. Raises RunError when some cannot be ended."""
        pid = self._pid_here()
        if pid:
            _complain(end_tree(pid, self.session, grace_s))

    def _pid_here(self) -> int:
        """Its number while it lives; 0 when it has ended. A number alone may long be another's."""
        if not lock_is_held(self._folder):
            return 0
        note = read_process(self._folder)
        if note is None:
            raise RunError(f"which process trains {self._folder} is not known: end it where it was started")
        if note.host != platform.node():
            raise RunError(f"the run {self._folder} is under way on {note.host}: end it there")
        return note.pid


def _own_group() -> dict[str, Any]:
    if os.name == "nt":
        flags = subprocess.CREATE_NO_WINDOW  # type: ignore[attr-defined]  # Windows only
        flags |= subprocess.CREATE_NEW_PROCESS_GROUP  # type: ignore[attr-defined]  # Windows only
        return {"creationflags": flags}
    return {"start_new_session": True}


def _complain(left: set[int]) -> None:
    if left:
        raise RunError(f"processes that could not be ended: {', '.join(map(str, sorted(left)))}; end them by hand")


@dataclass(frozen=True)
class Interpreter:
    """A Python that has the packages of training.

    Attributes:
        executable: PythonSlicer in Slicer, which finds all that belongs to Slicer; else an ordinary Python.
    """

    executable: Path

    def command(self, name: str, arguments: Sequence[str]) -> list[str]:
        """``python -m SAMMed3DTrainingLib NAME ARGUMENTS``, one string a word: no shell, no quoting."""
        return [str(self.executable), "-u", "-m", PACKAGE, name, *arguments]

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The whole environment of such a process: that of this one, which in Slicer names Slicer's libraries, and
        where both of our packages lie."""
        values = dict(os.environ if base is None else base)
        folders = list(dict.fromkeys([str(_ENGINE_FOLDER), str(_TRAINING_FOLDER)]))
        before = [each for each in values.get("PYTHONPATH", "").split(os.pathsep) if each and each not in folders]
        # UTF-8 whatever the system's code page: file names may have any letters.
        return {
            **values,
            "PYTHONPATH": os.pathsep.join([*folders, *before]),
            "PYTHONUTF8": "1",
            "PYTHONIOENCODING": "utf-8",
        }

    @property
    def cwd(self) -> Path:
        """Working folder for its processes. ``-m`` takes modules from there first: a folder of ours is safe."""
        return _TRAINING_FOLDER


def find_interpreter(which: Callable[[str], str | None] = shutil.which, fallback: str | None = None) -> Interpreter:
    """PythonSlicer where there is one on the path, as in Slicer; else this Python.

    Raises:
        RunError: neither; in an application ``sys.executable`` may be the application.
    """
    found = which("PythonSlicer")
    if found is None:
        fallback = sys.executable if fallback is None else fallback
        if not Path(fallback or "-").name.lower().startswith("python"):
            raise RunError("PythonSlicer was not found: it belongs into the folder 'bin' of Slicer's installation")
        found = fallback
    return Interpreter(Path(found))
