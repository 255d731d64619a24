"""The one thread on which torch runs: a queue of requests in which the latest wins, and a queue of results.

Slicer's main thread holds Python's lock while it waits for events; this thread runs only while the main thread waits in
:meth:`Worker.take` (or runs code that lets go of the lock). So whoever submits a request polls until
:attr:`Worker.isBusy` is false: a timer of 5 ms whose slot calls ``take(0.005)``.
"""

from __future__ import annotations

import functools
import math
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..signal import Signal
from .requests import FunctionRequest, Priority, Progress, Report, Request, RequestCancelled, Result

OnResult = Callable[[Result], None]
#: Instead of the seconds left: nobody knows more of them than the pace of the work tells.
_BY_PACE = math.nan


class EngineProtocol(Protocol):
    """What runs on the thread."""

    def run(self, request: Any, report: Report) -> Any:
        """The answer to a request. Raises RequestCancelled once ``report`` said False, ValueError for users."""

    def explain(self, error: Exception) -> str | None:
        """The error in a user's words, or None if it was not foreseen."""


class FunctionEngine:
    """Runs functions, for work that needs no state on the thread."""

    def run(self, request: FunctionRequest, report: Report) -> Any:
        """What the function returns."""
        return request.function(report)

    def explain(self, error: Exception) -> str | None:
        """Errors of values, files, downloads and training have messages made for users."""
        return str(error) if isinstance(error, (ValueError, OSError, RuntimeError)) else None


@dataclass(eq=False)
class _Entry:
    """A request that is queued or running."""

    generation: int
    request: Any
    cancelled: bool = False
    started: float = 0.0
    reported: float = field(default=float("-inf"))
    past: list[tuple[float, int]] = field(default_factory=list)

    @property
    def order(self) -> tuple[int, int]:
        return self.request.priority, self.generation


class Worker:
    """Runs requests one after the other on a daemon thread, which starts with the first request.

    Args:
        engine: does the work; it is only ever called on the thread. Default: one for FunctionRequests.
        clock: seconds, for durations and for thinning progress.
        progressInterval: at least so many seconds lie between two progress reports of one request.
    """

    def __init__(
        self,
        engine: EngineProtocol | None = None,
        clock: Callable[[], float] = time.monotonic,
        progressInterval: float = 0.05,
    ) -> None:
        self._engine = engine or FunctionEngine()
        self._clock = clock
        self._progressInterval = progressInterval
        self._changed = threading.Condition()
        self._queued: list[_Entry] = []
        self._running: list[_Entry] = []  # more than one while a request slips into another
        self._results: queue.SimpleQueue[Result | Progress] = queue.SimpleQueue()
        self._generation = 0
        self._stopped = False
        self._thread: threading.Thread | None = None

    # -- from the main thread ----------------------------------------------------------------------------------------

    def submit(self, request: Request) -> int:
        """Queue a request and return its generation number, larger than all before.

        A queued request of equal key is dropped without a result: the new one takes its place. A running request that
        is IDLE is cancelled.

        Raises:
            RuntimeError: after :meth:`shutdown`.
        """
        with self._changed:
            if self._stopped:
                raise RuntimeError("the worker was shut down")
            self._generation += 1
            self._queued = [entry for entry in self._queued if entry.request.key != request.key]
            self._queued.append(_Entry(self._generation, request))
            for entry in self._running:
                if entry.request.priority is Priority.IDLE:
                    entry.cancelled = True
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="SAMMed3D worker", daemon=True)
                self._thread.start()
            return self._generation

    def cancel(self, generation: int | None = None) -> list[int]:
        """Drop a queued request, or stop a running one at its next progress callback. None = all.

        Returns:
            the generations of what was dropped: no result will come of it.
        """
        with self._changed:
            dropped = [entry.generation for entry in self._queued if generation in (None, entry.generation)]
            self._queued = [entry for entry in self._queued if entry.generation not in dropped]
            for entry in self._running:
                if generation in (None, entry.generation):
                    entry.cancelled = True
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
                entry = self._begin(min(self._queued, key=lambda entry: entry.order))
            self._run(entry)

    def _begin(self, entry: _Entry) -> _Entry:
        self._queued.remove(entry)
        self._running.append(entry)
        return entry

    def _run(self, entry: _Entry) -> None:
        entry.started = self._clock()
        value, error, details, cancelled = None, None, "", False
        try:
            value = self._engine.run(entry.request, functools.partial(self._report, entry))
        except RequestCancelled as stop:
            value, cancelled = stop.value, True
        except Exception as failure:  # nothing may end this thread
            error = self._engine.explain(failure)
            if error is None:
                error = f"Unexpected {type(failure).__name__}: {failure}"
                details = traceback.format_exc()
        seconds = self._clock() - entry.started
        with self._changed:
            self._running.remove(entry)
            self._results.put(Result(entry.generation, entry.request, value, error, details, cancelled, seconds))

    def _report(
        self, entry: _Entry, done: int, total: int, text: str, value: Any = None, seconds_left: float | None = _BY_PACE
    ) -> bool:
        """Progress of a running request; in between, what slips in is run."""
        now = self._clock()
        if now - entry.reported >= self._progressInterval or (total and done >= total) or value is not None:
            entry.reported = now
            entry.past.append((now, done))
            byPace = seconds_left is not None and math.isnan(seconds_left)
            left = _seconds_left(entry.started, entry.past, total) if byPace else seconds_left
            self._results.put(Progress(entry.generation, entry.request, done, total, text, left, value))
        if entry.request.priority is Priority.LONG:
            while not entry.cancelled and (guest := self._guest()) is not None:
                self._run(guest)
        return not entry.cancelled

    def _guest(self) -> _Entry | None:
        with self._changed:
            guests = [entry for entry in self._queued if entry.request.priority.slips_in]
            return self._begin(min(guests, key=lambda entry: entry.order)) if guests else None


