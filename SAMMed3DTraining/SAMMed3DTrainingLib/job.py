"""Commands that may take minutes: their progress, requests to end, failures and one clear last message.

For people, notes and progress go to standard error and the result to standard output. With ``--json`` everything is one
JSON object a line on standard output, as ``runs/job_process.py`` reads it.
"""

from __future__ import annotations

import argparse
import errno
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from SAMMed3DLib import __version__
from SAMMed3DLib.commandline.terminal import Terminal, our_warnings_told
from SAMMed3DLib.inference.errors import InputError
from SAMMed3DLib.model import CheckpointError, DeviceError

from .data.datasets import DatasetError
from .options import add_options, options_of, values_of
from .runs.run_files import RunError, read_word

Config = TypeVar("Config")
Kind = Literal["out_of_memory", "disk_full", "bad_data", "other"]

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
#: Words of PyTorch, whose errors are mostly plain RuntimeErrors.
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
_DISK_WORDS = ("PytorchStreamWriter failed", "file write failed", "No space left on device")

_WRONG_INPUT = (DatasetError, InputError, CheckpointError, DeviceError, RunError)
_CONTROL_SECONDS = 0.2
_TOLD_SECONDS = 0.25


class Job:
    """Reports a command's progress and result, and listens for requests to end.

    Args:
        prog: its name, for messages.
        as_json: print JSON lines.
        control: file in which the word "stop" asks it to end; None for none.
        clock: seconds.
    """

    def __init__(
        self, prog: str, as_json: bool = False, control: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.prog = prog
        self._json = as_json
        self._control = control
        self._clock = clock
        self._begun = clock()
        self._asked = False
        self._looked = self._told = -math.inf
        self._terminal = Terminal()

    # -- the ear -----------------------------------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to end, by a signal or by the control file. Cheap."""
        if not self._asked and self._control is not None and self._clock() - self._looked >= _CONTROL_SECONDS:
            self._looked = self._clock()
            self._asked = read_word(self._control) == "stop"
        return self._asked

    def _hear(self) -> None:
        """Notes the first signal as a request to end; a second one ends the command at once."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    # -- the voice ---------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Reports a remark for users."""
        if self._json:
            self._print({"event": "note", "message": text})
        else:
            self._terminal.note(f"note: {text}")

    def progress(self, done: float, total: float, message: str = "") -> None:
        """Reports the progress, a few times a second at most."""
        if self._clock() - self._told < _TOLD_SECONDS and done < total:
            return
        self._told = self._clock()
        left = (self._clock() - self._begun) / done * (total - done) if done > 0 else None
        if self._json:
            self._print({"event": "progress", "done": done, "total": total, "left_s": left, "message": message})

    def item(self, values: dict[str, Any], text: str) -> None:
        """Reports one partial result."""
        if self._json:
            self._print({"event": "item", **values})
        else:
            self._terminal.note(text)

    def result(self, values: dict[str, Any], text: str) -> None:
        """Reports the result of finished work."""
        if self._json:
            self._print({"event": "result", **values})
        else:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def error(self, message: str, kind: str) -> None:
        """Reports why work cannot be done."""
        if self._json:
            self._print({"event": "error", "message": message, "kind": kind})
        else:
            self._terminal.note(f"{self.prog}: error: {message}")

    def _print(self, values: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(values, allow_nan=False) + "\n")
        sys.stdout.flush()

    # -- the work ----------------------------------------------------------------------------------------------------

    def run(self, work: Callable[[Job], object], refused: tuple[type[Exception], ...] = ()) -> int:
        """Does the work. Returns the exit code: 0 done, 2 it cannot be done (with a message), 130 asked to end.

        Args:
            work: the work.
            refused: further errors by which the work refuses its input.
        """
        try:
            with obeying_signals(self._hear), our_warnings_told(self.note):
                work(self)
            return 130 if self.cancelled else 0
        except _WRONG_INPUT + refused as error:
            self.error(str(error), kind_of(error))
        except (MemoryError, RuntimeError) as error:
            if kind_of(error) != "out_of_memory":
                raise
            self.error("out of memory: close other programs, or use --device cpu", "out_of_memory")
        except OSError as error:
            self.error(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), kind_of(error))
        except KeyboardInterrupt:
            return 130
        return 2


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options --json and --control."""
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of text")
    parser.add_argument("--control", type=Path, metavar="FILE", help="a file in which the word stop ends the command")


def run_job(
    prog: str,
    description: str,
    config: type[Config],
    work: Callable[[Config, Job], object],
    arguments: list[str],
    refused: tuple[type[Exception], ...] = (),
) -> int:
    """Runs a command as a job. Returns the exit code: 0 done, 2 it cannot be done, 130 asked to end.

    Args:
        prog, description: of the command.
        config: its configuration, whose options it has beside --json and --control.
        work: the work.
        arguments: the command line.
        refused: further errors by which the work refuses its input.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"sammed3d {__version__}")
    options = options_of(config)
    add_options(parser, options, config)
    add_job_options(parser)
    parsed = parser.parse_args(arguments)
    chosen = config(**values_of(parsed, options))
    return Job(prog, parsed.json, parsed.control).run(lambda job: work(chosen, job), refused)


# -- failures and signals, of training too -----------------------------------------------------------------------------


def kind_of(error: BaseException) -> Kind:
    """Classifies an error by itself and by its causes."""
    chain = list(_chain(error))
    if any(isinstance(each, OSError) and each.errno in _FULL for each in chain) or _says(chain, _DISK_WORDS):
        return "disk_full"
    # PyTorch is not imported for its OutOfMemoryError: this is asked where it may be missing.
    memory = any(isinstance(each, MemoryError) or type(each).__name__ == "OutOfMemoryError" for each in chain)
    if memory or _says([each for each in chain if isinstance(each, RuntimeError)], _MEMORY_WORDS):
        return "out_of_memory"
    if any(type(each).__name__ == "DatasetError" for each in chain):
        return "bad_data"
    return "other"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _says(chain: list[BaseException], words: tuple[str, ...]) -> bool:
    return any(word in str(each) for each in chain for word in words)


@contextmanager
def obeying_signals(hear: Callable[[], None]) -> Iterator[None]:
    """Calls ``hear`` at SIGINT, SIGTERM and SIGHUP within the block; then restores their handlers.

    Only the main thread receives them; a hang-up that is ignored (``nohup``) stays ignored.
    """
    names = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        names.append(signal.SIGHUP)
    try:
        old = [(name, signal.signal(name, lambda *unused: hear())) for name in names]
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for name, handler in old:
            signal.signal(name, handler)
