"""The table of nodules (one row each, selected by a click, renamed in place) and the buttons around it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import qt
import slicer

from ..files.mark_files import READABLE
from ..files.output_files import write_text_whole
from ..inference.errors import InputError
from ..inference.nodule_table import shown
from ..scene.nodule_segmentation import NAME_TEMPLATE, Naming
from ..scene.review import tableText
from ..scene.volume_geometry import SceneError
from ..translation import tr as _
from .icons import Icons

_UNKNOWN = "–"
#: Numbers in names are sorted as numbers.
_PARTS = re.compile(r"(\d+)")
VISIBLE, NAME, VOLUME, AXES, MEAN_HU, CONFIDENCE, STATUS = range(7)
_ID_ROLE, _STATUS_ROLE = 256, 257  # Qt::UserRole and the next
#: Red, green, blue and opacity behind rows that are not to be trusted; seen in light and dark themes.
_DOUBT = (255, 160, 0, 70)
_FOLDER_SETTING, _SORT_SETTING = "SAMMed3D/TableFolder", "SAMMed3D/TableSorting"
_TEMPLATE_SETTING, _NAMES_SETTING = "SAMMed3D/NameTemplate", "SAMMed3D/NamesUsed"
#: So many names that were given are remembered.
_MOST_NAMES = 30
_TEMPLATES = (NAME_TEMPLATE, "N{number:02}", "{scan}, {number}")


def _places() -> tuple[str, ...]:
    """Returns names that a nodule may be given by its place."""
    return (
        _("Right upper lobe"),
        _("Middle lobe"),
        _("Right lower lobe"),
        _("Left upper lobe"),
        _("Lingula"),
        _("Left lower lobe"),
        _("Right hilum"),
        _("Left hilum"),
    )


_AT_LEAST_MM = 4.0
#: What the list can be narrowed to: its name, and whether it holds a row.
_FILTERS: tuple[tuple[Callable[[], str], Callable[[Any], bool]], ...] = (
    (lambda: _("All"), lambda row: True),
    (lambda: _("Not reviewed"), lambda row: row.status == "AI"),
    (lambda: _("Accepted"), lambda row: row.status == "reviewed"),
    (lambda: _("Flagged"), lambda row: row.status == "flagged"),
    (lambda: _("At least 4 mm"), lambda row: _known(row, "long_axis_mm") >= _AT_LEAST_MM),
)
#: What a click on a column's header sorts by.
_SORT_KEYS: dict[int, Callable[[Any], Any]] = {
    NAME: lambda row: [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in _PARTS.split(row.name)],
    VOLUME: lambda row: _known(row, "volume_mm3"),
    AXES: lambda row: _known(row, "long_axis_mm"),
    MEAN_HU: lambda row: _known(row, "mean_hu"),
    CONFIDENCE: lambda row: -1.0 if row.predictedIou is None else row.predictedIou,
    STATUS: lambda row: ("flagged", "AI", "reviewed").index(row.status),
}


def _known(row: Any, key: str) -> float:
    """A measurement to sort by; what is not known comes first."""
    value = row.measurements.get(key)
    return float("-inf") if value is None else float(value)


def _readSorting() -> tuple[int | None, bool]:
    """The column and whether it is descending, as the user chose last; (None, False): as the session has it."""
    column, _comma, descending = str(slicer.app.userSettings().value(_SORT_SETTING) or "").partition(",")
    return (int(column), descending == "1") if column.isdigit() and int(column) in _SORT_KEYS else (None, False)


class NoduleList:
    """Fills the table from the session's rows and hands what the user does in it back to the session."""

    def __init__(self, table: qt.QTableWidget, filters: qt.QComboBox, session: Any, icons: Icons) -> None:
        self._table, self._filters, self._session, self._icons = table, filters, session, icons
        self._filling = False
        self._shown: list[Any] = []
        self._sorting = _readSorting()
        self._isStale = False
        self._prepare()
        slicer.app.connect("focusChanged(QWidget*,QWidget*)", self._onFocus)
        filters.connect("currentIndexChanged(int)", self._onFilter)
        table.horizontalHeader().connect("sectionClicked(int)", self._onHeader)
        table.connect("itemSelectionChanged()", self._onSelection)
        table.connect("itemChanged(QTableWidgetItem*)", self._onItemChanged)
        table.connect("cellClicked(int,int)", self._onCellClicked)
        session.nodulesChanged.connect(self.refresh)
        session.noduleChanged.connect(self._onNoduleChanged)
        session.selectionChanged.connect(self._showSelection)
        self.refresh()

    def close(self) -> None:
        self._session.nodulesChanged.disconnect(self.refresh)
        self._session.noduleChanged.disconnect(self._onNoduleChanged)
        self._session.selectionChanged.disconnect(self._showSelection)
        slicer.app.disconnect("focusChanged(QWidget*,QWidget*)", self._onFocus)
        self._filters.disconnect("currentIndexChanged(int)", self._onFilter)
        self._table.horizontalHeader().disconnect("sectionClicked(int)", self._onHeader)
        self._table.disconnect("itemSelectionChanged()", self._onSelection)
        self._table.disconnect("itemChanged(QTableWidgetItem*)", self._onItemChanged)
        self._table.disconnect("cellClicked(int,int)", self._onCellClicked)

    def setIcons(self, icons: Icons) -> None:
        """Takes the icons of the present theme."""
        self._icons = icons
        self.refresh()

    def refresh(self) -> None:
        """Show the session's rows as they are now: those that the filter lets through, in the chosen order.

        While a name is being typed nothing moves below it: the rows follow when that is done.
        """
        self._isStale = self._editor(slicer.app.focusWidget()) is not None
        if self._isStale:
            return
        chosen = _FILTERS[max(0, self._filters.currentIndex)][1]
        rows = [row for row in self._session.review.rows() if chosen(row)]
        column, descending = self._sorting
        if column is not None:
            rows.sort(key=_SORT_KEYS[column], reverse=descending)
        before, self._shown = [row.segmentId for row in self._shown], rows
        self._session.review.listed = [row.segmentId for row in rows]
        self._filling = True
        try:
            if len(self.selectedIds) > 1 and before != [row.segmentId for row in rows]:
                self._table.clearSelection()  # what was selected lies elsewhere
            if self._table.rowCount != len(rows):
                self._table.setRowCount(len(rows))
            for index, row in enumerate(rows):
                self._fill(index, row)
        finally:
            self._filling = False
        self._showSelection(self._session.selectedId)

    @property
    def selectedIds(self) -> list[str]:
        """Segment IDs of the selected rows, from top to bottom."""
        rows = sorted({item.row() for item in self._table.selectedItems()})
        ids = [self._idAt(row) for row in rows]
        return [one for one in ids if one is not None]

    def rename(self) -> None:
        """Lets the user change the selected nodule's name in place."""
        row = self._rowOf(self._session.selectedId)
        if row is not None:
            self._table.setFocus()
            self._table.editItem(self._table.item(row, NAME))

    def nameChoices(self) -> list[str]:
        """Returns what may be meant while a name is typed: names that were given, the latest first, and places."""
        return list(dict.fromkeys([*self._used(), *_places()]))

    @staticmethod
    def _used() -> list[str]:
        return [name for name in str(slicer.app.userSettings().value(_NAMES_SETTING) or "").split("\n") if name]

    def _remember(self, name: str) -> None:
        names = list(dict.fromkeys([name, *self._used()]))[:_MOST_NAMES]
        slicer.app.userSettings().setValue(_NAMES_SETTING, "\n".join(names))

    def _editor(self, widget: Any) -> Any:
        """Returns the widget where a name is being typed in it; else None."""
        isEditor = widget is not None and hasattr(widget, "setCompleter") and self._table.isAncestorOf(widget)
        return widget if isEditor else None

    def _onFocus(self, _old: Any, new: Any) -> None:
        """Offers names once one is being typed; brings the list up to date afterwards."""
        editor = self._editor(new)
        if editor is not None:
            completer = qt.QCompleter(self.nameChoices(), editor)
            completer.setCaseSensitivity(qt.Qt.CaseInsensitive)
            completer.setFilterMode(qt.Qt.MatchContains)
            editor.setCompleter(completer)
        elif self._isStale:
            self.refresh()

    def _onFilter(self, index: int) -> None:
        if not self._filling:
            self.refresh()

    def _onHeader(self, column: int) -> None:
        """Sort by a column, then the other way round, then as the session has it."""
        if column not in _SORT_KEYS:
            return
        before, descending = self._sorting
        self._sorting = (column, False) if column != before else (None, False) if descending else (column, True)
        text = "" if self._sorting[0] is None else f"{self._sorting[0]},{int(self._sorting[1])}"
        slicer.app.userSettings().setValue(_SORT_SETTING, text)
        self._showSorting()
        self.refresh()

    def _showSorting(self) -> None:
        column, descending = self._sorting
        header = self._table.horizontalHeader()
        header.setSortIndicatorShown(column is not None)
        if column is not None:
            header.setSortIndicator(column, qt.Qt.DescendingOrder if descending else qt.Qt.AscendingOrder)

    def move(self, step: int) -> None:
        """Select the row ``step`` below (above where negative) the selected one, around the ends."""
        count = self._table.rowCount
        if not count:
            return
        current = self._rowOf(self._session.selectedId)
        if current is None:
            current = -1 if step > 0 else count
        self._select(self._idAt((current + step) % count))

    def _prepare(self) -> None:
        captions = (
            ("", _("Click the eye to hide or show a nodule.")),
            (_("Nodule"), _("F2, a double-click or typing changes the name of the selected nodule; Esc leaves it.")),
            (_("mm³"), _("Volume, in cubic millimeters.")),
            (_("mm"), _("Long axis x short axis in the slice where the nodule is widest, in millimeters.")),
            (_("HU"), _("Mean density, in Hounsfield units.")),
            (
                _("Confidence"),
                _(
                    "How sure the model is of its own outline. A hint, no measurement. Tinted rows are not to be "
                    "trusted: correct or delete them."
                ),
            ),
            ("", _("Stars: made by the model. Check mark: reviewed, accepted by you. Flag: to be looked at again.")),
        )
        self._table.setHorizontalHeaderLabels([caption for caption, __ in captions])
        self._filling = True
        for text, __ in _FILTERS:
            self._filters.addItem(text())
        self._filling = False
        self._showSorting()
        header = self._table.horizontalHeader()
        header.minimumSectionSize = 22
        for column, (_caption, tip) in enumerate(captions):
            item = self._table.horizontalHeaderItem(column)
            item.setToolTip(tip)
            side = qt.Qt.AlignRight if VOLUME <= column <= CONFIDENCE else qt.Qt.AlignLeft
            item.setTextAlignment(side | qt.Qt.AlignVCenter)
            header.setSectionResizeMode(
                column, qt.QHeaderView.Stretch if column == NAME else qt.QHeaderView.ResizeToContents
            )

    def _fill(self, index: int, row: Any) -> None:
        eye = self._item(index, VISIBLE)
        eye.setIcon(self._icons("visible" if row.visible else "hidden"))
        eye.setToolTip(_("Hide this nodule.") if row.visible else _("Show this nodule."))
        name = self._item(index, NAME)
        name.setText(row.name)
        name.setIcon(self._icons.swatch(row.color))
        name.setToolTip(_("{name}: F2 or a double-click to rename it.").format(name=row.name))
        known = row.measurements
        pending = "..." if row.isPending else _UNKNOWN
        axes = [shown(key, known.get(key), _UNKNOWN) for key in ("long_axis_mm", "short_axis_mm")]
        note = known.get("note") or ""
        volume = self._item(index, VOLUME)
        volume.setText(shown("volume_mm3", row.volumeMm3, pending) + (" !" if note else ""))
        volume.setToolTip(_volumeTip(known, note))
        diameters = self._item(index, AXES)
        diameters.setText((" × ".join(axes) if known else _UNKNOWN) + (" *" if row.isByHand else ""))
        diameters.setToolTip(_("Drawn by hand, until the voxels change.") if row.isByHand else "")
        self._item(index, MEAN_HU).setText(shown("mean_hu", known.get("mean_hu"), _UNKNOWN))
        confidence = self._item(index, CONFIDENCE)
        words = {"high": _("high"), "medium": _("medium"), "low": _("low")}
        confidence.setText(words.get(row.confidence, _UNKNOWN))
        confidence.setToolTip(_confidenceTip(row.predictedIou, note))
        status = self._item(index, STATUS)
        text, icon = {
            "AI": (_("Made by the model, not reviewed yet."), "status_ai"),
            "reviewed": (_("Accepted by you, and locked: U unlocks it."), "accept"),
            "flagged": (_("Flagged: to be looked at again."), "flag"),
        }[row.status]
        status.setIcon(self._icons(icon))
        status.setToolTip(text)
        status.setData(_STATUS_ROLE, row.status)
        tint = qt.QBrush(qt.QColor(*_DOUBT)) if row.isDoubtful else qt.QBrush()
        for column in range(STATUS + 1):
            item = self._item(index, column)
            item.setData(_ID_ROLE, row.segmentId)
            item.setBackground(tint)

    def _item(self, row: int, column: int) -> qt.QTableWidgetItem:
        item = self._table.item(row, column)
        if item is not None:
            return item
        item = qt.QTableWidgetItem("")
        flags = qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled
        item.setFlags(flags | qt.Qt.ItemIsEditable if column == NAME else flags)
        if VOLUME <= column <= CONFIDENCE:
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        self._table.setItem(row, column, item)
        return item

    def _idAt(self, row: int) -> str | None:
        item = self._table.item(row, NAME) if row >= 0 else None
        return None if item is None else item.data(_ID_ROLE)

    def _rowOf(self, segmentId: str | None) -> int | None:
        rows = range(self._table.rowCount)
        return next((row for row in rows if self._idAt(row) == segmentId), None) if segmentId else None

    def _select(self, segmentId: str | None) -> None:
        self._session.select(segmentId)
        if segmentId is not None:
            self._session.review.jumpTo(segmentId)

    def _onSelection(self) -> None:
        if self._filling:
            return
        if self._table.selectedItems():
            self._select(self._idAt(self._table.currentRow()))

    def _showSelection(self, segmentId: str | None) -> None:
        self._filling = True
        try:
            row = self._rowOf(segmentId)
            if row is None:
                self._table.clearSelection()
            elif row != self._table.currentRow() or not self._table.selectedItems():
                # not as a held Shift or Ctrl, meant for a view, would have it: those add to what is selected
                only = qt.QItemSelectionModel.ClearAndSelect | qt.QItemSelectionModel.Rows
                self._table.setCurrentCell(row, NAME, only)
            if row is not None:  # so that typing changes the name, whatever cell was clicked
                self._table.setCurrentCell(row, NAME, qt.QItemSelectionModel.NoUpdate)
        finally:
            self._filling = False

    def _onNoduleChanged(self, segmentId: str) -> None:
        index = self._rowOf(segmentId)
        row = next((row for row in self._session.review.rows() if row.segmentId == segmentId), None)
        isElsewhere = self._sorting[0] is not None or self._filters.currentIndex > 0
        if index is None or row is None or isElsewhere or self._editor(slicer.app.focusWidget()) is not None:
            self.refresh()
            return
        self._filling = True
        try:
            self._fill(index, row)
        finally:
            self._filling = False

    def _onItemChanged(self, item: qt.QTableWidgetItem) -> None:
        if self._filling or item.column() != NAME:
            return
        name = item.text().strip()
        if name:
            self._remember(name)
            self._session.review.rename(item.data(_ID_ROLE), name)
        else:  # a nodule needs a name
            self.refresh()

    def _onCellClicked(self, row: int, column: int) -> None:
        segmentId = self._idAt(row)
        if segmentId is None:
            return
        if column == VISIBLE:
            shown = next(row.visible for row in self._session.review.rows() if row.segmentId == segmentId)
            self._session.review.setVisible(segmentId, not shown)
        else:  # once more on the selected row: back to the nodule after scrolling away
            self._session.review.jumpTo(segmentId)


