"""One job at a time: a child process that prints JSON, steps on a worker thread, or an export with its own thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

from SAMMed3DLib.signal import Signal
from SAMMed3DLib.worker.worker import EngineWorker

from .calls import Call, CallEngine
from .states import JobKind

#: Of a job must be done before its rest can be foreseen.
_TELLING = 0.1

Steps = Generator[Callable[[Callable[[int, int, str], bool]], Any], Any, Any]
"""Yields functions for the thread and gets their results back; what it does between two is done on the main thread."""


class Stepper(Protocol):
    """Work with a thread of its own, as scene.scene_export.SceneExport has it."""

    progress: Any
    results: Any

    def step(self, wait: float) -> bool: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class TaskLike(Protocol):
    """A child process, as runs.task.Task has it."""

    def poll(self) -> Any: ...

    def cancel(self) -> None: ...

    def kill(self) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        value: the result of a job that was done; None otherwise.
        error: what to tell the user; "" where nothing failed.
        cancelled: the user stopped it.
        kind: of an error, as runs.task names it.
    """

    value: Any = None
    error: str = ""
    cancelled: bool = False
    kind: str = ""


@dataclass(frozen=True)
class JobProgress:
    """What a progress bar shows.

    Attributes:
        text: what is being done.
        fraction: 0 to 1; None: nobody knows.
        leftSeconds: time left; None: nobody knows.
    """

    text: str = ""
    fraction: float | None = None
    leftSeconds: float | None = None