def _seconds_left(started: float, past: Sequence[tuple[float, int]], total: int) -> float | None:
    """The time that the rest of a request will take, None where nobody can know.

    Its parts are not equally fast, so the pace of the whole and that of its second half count, the slower one.

    Args:
        started: seconds.
        past: when how much was done, the oldest first.
        total: all that there is to do, 0 if that is not known.
    """
    now, done = past[-1]
    if not total or not done:
        return None
    half = next((one for one in reversed(past) if one[0] <= started + (now - started) / 2.0), (started, 0))
    paces = [(now - since) / (done - before) for since, before in ((started, 0), half) if done > before]
    return (total - done) * max(paces)


class Client:
    """Submits requests to a worker and hands every answer to whoever asked, on the thread that polls.

    Args:
        worker: for this client alone; default: one for functions.

    Attributes:
        busyChanged: Signal(bool): start or stop polling.
        progressed: Signal(Progress).
    """

    def __init__(self, worker: Worker | None = None) -> None:
        self._worker = worker if worker is not None else Worker()
        self._waiting: dict[int, tuple[Request, OnResult]] = {}
        self._dropped: list[Result] = []
        self._isBusy = False
        self.busyChanged, self.progressed = Signal(), Signal()

    @property
    def isBusy(self) -> bool:
        """Whether :meth:`poll` must be called."""
        return self._isBusy

    def submit(self, request: Request, onResult: OnResult) -> None:
        """Queue a request; ``onResult`` is called from :meth:`poll`, also when it is cancelled before it began."""
        self._waiting[self._worker.submit(request)] = request, onResult
        self._tell()

    def cancel(self) -> None:
        """Stop what runs at its next progress callback, and drop what waits."""
        dropped = self._worker.cancel()
        self._dropped += [Result(each, self._waiting[each][0], cancelled=True) for each in dropped]

    def poll(self, timeout: float = 0.005) -> bool:
        """Hand out at most one message, waiting up to ``timeout`` seconds; returns whether there is more to do."""
        message = self._dropped.pop(0) if self._dropped else self._worker.take(timeout)
        if isinstance(message, Progress):
            self.progressed(message)
        elif message is not None and message.generation in self._waiting:
            self._waiting.pop(message.generation)[1](message)
        self._tell()
        return self._isBusy

    def close(self, seconds: float) -> None:
        """Stops for good, waiting for so long at most; a thread in a stalled connection ends by itself."""
        self._waiting.clear()
        self._dropped.clear()
        self._worker.shutdown(seconds)
        self._tell(busy=False)

    def _tell(self, busy: bool | None = None) -> None:
        busy = bool(self._dropped) or self._worker.isBusy if busy is None else busy
        if busy != self._isBusy:
            self._isBusy = busy
            self.busyChanged(busy)
