"""Many cases into a data set, one small step at a time: the scene is read here, files are written on a thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from .dataset_writer import DatasetWriter
from .errors import ExportCancelled
from .export_case import ExportCase

_log = logging.getLogger(__name__)


MakeCase = Callable[[], ExportCase]


@dataclass(frozen=True)
class ExportJob:
    """One case to be written.

    Attributes:
        name: of the case.
        read: begun on the thread that steps, one piece a step: yields None after each piece, and at last what makes
            the case, to be called on the worker thread. Both may raise ValueError with a message for the user.
    """

    name: str
    read: Callable[[], Iterator[MakeCase | None]]


@dataclass(frozen=True)
class ExportProgress:
    """How far it is: ``stage`` is "reading", "writing" or "done", ``fraction`` runs from 0 to 1."""

    done: int
    total: int
    fraction: float
    name: str
    stage: str


@dataclass(frozen=True)
class ExportResult:
    """What became of one case: ``state`` is "added", "updated", "unchanged", "failed" or "cancelled"."""

    name: str
    state: str
    message: str = ""
    size_bytes: int = 0


class StepwiseExport:
    """Writes cases one after the other; call :meth:`step` until it returns False.

    Args:
        jobs: the cases; of several with one name the first is written.
        writer: the data set.
    """

    def __init__(self, jobs: Sequence[ExportJob], writer: DatasetWriter) -> None:
        self._jobs, self._writer = list(jobs), writer
        self._results: list[ExportResult] = []
        self._answers: SimpleQueue[ExportResult | Exception] = SimpleQueue()
        self._cancelled = threading.Event()
        self._reading: Iterator[MakeCase | None] | None = None
        self._thread: threading.Thread | None = None
        self._share = 0.0

    @property
    def results(self) -> tuple[ExportResult, ...]:
        """Of the cases that are done, in the order of the jobs."""
        return tuple(self._results)

    @property
    def progress(self) -> ExportProgress:
        """How far it is now."""
        done, total = len(self._results), len(self._jobs)
        if done == total:
            return ExportProgress(done, total, 1.0, "", "done")
        stage = "reading" if self._thread is None else "writing"
        return ExportProgress(done, total, (done + self._share) / total, self._jobs[done].name, stage)

    def step(self, wait: float = 0.005) -> bool:
        """Reads a piece of the next case, or looks for at most ``wait`` seconds whether the present one is written.

        Returns:
            Whether there is more to do.
        """
        done = len(self._results)
        if done == len(self._jobs):
            return False
        if self._thread is None:
            self._read(self._jobs[done])
        else:
            with suppress(Empty):
                answer = self._answers.get(timeout=wait)
                self._finish(answer if isinstance(answer, ExportResult) else _failure(self._jobs[done].name, answer))
        return len(self._results) < len(self._jobs)

    def cancel(self) -> None:
        """No further case is begun, and the present one is given up; what is written stays."""
        self._cancelled.set()

    def close(self) -> None:
        """Cancels, and waits until nothing is being written any more."""
        self.cancel()
        while self.step(wait=0.1):
            pass

    def _read(self, job: ExportJob) -> None:
        if self._cancelled.is_set():
            self._finish(ExportResult(job.name, "cancelled"))
            return
        if any(result.name == job.name for result in self._results):
            self._finish(ExportResult(job.name, "failed", "another row has the same case name: choose one of them"))
            return
        try:
            if self._reading is None:
                self._reading = job.read()
            make = next(self._reading)
        except Exception as error:  # the other cases go on
            self._finish(_failure(job.name, error))
            return
        if make is not None:
            # A daemon: what is cut off at exit has not begun to count, or is completed when the folder is opened again.
            self._thread = threading.Thread(target=self._write, args=(job.name, make), name="export", daemon=True)
            self._thread.start()

    def _finish(self, result: ExportResult) -> None:
        if self._thread is not None:
            self._thread.join()
        self._reading, self._thread, self._share = None, None, 0.0
        self._results.append(result)

    def _write(self, name: str, make: MakeCase) -> None:
        try:
            written = self._writer.put(make(), self._on_progress)
            self._answers.put(ExportResult(name, written.state, "", written.size_bytes))
        except ExportCancelled:
            self._answers.put(ExportResult(name, "cancelled"))
        except Exception as error:  # whatever it is, whoever waits for the answer gets one
            self._answers.put(error)

    def _on_progress(self, share: float) -> bool:
        self._share = share
        return not self._cancelled.is_set()


def _failure(name: str, error: Exception) -> ExportResult:
    """In words for the user; what is no message for users is logged. To be called on the thread that steps."""
    if isinstance(error, MemoryError):
        return ExportResult(name, "failed", "there is not enough memory for it: close other volumes and try again")
    if not isinstance(error, ValueError):
        _log.error("case %s could not be exported", name, exc_info=error)
    return ExportResult(name, "failed", str(error) or type(error).__name__)
