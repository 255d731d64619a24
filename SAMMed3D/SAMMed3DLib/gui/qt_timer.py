"""A timer for classes that must not know Qt: a QTimer behind three names."""

from __future__ import annotations

import qt

from ..signal import Signal


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
        """Stops for good; the QTimer dies with its parent."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self._onTimeout)

    def _onTimeout(self) -> None:
        self.timeout.emit()