class NoduleActions:
    """Connects the buttons to the session; the selected row is what they act on."""

    def __init__(self, ui: Any, session: Any, nodules: NoduleList) -> None:
        self._session, self._nodules = session, nodules
        self._table, self._marks = ui.noduleTable, ui.marksSelector
        self._connections = [
            (ui.undoButton, self.undo),
            (ui.redoButton, self.redo),
            (ui.acceptButton, self.accept),
            (ui.flagButton, self._onFlag),
            (ui.rejectButton, self.reject),
            (ui.previousButton, self.previous),
            (ui.nextButton, self.next),
            (ui.copyButton, self._onCopy),
            (ui.saveButton, self._onSave),
            (ui.segmentAllButton, self._onSegmentAll),
            (ui.allVolumesButton, self._onAllVolumes),
            (ui.importButton, self._onImport),
            (ui.importFileButton, self._onImportFile),
            (ui.exportPointsButton, self._onExportPoints),
            (ui.exportLabelsButton, self._onExportLabels),
            (ui.exportCropsButton, self._onExportCrops),
            (ui.lungsButton, self._onLungs),
        ]
        for button, slot in self._connections:
            button.connect("clicked(bool)", slot)

    def close(self) -> None:
        for button, slot in self._connections:
            button.disconnect("clicked(bool)", slot)

    def undo(self, checked: bool = False) -> None:
        self._session.undo()

    def redo(self, checked: bool = False) -> None:
        self._session.redo()

    def accept(self, checked: bool = False) -> None:
        """The selected nodules are reviewed; on to the next."""
        many = self._nodules.selectedIds
        if len(many) > 1:
            self._session.review.accept(*many)
        else:
            self._session.review.acceptSelectedAndNext()

    def reject(self, checked: bool = False) -> None:
        """The selected nodules go, several after a question; on to the next."""
        many = self._nodules.selectedIds
        if len(many) < 2:
            self._session.review.rejectSelectedAndNext()
            return
        question = _("Delete these {n} nodules? Undo brings them back.").format(n=len(many))
        if slicer.util.confirmOkCancelDisplay(question, parent=self._table):
            self._session.review.delete(*many)

    def unlock(self, checked: bool = False) -> None:
        """Accepted nodules among the selected ones may be changed again."""
        rows = {row.segmentId: row.status for row in self._session.review.rows()}
        chosen = self._nodules.selectedIds or [self._session.selectedId]
        self._session.review.unreview(*[one for one in chosen if rows.get(one) == "reviewed"])

    def previous(self, checked: bool = False) -> None:
        self._nodules.move(-1)

    def next(self, checked: bool = False) -> None:
        self._nodules.move(1)

    def saveTable(self, path: Path) -> None:
        """Writes the table as CSV, whole or not at all. Raises InputError."""
        # utf-8-sig: the mark at the beginning tells spreadsheets that names are UTF-8.
        write_text_whole(path, tableText(self._session.review.rows(), ","), "utf-8-sig")

    def _onFlag(self, checked: bool = False) -> None:
        rows = {row.segmentId: row.status for row in self._session.review.rows()}
        chosen = [one for one in self._nodules.selectedIds or [self._session.selectedId] if one in rows]
        if chosen and all(rows[one] == "flagged" for one in chosen):
            self._session.review.unreview(*chosen)
        else:
            self._session.review.flag(*chosen)

    def _onSegmentAll(self, checked: bool = False) -> None:
        self._session.segmentAll()

    def _onAllVolumes(self, checked: bool = False) -> None:
        self._session.segmentAllVolumes()

    def _onImport(self, checked: bool = False) -> None:
        self._session.importMarks(self._marks.currentNode())

    def _onImportFile(self, checked: bool = False) -> None:
        settings = slicer.app.userSettings()
        kinds = _("Marks ({endings})").format(endings=" ".join(f"*{ending}" for ending in READABLE))
        folder = str(settings.value(_FOLDER_SETTING) or qt.QDir.homePath())
        chosen = qt.QFileDialog.getOpenFileName(self._table, _("Import marks of nodules"), folder, kinds)
        if chosen:
            settings.setValue(_FOLDER_SETTING, str(Path(chosen).parent))
            self._session.importMarks(Path(chosen))

    def _onExportPoints(self, checked: bool = False) -> None:
        self._session.exportPoints(self._several())

    def _onExportLabels(self, checked: bool = False) -> None:
        self._session.exportLabelMap(self._several())

    def _onExportCrops(self, checked: bool = False) -> None:
        settings = slicer.app.userSettings()
        folder = str(settings.value(_FOLDER_SETTING) or qt.QDir.homePath())
        chosen = qt.QFileDialog.getExistingDirectory(self._table, _("Write crops of the nodules into"), folder)
        if chosen:
            settings.setValue(_FOLDER_SETTING, chosen)
            self._session.exportCrops(Path(chosen), self._several())

    def _onLungs(self, checked: bool = False) -> None:
        self._session.showLungs()

    def _several(self) -> list[str]:
        """The selected nodules where several are selected, else none: that means all."""
        many = self._nodules.selectedIds
        return many if len(many) > 1 else []

    def _onCopy(self, checked: bool = False) -> None:
        slicer.app.clipboard().setText(tableText(self._session.review.rows()))
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


