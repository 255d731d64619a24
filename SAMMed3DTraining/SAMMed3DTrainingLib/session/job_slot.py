"""Runs one job at a time: a child process that prints JSON, or steps of which some run on a worker thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from SAMMed3DLib.signal import Signal
from SAMMed3DLib.worker.requests import FunctionRequest, Progress, Report, RequestCancelled, Result
from SAMMed3DLib.worker.thread import Client

from ..runs.job_process import JobProcess
from .states import JobKind

Value = TypeVar("Value")

#: Share of a job that must be done before its remaining time is estimated.
_TELLING = 0.1

Steps = Generator[Callable[[Report], Any] | None, Any, Any]
"""Yields functions for the thread and gets their results back; what it does between two is done on the main thread.

After None it goes on at the next poll, so that long work here leaves the application alive. What goes wrong on the
thread is raised in it as StepError, and it may go on. When the job is cancelled, RequestCancelled is raised in it, with
the value of the function that ran last, if it has not got it yet; it may still return what it has.
"""


def oneStep(work: Callable[[], Any]) -> Steps:
    """Makes the steps of a job that is one function for the thread."""
    return (yield lambda report: work())


class StepError(RuntimeError):
    """An error on the thread, with a message for the user."""


@dataclass(frozen=True)
class JobOutcome:
    """The outcome of a job.

    Attributes:
        value: the result of a finished job, or the partial one of a cancelled job; else None.
        error: message for the user; "" where nothing failed.
        cancelled: whether the user stopped it.
        kind: of an error, as runs.job_process names it.
    """

    value: Any = None
    error: str = ""
    cancelled: bool = False
    kind: str = ""


@dataclass(frozen=True)
class JobProgress:
    """The content of a progress bar.

    Attributes:
        text: the present work.
        fraction: 0 to 1; None where it is not known.
        leftSeconds: time left; None where it is not known.
    """

    text: str = ""
    fraction: float | None = None
    leftSeconds: float | None = None


class JobSlot:
    """Holds the running job.

    Attributes (signals):
        changed: a job begun, progressed or ended.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.changed = Signal()
        self._clock, self._begun = clock, 0.0
        self.kind: JobKind | None = None
        self.progress = JobProgress()
        self.cancelling = False
        self._client = Client()
        self._client.progressed.connect(self._onProgress)
        self._process: JobProcess | None = None
        self._steps: Steps | None = None
        self._finished: Callable[[JobOutcome], None] = lambda outcome: None
        self._item: Callable[[dict[str, Any]], None] | None = None
        self._seen = 0
        self._part, self._parts = 0, 1

    @property
    def isBusy(self) -> bool:
        return self.kind is not None

    @property
    def usesThread(self) -> bool:
        """Whether the job needs Python's lock, and so has to be polled often."""
        return self._steps is not None

    def runProcess(
        self,
        kind: JobKind,
        process: JobProcess,
        finished: Callable[[JobOutcome], None],
        item: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Follows a child process; ``item`` gets its partial results, ``finished`` its outcome."""
        self._begin(kind, finished)
        self._process, self._item, self._seen = process, item, 0
        self.changed.emit()

    def runSteps(self, kind: JobKind, steps: Steps, finished: Callable[[JobOutcome], None], parts: int = 1) -> None:
        """Goes through the steps of a generator, whose return value is the result.

        Args:
            parts: number of functions for the thread, for the progress.
        """
        self._begin(kind, finished)
        self._steps, self._part, self._parts = steps, 0, max(parts, 1)
        self.changed.emit()
        self._advance(None)

    def cancel(self) -> None:
        """Stops the job at the next possibility; finished parts stay."""
        if self.kind is None:
            return
        self.cancelling = True
        if self._process is not None:
            self._process.cancel()
        else:
            self._client.cancel()
        self.changed.emit()

    def poll(self, timeout: float) -> bool:
        """Handles at most one message, waiting up to ``timeout`` seconds for the thread. Returns whether it is busy."""
        if self._process is not None:
            self._pollProcess(self._process)
        elif self._client.isBusy:
            self._client.poll(timeout)
        elif self._steps is not None:
            self._advance(None)
        return self.isBusy

    def close(self, seconds: float) -> None:
        """Ends everything; waits at most ``seconds`` for the thread."""
        if self._process is not None:
            self._process.kill()
        if self._steps is not None:
            self._steps.close()
        self._client.close(seconds)
        self.kind = self._process = self._steps = None

    # -- within ------------------------------------------------------------------------------------------------------

    def _begin(self, kind: JobKind, finished: Callable[[JobOutcome], None]) -> None:
        if self.kind is not None:
            raise RuntimeError(f"{self.kind.value} is still under way")
        self.kind, self.progress, self._finished, self.cancelling = kind, JobProgress(), finished, False
        self._begun = self._clock()

    def _end(self, outcome: JobOutcome) -> None:
        finished = self._finished
        self.kind, self.progress = None, JobProgress()
        self._process = self._steps = self._item = None
        self.cancelling = False
        finished(outcome)
        self.changed.emit()

    def _pollProcess(self, process: JobProcess) -> None:
        status = process.poll()
        new, self._seen = status.items[self._seen :], len(status.items)
        if self._item is not None:
            for item in new:
                self._item(item)
        if status.state == "running":
            text = status.message or self.progress.text
            self._show(JobProgress(text, status.fraction, status.left_s))
        elif status.state == "done":
            self._end(JobOutcome(status.result))
        else:
            cancelled = status.state == "cancelled"
            self._end(JobOutcome(status.result, "" if cancelled else status.message, cancelled, status.kind))

    def _advance(self, value: Any, error: Exception | None = None) -> None:
        """Goes on to the next step."""
        steps = self._steps
        assert steps is not None
        if self.cancelling:
            error = RequestCancelled(value)
        try:
            function = steps.send(value) if error is None else steps.throw(error)
        except StopIteration as end:
            self._end(JobOutcome(end.value, cancelled=self.cancelling))
        except RequestCancelled:
            self._end(JobOutcome(cancelled=True))
        except (ValueError, OSError, RuntimeError) as failure:
            self._end(JobOutcome(error=str(failure)))
        else:
            if function is not None:
                self._client.submit(FunctionRequest(function), self._onResult)

    def _onProgress(self, progress: Progress) -> None:
        if self._steps is not None:
            fraction = progress.done / progress.total if progress.total else 0.0
            self._showPart(min(fraction, 1.0), progress.text)

    def _onResult(self, result: Result) -> None:
        if self._steps is None:
            return
        self.cancelling = self.cancelling or result.cancelled
        self._part += 1
        self._showPart(0.0, "")
        self._advance(result.value, StepError(result.error) if result.error else None)

    def _showPart(self, fraction: float, text: str) -> None:
        whole = min((self._part + fraction) / self._parts, 1.0)
        left = (self._clock() - self._begun) * (1 - whole) / whole if whole >= _TELLING else None
        self._show(JobProgress(text or self.progress.text, whole, left))

    def _show(self, progress: JobProgress) -> None:
        if progress != self.progress:
            self.progress = progress
            self.changed.emit()


class SessionPart:
    """A part of the session: its signal, and the message on what the user did last.

    Attributes (signals):
        changed: what the part shows.
    """

    def __init__(self) -> None:
        self.changed = Signal()
        self.error = self.notice = ""

    def _say(self, error: str = "", notice: str = "") -> None:
        self.error, self.notice = error, notice
        self.changed.emit()

    def _tried(self, work: Callable[[], Value]) -> Value | None:
        """Returns what the work gives; None where it cannot be done, which is said."""
        try:
            return work()
        except (ValueError, OSError, RuntimeError) as error:
            self._say(str(error))
            return None
