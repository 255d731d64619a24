"""One line of the panel: what the module is doing; for what takes a while a bar, the time left and Cancel."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

DELAY_MS = 300
_TEXT_PAGE, _BAR_PAGE = 0, 1


def timeLeftText(done: int, total: int, seconds: float) -> str:
    """A calm estimate, "about 12 s left"; empty while there is too little to go by."""
    if done <= 0 or done >= total or seconds < 2:
        return ""
    left = seconds * (total - done) / done
    if left < 1.5:
        return ""
    if left < 90:
        return _("about {seconds} s left").format(seconds=5 * max(1, round(left / 5)) if left > 10 else round(left))
    return _("about {minutes} min left").format(minutes=round(left / 60))


class ProgressRow:
    """Shows the bar only for work that takes longer than DELAY_MS, so that quick clicks do not flicker."""

    def __init__(self, ui: Any, cancel: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        """``ui.statusStack``: its first page holds statusLabel; the second progressLabel, progressBar, cancelButton."""
        self._stack, self._label, self._button = ui.statusStack, ui.statusLabel, ui.cancelButton
        self._bar, self._barLabel = ui.progressBar, ui.progressLabel
        self._cancel, self._clock = cancel, clock
        self._started = 0.0
        self._step = ""
        self._busy = False
        self._timer = qt.QTimer(self._stack)
        self._timer.setSingleShot(True)
        self._timer.interval = DELAY_MS
        self._timer.connect("timeout()", self._showBar)
        self._button.connect("clicked(bool)", self._onCancel)
        self._stack.setCurrentIndex(_TEXT_PAGE)

    def setText(self, text: str) -> None:
        self._label.text = text

    def setBusy(self, busy: bool) -> None:
        if busy == self._busy:
            return
        self._busy = busy
        if busy:
            self._started, self._step = self._clock(), ""
            self._setRange(0, 0)
            self._barLabel.text = self._label.text
            self._button.enabled = True
            self._timer.start()
        else:
            self._timer.stop()
            self._stack.setCurrentIndex(_TEXT_PAGE)

    def setProgress(self, done: int, total: int, text: str) -> None:
        """``total`` 0: nobody knows how long it takes."""
        if text != self._step:  # a new step has its own pace
            self._step, self._started = text, self._clock()
        self._setRange(done, total)
        left = timeLeftText(done, total, self._clock() - self._started)
        self._barLabel.text = " · ".join(part for part in (text, left) if part)

    def close(self) -> None:
        self._timer.stop()
        self._timer.disconnect("timeout()", self._showBar)
        self._button.disconnect("clicked(bool)", self._onCancel)

    def _setRange(self, done: int, total: int) -> None:
        self._bar.maximum = max(total, 0)
        self._bar.value = done

    def _showBar(self) -> None:
        self._stack.setCurrentIndex(_BAR_PAGE)

    def _onCancel(self, checked: bool = False) -> None:
        self._button.enabled = False  # once is enough; the work stops at its next step
        self._barLabel.text = _("Canceling...")
        self._cancel()