class JobSlot:
    """Holds the job that is under way.

    Attributes (signals):
        changed: begun, progressed or ended.
    """

    def __init__(self, worker: EngineWorker | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.changed = Signal()
        self._clock, self._begun = clock, 0.0
        self.kind: JobKind | None = None
        self.progress = JobProgress()
        self.cancelling = False
        self._worker = worker
        self._task: TaskLike | None = None
        self._steps: Steps | None = None
        self._stepper: Stepper | None = None
        self._finished: Callable[[Outcome], None] = lambda outcome: None
        self._item: Callable[[dict[str, Any]], None] | None = None
        self._seen = 0
        self._part, self._parts = 0, 1

    @property
    def isBusy(self) -> bool:
        return self.kind is not None

    @property
    def usesThread(self) -> bool:
        """Whether the job needs Python's lock, so that it is to be polled often."""
        return self._steps is not None or self._stepper is not None

    def runTask(self, kind: JobKind, task: TaskLike, text: str, finished: Callable[[Outcome], None],
                item: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Follows a child process. ``item`` gets what it tells on the way, ``finished`` how it ended."""
        self._begin(kind, text, finished)
        self._task, self._item, self._seen = task, item, 0
        self.changed.emit()

    def runSteps(self, kind: JobKind, steps: Steps, text: str, finished: Callable[[Outcome], None],
                 parts: int = 1) -> None:
        """Goes through a generator: what it yields runs on the thread, the rest here. Its return value is the result.

        Args:
            parts: how many of its steps count as progress.
        """
        self._begin(kind, text, finished)
        self._steps, self._part, self._parts = steps, 0, max(parts, 1)
        self.changed.emit()
        self._advance(None)

    def runStepper(self, kind: JobKind, stepper: Stepper, finished: Callable[[Outcome], None]) -> None:
        """Follows an export; the value of its outcome is the stepper's results, also of one that was canceled."""
        self._begin(kind, "", finished)
        self._stepper = stepper
        self.changed.emit()

    def cancel(self) -> None:
        """Stops at the next possibility; what was finished stays."""
        if self.kind is None:
            return
        self.cancelling = True
        if self._task is not None:
            self._task.cancel()
        elif self._stepper is not None:
            self._stepper.cancel()
        elif self._worker is not None:
            self._worker.cancel()
        self.changed.emit()

    def poll(self, timeout: float) -> bool:
        """Handles at most one message, waiting up to ``timeout`` seconds for the thread. Returns whether it is busy."""
        if self._steps is not None:
            self._pollThread(timeout)
        elif self._stepper is not None:
            self._pollStepper(timeout)
        elif self._task is not None:
            self._pollTask()
        return self.isBusy

    def close(self, seconds: float) -> None:
        """Ends everything; waits so long at most for the thread."""
        if self._task is not None:
            self._task.kill()
        if self._steps is not None:
            self._steps.close()
        if self._stepper is not None:
            self._stepper.close()
        if self._worker is not None:
            self._worker.shutdown(seconds)
        self.kind = self._task = self._steps = self._stepper = None

    # -- within ------------------------------------------------------------------------------------------------------

    def _begin(self, kind: JobKind, text: str, finished: Callable[[Outcome], None]) -> None:
        if self.kind is not None:
            raise RuntimeError(f"{self.kind.value} is still under way")
        self.kind, self.progress, self._finished, self.cancelling = kind, JobProgress(text), finished, False
        self._begun = self._clock()

    def _end(self, outcome: Outcome) -> None:
        finished = self._finished
        self.kind, self.progress = None, JobProgress()
        self._task = self._steps = self._stepper = self._item = None
        self.cancelling = False
        finished(outcome)
        self.changed.emit()

    def _pollStepper(self, timeout: float) -> None:
        stepper = self._stepper
        assert stepper is not None
        try:
            goesOn = stepper.step(timeout)
        except (ValueError, OSError, RuntimeError) as error:
            stepper.close()
            self._end(Outcome(error=str(error)))
            return
        if goesOn:
            fraction = stepper.progress.fraction
            self._show(JobProgress(stepper.progress.name, fraction, self._left(fraction)))
            return
        cancelled = self.cancelling
        stepper.close()
        self._end(Outcome(stepper.results, cancelled=cancelled))

    def _pollTask(self) -> None:
        assert self._task is not None
        status = self._task.poll()
        new, self._seen = status.items[self._seen:], len(status.items)
        if self._item is not None:
            for item in new:
                self._item(item)
        if status.state == "running":
            text = status.message or self.progress.text
            self._show(JobProgress(text, status.fraction, status.left_s))
        elif status.state == "done":
            self._end(Outcome(status.result))
        else:
            cancelled = status.state == "cancelled"
            self._end(Outcome(status.result, "" if cancelled else status.message, cancelled, status.kind))

    def _advance(self, value: Any, error: Exception | None = None) -> None:
        """On to the next function for the thread."""
        steps = self._steps
        assert steps is not None
        try:
            if self.cancelling:
                steps.close()
                self._end(Outcome(cancelled=True))
                return
            function = steps.throw(error) if error is not None else steps.send(value)
        except StopIteration as end:
            self._end(Outcome(end.value))
        except (ValueError, OSError, RuntimeError) as failure:
            self._end(Outcome(error=str(failure)))
        else:
            if self._worker is None:
                self._worker = EngineWorker(CallEngine())
            self._worker.submit(Call(function))

    def _pollThread(self, timeout: float) -> None:
        assert self._worker is not None
        message = self._worker.take(timeout)
        if message is None:
            if self.cancelling and not self._worker.isBusy:  # dropped before it began
                self._advance(None)
            return
        if hasattr(message, "done"):  # Progress
            fraction = message.done / message.total if message.total else 0.0
            whole = min((self._part + min(fraction, 1.0)) / self._parts, 1.0)
            self._show(JobProgress(message.text or self.progress.text, whole, self._left(whole)))
            return
        if message.cancelled:
            self.cancelling = True
        self._part += 1
        whole = min(self._part / self._parts, 1.0)
        self._show(JobProgress(self.progress.text, whole, self._left(whole)))
        self._advance(message.value, StepError(message.error) if message.error else None)

    def _left(self, fraction: float) -> float | None:
        """Seconds to go, if it goes on like this; None in the beginning."""
        return (self._clock() - self._begun) * (1 - fraction) / fraction if fraction >= _TELLING else None

    def _show(self, progress: JobProgress) -> None:
        if progress != self.progress:
            self.progress = progress
            self.changed.emit()


class StepError(RuntimeError):
    """What went wrong on the thread, in words for the user; raised in the generator, which may go on."""
