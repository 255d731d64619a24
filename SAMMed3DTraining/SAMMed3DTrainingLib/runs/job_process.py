"""A job in a child process that prints JSON lines: an estimate, a check of the data, a comparison, a ranking.

Each line is an object with "event": "progress" (done, total, left_s, message), "note" or "warning" (message), "item"
(one result as it comes), then "result" or "estimate", or else "error" or a failed "end" (message, kind). Lines that are
no JSON are what libraries print; the last of them are told when the process ends without a word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .child_process import ChildProcess, Interpreter, TrainingProcess
from .json_lines import JsonLines
from .run_files import RunError, write_whole
from .run_request import TrainingRequest

JobState = Literal["running", "done", "failed", "cancelled"]
_LOG, _CONTROL = "job.log", "job.control"


@dataclass(frozen=True)
class JobStatus:
    """A job at one moment.

    Attributes:
        fraction: done so far, 0 to 1; None before anything is known.
        left_s: seconds to go; None where that is not known.
        message: what is being done, or why it failed.
        notes: what the user should know.
        items: single results, in the order they came.
        result: of a job that is done, or that was cancelled and tells what it has.
        kind: of a failure, as in a run's end event.
    """

    state: JobState = "running"
    fraction: float | None = None
    left_s: float | None = None
    message: str = ""
    notes: tuple[str, ...] = ()
    items: tuple[dict[str, Any], ...] = ()
    result: dict[str, Any] | None = None
    kind: str = ""

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self.state != "running"


class JobProcess:
    """Follows a child process through its output.

    Args:
        process: the child.
        log: where its output goes.
        control: file that it reads for the word "stop"; None where it reads none.
    """

    def __init__(self, process: ChildProcess, log: Path, control: Path | None = None) -> None:
        self.status = JobStatus()
        self._process, self._control = process, control
        self._lines = JsonLines(log, process.log_offset)
        self._cancelled = False
        self._error: tuple[str, str] | None = None
        self._last_text = ""

    def poll(self) -> JobStatus:
        """The job now. Reads what is new, never waits."""
        if self.status.is_over:
            return self.status
        code = self._process.poll()  # before the output: what a dead process has printed is all there
        for __, line in self._lines.read():
            if isinstance(line, dict):
                with suppress(KeyError, TypeError, ValueError):
                    self._take(line)
            elif line.strip():
                self._last_text = line.strip()
        if code is not None and self._lines.caught_up:
            self._conclude(code)
        return self.status

    def cancel(self) -> None:
        """Asks the job to end soon; what it has found so far may still come as its result."""
        self._cancelled = True
        if self._control is not None:
            with suppress(RunError):
                write_whole(self._control, "stop")
        else:
            self._process.terminate()

    def kill(self) -> None:
        """Ends it at once, with everything it started. Raises RunError."""
        self._cancelled = True
        self._process.kill_tree()

    def _take(self, line: dict[str, Any]) -> None:
        event = line["event"]
        if event == "progress":
            total, left = float(line["total"]), line.get("left_s")
            self._set(
                fraction=min(float(line["done"]) / total, 1.0) if total > 0 else None,
                left_s=None if left is None else float(left),
                message=str(line.get("message", "")),
            )
        elif event in ("note", "warning"):
            self._set(notes=(*self.status.notes, str(line["message"])))
        elif event == "item":
            self._set(items=(*self.status.items, line))
        elif event in ("result", "estimate"):
            self._set(result={name: value for name, value in line.items() if name != "event"})
        elif event == "error" or (event == "end" and line.get("reason") == "failed"):
            self._error = str(line["message"]), str(line.get("kind") or "other")

    def _conclude(self, code: int) -> None:
        if self._cancelled:
            self._set(state="cancelled", message="Cancelled.", left_s=None)
        elif self.status.result is not None and self._error is None:
            self._set(state="done", message="", fraction=1.0, left_s=0.0)
        else:
            message, kind = self._error or (self._last_text or f"The process ended with code {code}.", "other")
            self._set(state="failed", message=message, kind=kind, left_s=None)

    def _set(self, **values: Any) -> None:
        self.status = dataclasses.replace(self.status, **values)


def start_job(interpreter: Interpreter, name: str, arguments: Sequence[str], folder: Path) -> JobProcess:
    """Starts ``compare``, ``rank`` or ``check`` with its output and its control file in a folder.

    Args:
        arguments: its options but --json and --control, which are added.

    Raises:
        RunError: it cannot be started.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"The folder {folder} cannot be made: {error.strerror or error}; choose another one.") from error
    log, control = folder / _LOG, folder / _CONTROL
    write_whole(control, "run")
    with suppress(OSError):  # an earlier one's words are of no use
        log.unlink(missing_ok=True)
    words = [*arguments, "--json", "--control", str(control)]
    process = TrainingProcess.start(interpreter.command(name, words), interpreter.environment(), log, interpreter.cwd)
    return JobProcess(process, log, control)


def start_estimate(request: TrainingRequest, interpreter: Interpreter, log: Path) -> JobProcess:
    """Starts ``train --dry_run``, which measures some steps of a run and saves nothing.

    Raises:
        RunError: the request cannot be trained, or the process cannot be started.
    """
    request.check()
    words = [*request.arguments(), "--dry_run", "--json"]
    process = TrainingProcess.start(
        interpreter.command("train", words), interpreter.environment(), log, interpreter.cwd
    )
    return JobProcess(process, log)
