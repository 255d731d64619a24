"""One line of the panel: what the module is doing; for what takes a while a bar, the time left and Cancel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from ..translation import tr as _

DELAY_MS = 300
_TEXT_PAGE, _BAR_PAGE = 0, 1
_FILLED = 0.85


class ProgressRow:
    """Shows the bar only for work that takes longer than DELAY_MS, so that quick clicks do not flicker."""

    def __init__(self, ui: Any, cancel: Callable[[], None]) -> None:
        """``ui.statusStack``: its first page holds statusLabel; the second progressLabel, progressBar, cancelButton."""
        self._stack, self._label, self._button = ui.statusStack, ui.statusLabel, ui.cancelButton
        self._bar, self._barLabel = ui.progressBar, ui.progressLabel
        self._cancel = cancel
        self._busy = False
        self._timer = qt.QTimer(self._stack)
        self._timer.setSingleShot(True)
        self._timer.interval = DELAY_MS
        self._timer.connect("timeout()", self._showBar)
        self._button.connect("clicked(bool)", self._onCancel)
        self._stack.setCurrentIndex(_TEXT_PAGE)

    def setBusy(self, busy: bool) -> None:
        if busy == self._busy:
            return
        self._busy = busy
        if busy:
            self._setRange(0, 0)
            self._say(self._label.text)
            self._button.enabled = True
            self._timer.start()
        else:
            self._timer.stop()
            self._stack.setCurrentIndex(_TEXT_PAGE)

    def setProgress(self, done: int, total: int, text: str) -> None:
        """``total`` 0: nobody knows how long it takes. ``text`` says what is done and, where known, the time left."""
        self._setRange(done, total)
        self._say(text)

    def close(self) -> None:
        self._timer.stop()
        self._timer.disconnect("timeout()", self._showBar)
        self._button.disconnect("clicked(bool)", self._onCancel)

    def _say(self, text: str) -> None:
        """The text in as many lines as there is room for, cut in its middle where it is too long; whole as tool tip."""
        self._barLabel.toolTip = text
        metrics, width = self._barLabel.fontMetrics(), self._barLabel.width
        # a line that breaks between words is not filled to its end
        room = max(1, self._stack.height // metrics.lineSpacing()) * max(1, int(_FILLED * width))
        self._barLabel.text = metrics.elidedText(text, qt.Qt.ElideMiddle, room) if width > 0 else text

    def _setRange(self, done: int, total: int) -> None:
        self._bar.maximum = max(total, 0)
        self._bar.value = done

    def _showBar(self) -> None:
        self._stack.setCurrentIndex(_BAR_PAGE)

    def _onCancel(self, checked: bool = False) -> None:
        self._button.enabled = False  # once is enough; the work stops at its next step
        self._say(_("Canceling..."))
        self._cancel()
