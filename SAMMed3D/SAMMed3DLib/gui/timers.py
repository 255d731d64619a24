"""Timers: one that polls while requests or processes are under way, and one for classes that must not know Qt."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import qt

from ..signal import Signal

#: How often a worker thread is polled, and how long each poll waits for it.
FAST_SECONDS = 0.005
#: Where drawing the views takes all the time between two polls, the worker would starve: it gets as much time, up to
#: this, which is still no gap that anyone feels.
LONGEST_WAIT_SECONDS = 0.025


class Poll:
    """Hands the worker's results to a session while requests are open.

    The main thread holds Python's lock while Qt's event loop waits, and a worker thread then stands still. A short
    timer whose slot waits for the next result gives the lock to the worker and leaves no gap in the panel that anyone
    notices.

    Args:
        poll: called with the seconds that it may wait; the timer stops when it returns something false.
        paced: signal that says how often: every so many seconds, True as often as a worker thread needs it, 0 or False
            not at all.
        parent: of the timer.
        clock: seconds.
    """

    def __init__(
        self,
        poll: Callable[[float], Any],
        paced: Signal,
        parent: qt.QObject,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._poll, self._paced, self._clock = poll, paced, clock
        self._polledAt = clock()
        self._polling = False
        self._timer = qt.QTimer(parent)
        self._timer.connect("timeout()", self._onTimeout)
        paced.connect(self._onPaced)

    @property
    def running(self) -> bool:
        return bool(self._timer.active)

    def close(self) -> None:
        self._paced.disconnect(self._onPaced)
        self._timer.stop()
        self._timer.disconnect("timeout()", self._onTimeout)

    def _onPaced(self, pace: float) -> None:
        if pace:
            self._polledAt = self._clock()
            self._timer.start(round(1000 * (FAST_SECONDS if pace is True else pace)))
        else:
            self._timer.stop()

    def _onTimeout(self) -> None:
        if self._polling:  # a result's handler runs an event loop of its own, in a dialog for example
            return
        self._polling = True
        elsewhere = self._clock() - self._polledAt
        try:
            goesOn = self._poll(min(max(FAST_SECONDS, elsewhere), LONGEST_WAIT_SECONDS))
        finally:
            self._polling = False
            self._polledAt = self._clock()
        if not goesOn:
            self._timer.stop()


class QtTimer:
    """Emits ``timeout`` once, the given time after the last ``start``.

    The signal is pure Python, so that scene classes and their tests need no Qt.
    """

    def __init__(self, parent: qt.QObject) -> None:
        self.timeout = Signal()
        self._timer = qt.QTimer(parent)
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", self._onTimeout)

    def start(self, milliseconds: int) -> None:
        self._timer.start(int(milliseconds))

    def stop(self) -> None:
        self._timer.stop()

    def close(self) -> None:
        """Stops for good; the QTimer is deleted with its parent."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self._onTimeout)

    def _onTimeout(self) -> None:
        self.timeout.emit()
