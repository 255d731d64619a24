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
        return not self.ask()

    def ask(self) -> bool:
        """Whether Slicer may close. Stops the run where the user wants that."""
        name = self._session.train.name
        box = qt.QMessageBox(qt.QMessageBox.Question, _("Training is under way"), _(
            "The run {name} is under way. Shall it stop, or go on without Slicer? Nothing is lost: a run that stops "
            "can be continued, and one that goes on is found again the next time.").format(name=name))
        keep = box.addButton(_("Keep running"), qt.QMessageBox.AcceptRole)
        stop = box.addButton(_("Stop"), qt.QMessageBox.DestructiveRole)
        box.addButton(qt.QMessageBox.Cancel)
        box.setDefaultButton(keep)
        box.exec()
        pressed = box.clickedButton()
        if pressed == stop:
            self._session.train.stop()
        return pressed in (keep, stop)