class NameTemplates:
    """The box with the template for the names of new nodules; the user's choice is a setting."""

    def __init__(self, combo: qt.QComboBox, session: Any) -> None:
        self._combo, self._session = combo, session
        for template in _TEMPLATES:
            combo.addItem(template)
        try:
            self._use(str(slicer.app.userSettings().value(_TEMPLATE_SETTING) or NAME_TEMPLATE))
        except SceneError:  # of a version that knew more
            self._use(NAME_TEMPLATE)
        self._line = combo.lineEdit()
        combo.connect("activated(int)", self._onChosen)
        self._line.connect("editingFinished()", self._onChosen)

    def close(self) -> None:
        self._combo.disconnect("activated(int)", self._onChosen)
        self._line.disconnect("editingFinished()", self._onChosen)

    def _use(self, template: str) -> None:
        self._session.options.nameTemplate = Naming.checked(template).template
        self._combo.setEditText(template)

    def _onChosen(self, index: int = 0) -> None:
        before, template = self._session.options.nameTemplate, self._combo.currentText.strip()
        if template == before:
            return
        try:
            self._use(template)
        except SceneError as error:
            self._combo.setEditText(before)
            self._session.message.emit(str(error), True)
            return
        slicer.app.userSettings().setValue(_TEMPLATE_SETTING, template)
        text = _("New nodules are called {name}, and so on.")
        self._session.message.emit(text.format(name=Naming(template, _("NAME OF THE CT")).nameOf(1)), False)


def _confidenceTip(predictedIou: float | None, note: str) -> str:
    """What the word stands for, and why the mask is not to be trusted."""
    text = _("The model has not said how sure it is of this outline.")
    if predictedIou is not None:
        text = _(
            "The model expects its outline to overlap the true one by {iou} (IoU, 0 to 1): a guess, no measurement."
        )
        text = text.format(iou=shown("predicted_iou", predictedIou))
    return "\n".join([text, note] if note else [text])


def _volumeTip(known: Mapping[str, Any], note: str) -> str:
    """The range of the volume, where it is known, and why the mask is not to be trusted."""
    lines = []
    if known.get("volume_low_mm3") is not None:
        low, high = (shown(key, known[key]) for key in ("volume_low_mm3", "volume_high_mm3"))
        lines.append(_("Clicks elsewhere in the nodule give {low} to {high} mm³.").format(low=low, high=high))
    return "\n".join([*lines, note] if note else lines)
