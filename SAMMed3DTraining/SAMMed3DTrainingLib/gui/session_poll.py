"""Calls the session as often as it wants to be called: often while a thread computes, seldom for child processes."""

from __future__ import annotations

from typing import Any

import qt


class SessionPoll:
    """A timer that runs only while there is something to wait for."""

    def __init__(self, session: Any, parent: qt.QObject) -> None:
        self._session = session
        self._polling = False
        self._timer = qt.QTimer(parent)
        self._timer.connect("timeout()", self._onTimeout)
        session.paceChanged.connect(self._onPace)

    def close(self) -> None:
        self._session.paceChanged.disconnect(self._onPace)
        self._timer.stop()
        self._timer.disconnect("timeout()", self._onTimeout)

    def _onPace(self, seconds: float) -> None:
        if seconds:
            self._timer.start(max(round(1000 * seconds), 1))
        else:
            self._timer.stop()

    def _onTimeout(self) -> None:
        if self._polling:  # a result's handler runs an event loop of its own, in a dialog for example
            return
        self._polling = True
        try:
            self._session.poll()
        finally:
            self._polling = False
