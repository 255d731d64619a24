"""The one thread on which torch runs: a queue of requests in which the latest wins, and a queue of results.

Slicer's main thread holds Python's lock while it waits for events; this thread runs only while the main thread waits in
:meth:`EngineWorker.take` (or runs code that lets go of the lock). So whoever submits a request polls until
:attr:`EngineWorker.isBusy` is false: a timer of 5 ms whose slot calls ``take(0.005)``.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from .requests import Progress, Request, RequestCancelled, Result

Report = Callable[[int, int, str], bool]
"""Called with (done, total, text); False asks to stop."""


class EngineProtocol(Protocol):
    """What runs on the thread."""

    def run(self, request: Any, report: Report) -> Any:
        """The answer to a request. Raises RequestCancelled once ``report`` said False, ValueError for users."""

    def explain(self, error: Exception) -> str | None:
        """The error in a user's words, or None if it was not foreseen."""


@dataclass(eq=False)
class _Job:
    generation: int
    request: Any
    cancelled: bool = False
    started: float = 0.0
    reported: float = field(default=float("-inf"))

    @property
    def order(self) -> tuple[int, int]:
        return self.request.priority, self.generation


class EngineWorker:
    """Runs requests one after the other on a daemon thread, which starts with the first request.

    Args:
        engine: does the work; it is only ever called on the thread.
        clock: seconds, for durations and for thinning progress.
        progressInterval: at least so many seconds lie between two progress reports of one request.
    """

    def __init__(
        self, engine: EngineProtocol, clock: Callable[[], float] = time.monotonic, progressInterval: float = 0.05
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._progressInterval = progressInterval
        self._changed = threading.Condition()
        self._queued: list[_Job] = []
        self._running: list[_Job] = []  # more than one while a request slips into another
        self._results: queue.SimpleQueue[Result | Progress] = queue.SimpleQueue()
        self._generation = 0
        self._stopped = False
        self._thread: threading.Thread | None = None

    # -- from the main thread ----------------------------------------------------------------------------------------

    def submit(self, request: Request) -> int:
        """Queue a request and return its generation number, larger than all before.

        A queued request of equal key is dropped without a result: the new one takes its place. A running request that
        gives way is cancelled.

        Raises:
            RuntimeError: after :meth:`shutdown`.
        """
        with self._changed:
            if self._stopped:
                raise RuntimeError("the worker was shut down")
            self._generation += 1
            self._queued = [job for job in self._queued if job.request.key != request.key]
            self._queued.append(_Job(self._generation, request))
            for job in self._running:
                if job.request.gives_way:
                    job.cancelled = True
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="SAMMed3D engine", daemon=True)
                self._thread.start()
            return self._generation

    def cancel(self, generation: int | None = None) -> list[int]:
        """Drop a queued request, or stop a running one at its next progress callback. None = all.

        Returns:
            the generations of what was dropped: no result will come of it.
        """
        with self._changed:
            dropped = [job.generation for job in self._queued if generation in (None, job.generation)]
            self._queued = [job for job in self._queued if job.generation not in dropped]
            for job in self._running:
                if generation in (None, job.generation):
                    job.cancelled = True
        return dropped

    def take(self, timeout: float = 0.0) -> Result | Progress | None:
        """The next result or progress, waiting up to ``timeout`` seconds; waiting lets the thread run."""
        try:
            return self._results.get(timeout=timeout) if timeout > 0 else self._results.get_nowait()
        except queue.Empty:
            return None

    @property
    def isBusy(self) -> bool:
        """Whether anything is queued, running, or waiting to be taken."""
        with self._changed:
            return bool(self._queued or self._running) or not self._results.empty()

    def shutdown(self, timeout: float = 2.0) -> bool:
        """Cancel everything and end the thread; returns whether it ended in time (it dies with the process anyway)."""
        self.cancel()
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    # -- on the thread -----------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._queued and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                job = self._begin(min(self._queued, key=lambda job: job.order))
            self._run(job)

    def _begin(self, job: _Job) -> _Job:
        self._queued.remove(job)
        self._running.append(job)
        return job

    def _run(self, job: _Job) -> None:
        job.started = self._clock()
        value, error, details, cancelled = None, None, "", False
        try:
            value = self._engine.run(job.request, lambda done, total, text: self._report(job, done, total, text))
        except RequestCancelled as stop:
            value, cancelled = stop.value, True
        except Exception as failure:  # nothing may end this thread
            error = self._engine.explain(failure)
            if error is None:
                error = f"Unexpected {type(failure).__name__}: {failure}"
                details = traceback.format_exc()
        seconds = self._clock() - job.started
        with self._changed:
            self._running.remove(job)
            self._results.put(Result(job.generation, job.request, value, error, details, cancelled, seconds))

    def _report(self, job: _Job, done: int, total: int, text: str) -> bool:
        """Progress of a running request; in between, what slips in is run."""
        now = self._clock()
        if now - job.reported >= self._progressInterval or (total and done >= total):
            job.reported = now
            left = (now - job.started) * (total - done) / done if total and done else None
            self._results.put(Progress(job.generation, job.request, done, total, text, left))
        while job.request.lets_in and not job.cancelled and (guest := self._guest()) is not None:
            self._run(guest)
        return not job.cancelled

    def _guest(self) -> _Job | None:
        with self._changed:
            guests = [job for job in self._queued if job.request.slips_in]
            return self._begin(min(guests, key=lambda job: job.order)) if guests else None
