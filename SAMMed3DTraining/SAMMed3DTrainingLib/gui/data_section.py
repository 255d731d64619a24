"""Section 1: the table of cases, the folder they are written into, and data sets that lie ready."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt

from SAMMed3DLib.gui.icons import Icons
from SAMMed3DLib.translation import tr as _

from .texts import DASH
from .widgets import Connections, Table

TICK, CASE, NODULES, STATE = range(4)
USE, FOLDER, CONTENT = range(3)


class DataSection:
    """Shows the session's data part and hands what the user does back to it."""

    def __init__(self, ui: Any, widget: qt.QWidget, session: Any, icons: Icons) -> None:
        self._ui, self._widget, self._session, self._icons = ui, widget, session, icons
        self._data = session.data
        self._data.exported = _exported
        self._cases = Table(
            ui.caseTable,
            (
                ("", _("Ticked cases are written."), False, False),
                (_("Case"), _("Name of the case's files. Double-click to change it."), True, False),
                (_("Nodules"), _("Nodules that would be written, of all that there are."), False, True),
                (_("State"), _("New, changed since it was written, written, or what stands in the way."), True, False),
            ),
            rows=(2, 7),
        )
        self._sets = Table(
            ui.datasetTable,
            (
                ("", _("Ticked data sets are trained on."), False, False),
                (_("Folder"), _("Where the data set lies."), True, False),
                (_("Cases"), _("Cases and nodules, and what the check found."), False, True),
            ),
            rows=(2, 4),
        )
        self._connections = Connections()
        self._connections.signal(self._data.changed, self.refresh)
        self._connections.widget(ui.caseTable, "itemChanged(QTableWidgetItem*)", self._onCaseChanged)
        self._connections.widget(ui.datasetTable, "itemChanged(QTableWidgetItem*)", self._onSetChanged)
        self._connections.widget(ui.datasetTable, "itemSelectionChanged()", self._onSetSelected)
        self._connections.buttons(
            {
                ui.folderButton: self._onFolder,
                ui.exportButton: self._data.export,
                ui.importButton: self._onImport,
                ui.addDatasetButton: self._onAdd,
                ui.removeDatasetButton: self._onRemove,
                ui.checkDatasetButton: self._onCheck,
            }
        )
        self.refresh()

    def close(self) -> None:
        self._connections.close()

    @property
    def selectedDataset(self) -> int:
        """A row of "More data sets"; -1 where none is selected."""
        row = self._sets.selectedRow
        return row if row < len(self._data.datasets) else -1

    def setIcons(self, icons: Icons) -> None:
        """The theme has changed."""
        self._icons = icons
        self.refresh()

    def refresh(self, *__: Any) -> None:
        """Show the rows as they are now."""
        rows = self._data.rows
        with self._cases.fill(len(rows)):
            for index, row in enumerate(rows):
                self._fillCase(index, row)
        with self._sets.fill(len(self._data.datasets)):
            for index, entry in enumerate(self._data.datasets):
                self._fillSet(index, entry)

    def _fillCase(self, index: int, row: Any) -> None:
        state, icon = {
            "new": (_("new"), "add"),
            "changed": (_("changed"), "training_changed"),
            "unchanged": (_("written"), "accept"),
        }.get(row.state, (row.problem, "flag"))
        tip = "\n".join([row.problem or _caseTip(row), *row.notes])
        included = self._data.isIncluded(row) and row.state != "unchanged"
        self._cases.cell(index, TICK, "", tip, checked=None if row.state in ("problem", "unchanged") else included)
        self._cases.cell(index, CASE, row.caseName or row.title, tip, editable=row.state != "problem")
        count = (
            str(row.nodules)
            if not self._data.acceptedOnly
            else _("{accepted} of {all}").format(accepted=row.accepted, all=row.nodules)
        )
        self._cases.cell(
            index,
            NODULES,
            count,
            _("{accepted} accepted of {all} nodules").format(accepted=row.accepted, all=row.nodules),
        )
        self._cases.cell(index, STATE, state, tip, icon=self._icons(icon))

    def _fillSet(self, index: int, entry: Any) -> None:
        self._sets.cell(index, USE, "", _("Train on this data set."), checked=entry.used)
        problems = entry.problems or ()
        tip = "\n".join([str(entry.folder), *problems])
        self._sets.cell(index, FOLDER, entry.folder.name, tip)
        count = DASH if entry.cases is None else str(entry.cases)
        item = self._sets.cell(index, CONTENT, count, tip)
        if problems:
            item.setIcon(self._icons("flag"))
        elif entry.problems is not None:
            item.setIcon(self._icons("accept"))

    # -- what the user does ------------------------------------------------------------------------------------------

    def _onCaseChanged(self, item: qt.QTableWidgetItem) -> None:
        if self._cases.filling or not 0 <= item.row() < len(self._data.rows):
            return
        if item.column() == TICK:
            self._data.setIncluded(item.row(), item.checkState() == qt.Qt.Checked)
        elif item.column() == CASE:
            self._data.rename(item.row(), item.text())

    def _onSetChanged(self, item: qt.QTableWidgetItem) -> None:
        if not self._sets.filling and item.column() == USE:
            self._data.useDataset(item.row(), item.checkState() == qt.Qt.Checked)

    def _onSetSelected(self) -> None:
        if not self._sets.filling:
            self._data.changed.emit()

    def _onFolder(self) -> None:
        path = self._askFolder(_("Choose the folder of the data set"), self._ui.folderEdit.text)
        if path:
            self._ui.folderEdit.text = path

    def _onImport(self) -> None:
        path = self._askFolder(_("Choose a folder with image and label files"))
        if path:
            self._data.importFiles(Path(path))

    def _onAdd(self) -> None:
        path = self._askFolder(_("Choose a data set, or a folder with several"))
        if path:
            self._data.addDataset(Path(path))

    def _onRemove(self) -> None:
        if self.selectedDataset >= 0:
            self._data.removeDataset(self.selectedDataset)

    def _onCheck(self) -> None:
        if self.selectedDataset >= 0:
            self._data.checkDataset(self._data.datasets[self.selectedDataset].folder)

    def _askFolder(self, title: str, start: str = "") -> str:
        return str(qt.QFileDialog.getExistingDirectory(self._widget, title, start) or "")


def _exported(count: int, folder: Path) -> str:
    if count == 1:
        return _("1 case was written to {folder}.").format(folder=folder)
    return _("{n} cases were written to {folder}.").format(n=count, folder=folder)


def _caseTip(row: Any) -> str:
    patient = _("Patient: {patient}").format(patient=row.patient) if row.patient else _("Patient not known.")
    return f"{row.title}. {patient}"
