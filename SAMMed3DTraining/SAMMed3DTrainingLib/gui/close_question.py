"""Slicer is being closed while a run is under way: stop it, or let it go on?"""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _


class CloseQuestion(qt.QObject):
    """Watches the main window; asks before it closes. Nothing is lost either way: a run saves itself, and goes on in a
    process of its own where it is to.
    """

    def __init__(self, session: Any) -> None:
        qt.QObject.__init__(self)
        self._session = session
        self._window = slicer.util.mainWindow()
        if self._window is not None:
            self._window.installEventFilter(self)

    def remove(self) -> None:
        """Stop watching."""
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Qt asks: True keeps the event from the window."""
        if event.type() != qt.QEvent.Close or not self._session.train.isRunning:
            return False
        if self.ask():
            return False
        event.ignore()  # an event that is only kept away counts as accepted
        return True

    def ask(self) -> bool:
        """Whether Slicer may close. Stops the run where the user wants that."""
        question = _(
            "The run {name} is under way. Stop it before Slicer closes?\n\n"
            "Yes: it saves itself and can be continued later.\n"
            "No: it goes on without Slicer, and is found again the next time."
        ).format(name=self._session.train.name)
        box = qt.QMessageBox
        answer = slicer.util.messageBox(
            question,
            windowTitle=_("Training is under way"),
            icon=box.Question,
            standardButtons=box.Yes | box.No | box.Cancel,
        )
        if answer == box.Yes:
            self._session.train.stop()
        return answer != box.Cancel
