"""Hands the worker's results to the session while requests are open.

The main thread holds Python's lock while Qt's event loop waits, and a worker thread then stands still. A short timer
whose slot waits for the next result gives the lock to the worker and leaves no gap in the panel that anyone notices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import qt

from ..signal import Signal

INTERVAL_MS = 5
WAIT_SECONDS = 0.005
#: Where drawing the views takes all the time between two polls, the worker would starve: it gets a share of that time,
#: up to this much, which is still no gap that anyone feels.
LONGEST_WAIT_SECONDS = 0.02


class Pollable(Protocol):
    busyChanged: Signal

    def poll(self, timeout: float) -> bool: ...


class WorkerPoll:
    """Calls ``session.poll`` every few milliseconds while the session says that it is busy."""

    def __init__(
        self, session: Pollable, parent: qt.QObject, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session, self._clock = session, clock
        self._polledAt = clock()
        self._polling = False
        self._timer = qt.QTimer(parent)
        self._timer.interval = INTERVAL_MS
        self._timer.connect("timeout()", self._onTimeout)
        session.busyChanged.connect(self._onBusyChanged)

    @property
    def running(self) -> bool:
        return bool(self._timer.active)

    def close(self) -> None:
        self._session.busyChanged.disconnect(self._onBusyChanged)
        self._timer.stop()
        self._timer.disconnect("timeout()", self._onTimeout)

    def _onBusyChanged(self, busy: bool) -> None:
        if busy:
            self._polledAt = self._clock()
            self._timer.start()
        else:
            self._timer.stop()

    def _onTimeout(self) -> None:
        if self._polling:  # a result's handler runs an event loop of its own, in a dialog for example
            return
        self._polling = True
        elsewhere = self._clock() - self._polledAt
        try:
            busy = self._session.poll(min(max(WAIT_SECONDS, elsewhere / 2), LONGEST_WAIT_SECONDS))
        finally:
            self._polling = False
            self._polledAt = self._clock()
        if not busy:
            self._timer.stop()
