"""The buttons around the table: history, review, search for all nodules, copying and saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..files.output_files import write_text_whole
from ..inference.errors import InputError
from ..scene.nodule_rows import tableText
from .nodule_list import NoduleList

_FOLDER_SETTING = "SAMMed3D/TableFolder"


class NoduleActions:
    """Connects the buttons to the session; the selected row is what they act on."""

    def __init__(self, ui: Any, session: Any, nodules: NoduleList) -> None:
        self._session, self._nodules = session, nodules
        self._table = ui.noduleTable
        self._connections = [
            (ui.undoButton, self._onUndo), (ui.redoButton, self._onRedo), (ui.acceptButton, self._onAccept),
            (ui.flagButton, self._onFlag), (ui.rejectButton, self._onReject), (ui.previousButton, self._onPrevious),
            (ui.nextButton, self._onNext), (ui.copyButton, self._onCopy), (ui.saveButton, self._onSave),
            (ui.segmentAllButton, self._onSegmentAll),
        ]
        for button, slot in self._connections:
            button.connect("clicked(bool)", slot)

    def close(self) -> None:
        for button, slot in self._connections:
            button.disconnect("clicked(bool)", slot)

    def accept(self) -> None:
        """The selected nodule is reviewed; on to the next."""
        if self._session.selectedId is not None:
            self._session.acceptSelectedAndNext()

    def reject(self) -> None:
        """The selected nodule goes; on to the next."""
        if self._session.selectedId is not None:
            self._session.rejectSelectedAndNext()

    def previous(self) -> None:
        self._nodules.move(-1)

    def next(self) -> None:
        self._nodules.move(1)

    def saveTable(self, path: Path) -> None:
        """Writes the table as CSV, whole or not at all. Raises InputError."""
        # utf-8-sig: the mark at the beginning tells spreadsheets that names are UTF-8.
        write_text_whole(path, tableText(self._session.rows(), ","), "utf-8-sig")

    def _onUndo(self, checked: bool = False) -> None:
        self._session.undo()

    def _onRedo(self, checked: bool = False) -> None:
        self._session.redo()

    def _onAccept(self, checked: bool = False) -> None:
        self.accept()

    def _onReject(self, checked: bool = False) -> None:
        self.reject()

    def _onFlag(self, checked: bool = False) -> None:
        selected = self._session.selectedId
        status = next((row.status for row in self._session.rows() if row.segmentId == selected), None)
        if status == "flagged":
            self._session.unreview(selected)
        elif status is not None:
            self._session.flag(selected)

    def _onPrevious(self, checked: bool = False) -> None:
        self.previous()

    def _onNext(self, checked: bool = False) -> None:
        self.next()

    def _onSegmentAll(self, checked: bool = False) -> None:
        self._session.segmentAll()

    def _onCopy(self, checked: bool = False) -> None:
        slicer.app.clipboard().setText(tableText(self._session.rows()))
        self._session.message.emit(_("The table is on the clipboard."), False)

    def _onSave(self, checked: bool = False) -> None:
        settings = slicer.app.userSettings()
        folder = Path(settings.value(_FOLDER_SETTING) or qt.QDir.homePath())
        volume = self._session.volumeNode
        name = f"{volume.GetName() if volume else 'nodules'} nodules.csv"
        chosen = qt.QFileDialog.getSaveFileName(
            self._table, _("Save the table of nodules"), str(folder / name), _("Table (*.csv)")
        )
        if not chosen:
            return
        path = Path(chosen if chosen.lower().endswith(".csv") else f"{chosen}.csv")
        try:
            self.saveTable(path)
        except InputError as error:
            self._session.message.emit(str(error), True)
            return
        settings.setValue(_FOLDER_SETTING, str(path.parent))
        self._session.message.emit(_("Saved {path}.").format(path=path), False)
