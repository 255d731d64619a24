"""The section *Follow-up and report*: connects its widgets to a Comparison and to the two rows of views."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import qt
import slicer
import slicer.util

from ..files.output_files import safe_name
from ..inference.errors import InputError
from ..report.document import all_caveats, caveat_line
from ..scene.comparison import Comparison, Row
from ..scene.slice_clicks import SliceClicks
from ..scene.two_rows import TwoRows
from ..scene.volume_geometry import SceneError
from ..signal import Signal
from ..translation import tr as _
from .click_tools import ClickTools, SliceViews
from .follow_up_view import FollowUpFacts, cells, followUpView, heads
from .progress_row import ProgressRow
from .state_view import ViewWriter
from .timers import Poll

_FOLDER_SETTING = "SAMMed3D/ReportFolder"
_SHUTDOWN_SECONDS = 2.0
#: Below this the age spin box says that none is given.
_YOUNGEST = 18


class FollowUpPanel:
    """The section between ``setup`` and ``cleanup``; :class:`..scene.comparison.Comparison` does the work."""

    def __init__(self, ui: Any, widget: qt.QWidget, session: Any, tools: ClickTools, views: SliceViews) -> None:
        self._ui, self._widget, self._session, self._tools, self._views = ui, widget, session, tools, views
        self.comparison = Comparison(session)
        self.twoRows = TwoRows()
        self._clicks = SliceClicks()
        self._view = ViewWriter(ui)
        self._poll = Poll(self.comparison.poll, self.comparison.busyChanged, widget)
        parts = SimpleNamespace(
            statusStack=ui.followUpStack,
            statusLabel=ui.followUpLabel,
            progressLabel=ui.followUpProgressLabel,
            progressBar=ui.followUpBar,
            cancelButton=ui.followUpCancelButton,
        )
        self._progress = ProgressRow(parts, self.comparison.cancel)
        self._message = ""
        self._filling = self._wasStale = self._closed = False
        self._rows: list[Row] = []
        self._ofPatient: set[str] = set()
        self._selected: tuple[str | None, str | None] | None = None
        self._signals: list[tuple[Signal, Callable[..., Any]]] = [
            (self.comparison.changed, self.refresh),
            (self.comparison.message, self._onMessage),
            (self.comparison.progressed, self._progress.setProgress),
            (self._clicks.clicked, self._onClicked),
            (tools.armedChanged, self._onArmed),
            (views.changed, self._onViews),
        ]
        for signal, slot in self._signals:
            signal.connect(slot)
        self._connections: list[tuple[Any, str, Callable[..., Any]]] = [
            (ui.priorVolumeSelector, "currentNodeChanged(vtkMRMLNode*)", self._onPrior),
            (ui.priorSegmentationSelector, "currentNodeChanged(vtkMRMLNode*)", self._onPrior),
            (ui.currentDateEdit, "editingFinished()", self._onCurrentDate),
            (ui.priorDateEdit, "editingFinished()", self._onPriorDate),
            (ui.compareButton, "clicked(bool)", self._onCompare),
            (ui.twoRowsButton, "clicked(bool)", self._onTwoRows),
            (ui.pairButton, "clicked(bool)", self._onPair),
            (ui.partButton, "clicked(bool)", self._onPart),
            (ui.clickHereButton, "clicked(bool)", self._onClickHere),
            (ui.followUpTable, "itemSelectionChanged()", self._onSelection),
            (ui.followUpTable, "cellClicked(int,int)", self._onCellClicked),
            (ui.ageSpinBox, "valueChanged(int)", self._onPatient),
            (ui.sexComboBox, "currentIndexChanged(int)", self._onPatient),
            (ui.familyCheckBox, "toggled(bool)", self._onPatient),
            (ui.emphysemaCheckBox, "toggled(bool)", self._onPatient),
            (ui.spiculatedCheckBox, "clicked(bool)", self._onSpiculated),
            (ui.upperCheckBox, "clicked(bool)", self._onUpper),
            (ui.reportButton, "clicked(bool)", self._onReport),
            (ui.copyTextButton, "clicked(bool)", self._onCopyText),
            (ui.csvButton, "clicked(bool)", self._onCsv),
            (ui.dicomButton, "clicked(bool)", self._onDicom),
            (ui.openFindingsButton, "clicked(bool)", self._onOpen),
        ]
        for sender, signature, slot in self._connections:
            sender.connect(signature, slot)
        self.refresh()

    def close(self) -> None:
        """Takes everything apart."""
        self._closed = True
        self.exit()
        for sender, signature, slot in self._connections:
            sender.disconnect(signature, slot)
        for signal, slot in self._signals:
            signal.disconnect(slot)
        self._poll.close()
        self._progress.close()
        self.twoRows.close()
        self.comparison.close(_SHUTDOWN_SECONDS)

    def enter(self) -> None:
        """The module is opened: scans and nodules may have changed meanwhile."""
        self.refresh()

    def exit(self) -> None:
        """Another module is opened: no click in the views is ours."""
        self.comparison.stopPairing()
        self._clicks.stop()

    # -- the look ----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Bring the section up to date."""
        comparison = self.comparison
        self._progress.setBusy(comparison.isRunning)
        isStale = comparison.isStale
        if isStale and not self._wasStale:
            self._message = ""
        self._wasStale = isStale
        self._rows = comparison.rows()
        self._fillTable()
        findings = comparison.findings
        caveats = [] if findings is None else all_caveats(findings)
        self._ui.caveatsLabel.text = "\n".join(f"{n} {caveat_line(each)}" for n, each in enumerate(caveats, start=1))
        self._ui.caveatsLabel.setVisible(bool(caveats))
        volumes = (comparison.current[0], comparison.prior[0])
        self._keepPatient({volume.GetID() for volume in volumes if volume is not None}, volumes[0])
        dates = [comparison.dateOf(volume) for volume in volumes]
        for edit, (date, _known) in zip((self._ui.currentDateEdit, self._ui.priorDateEdit), dates, strict=True):
            if not edit.hasFocus() and edit.text != date:
                edit.text = date
        row = self._row()
        self._view.apply(
            followUpView(
                FollowUpFacts(
                    volume=volumes[0] is not None,
                    prior=volumes[1] is not None,
                    running=comparison.isRunning,
                    findings=findings is not None,
                    masks=comparison.hasMasks,
                    compared=findings is not None and findings.follow_up is not None,
                    pairing=comparison.isPairing,
                    sideBySide=self.twoRows.isShown,
                    selected=row is not None,
                    now=row is not None and row.current is not None,
                    before=row is not None and row.prior is not None,
                    expected=row is not None and comparison.places(row)[0] is not None,
                    message=self._message,
                    stale=isStale,
                    knownDates=(dates[0][1], dates[1][1]),
                )
            )
        )
        self._showMarks(row)
        self._watch()

    def _fillTable(self) -> None:
        table = self._ui.followUpTable
        self._filling = True
        try:
            captions = heads(self.comparison.findings)
            table.setHorizontalHeaderLabels([caption for caption, _tip in captions])
            for column, (_caption, tip) in enumerate(captions):
                table.horizontalHeaderItem(column).setToolTip(tip)
            if table.rowCount != len(self._rows):
                table.setRowCount(len(self._rows))
            for index, row in enumerate(self._rows):
                for column, text in enumerate(cells(row)):
                    item = table.item(index, column)
                    if item is None:
                        item = qt.QTableWidgetItem("")
                        item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
                        table.setItem(index, column, item)
                    if item.text() != text:
                        item.setText(text)
                        item.setToolTip(text)
            table.resizeColumnsToContents()
            chosen = self._row()
            if chosen is None:
                self._selected = None
                table.clearSelection()
            elif self._rows.index(chosen) != table.currentRow() or not table.selectedItems():
                table.setCurrentCell(self._rows.index(chosen), 0)
        finally:
            self._filling = False

    def _row(self) -> Row | None:
        """The selected row; after its pair was changed, the one that shows the same nodule."""
        if self._selected is None:
            return None
        exact = next((row for row in self._rows if _key(row) == self._selected), None)
        return exact or next((row for row in self._rows if set(_key(row)) & set(self._selected) - {None}), None)

    def _showMarks(self, row: Row | None) -> None:
        """The two marks of the selected nodule."""
        uid = None if row is None else row.shown.tracking_uid
        upper = row is not None and row.shown.place.lobe == "upper lobe"
        self._ui.spiculatedCheckBox.checked = uid in self.comparison.spiculated
        self._ui.upperCheckBox.checked = upper or uid in self.comparison.upper

    def _onMessage(self, text: str, isError: bool) -> None:
        self._message = text
        self.refresh()

    # -- scans and pairs ---------------------------------------------------------------------------------------------

    def _onPrior(self, node: Any = None) -> None:
        self._message = ""
        before = self.comparison.prior
        volume = self._ui.priorVolumeSelector.currentNode()
        self.comparison.setPrior(volume, self._ui.priorSegmentationSelector.currentNode() if volume else None)
        if self.twoRows.isShown:
            self._showRows()
        self.refresh()
        qt.QTimer.singleShot(0, lambda: self._leaveGone(before))

    def _leaveGone(self, before: tuple[Any, Any]) -> None:
        """Chooses None where the prior was deleted: the selector has taken its neighbor, which nobody asked for."""
        for node, name in zip(before, ("priorVolumeSelector", "priorSegmentationSelector"), strict=True):
            if node is not None and node.GetScene() is None and not self._closed:
                getattr(self._ui, name).setCurrentNode(None)

    def _onCurrentDate(self) -> None:
        self._setDate(self.comparison.current[0], self._ui.currentDateEdit.text)

    def _onPriorDate(self) -> None:
        self._setDate(self.comparison.prior[0], self._ui.priorDateEdit.text)

    def _setDate(self, volume: Any, text: str) -> None:
        if volume is None or self.comparison.dateOf(volume)[1]:
            return
        try:
            self.comparison.setDate(volume, text)
        except InputError as error:
            self._onMessage(str(error), True)
        else:
            self._onMessage("", False)

    def _onCompare(self, checked: bool = False) -> None:
        self._message = ""
        self._fresh(None)

    def _fresh(self, then: Callable[[], None] | None) -> None:
        """Asks the user where the scans are in doubt, measures what has changed, then calls ``then``."""
        try:
            doubt = self.comparison.doubt()
        except (InputError, SceneError) as error:
            self._onMessage(str(error), True)
            return
        if doubt is not None and not (doubt.kind == "patient" and self.comparison.hasMasks):
            if not slicer.util.confirmYesNoDisplay(doubt.text, parent=self._widget):
                return
            if doubt.kind == "swap":
                self._swap()
                self._fresh(then)
                return
        self.comparison.run(then)

    def _swap(self) -> None:
        (volume, segmentation), (prior, priorSegmentation) = self.comparison.current, self.comparison.prior
        self._session.setVolume(prior)
        if priorSegmentation is not None:
            self._session.setSegmentation(priorSegmentation)
        self._session.showVolume()
        self._ui.priorSegmentationSelector.setCurrentNode(segmentation)
        self._ui.priorVolumeSelector.setCurrentNode(volume)

    def _onTwoRows(self, checked: bool) -> None:
        if checked:
            self._showRows()
        else:
            self.twoRows.hide()
        self.refresh()

    def _showRows(self) -> None:
        prior, segmentation = self.comparison.prior
        own = (self._session.segmentationNode, self._session.promptsNode)
        if prior is None:
            self.twoRows.hide()
        elif not self.twoRows.show(own, prior, (segmentation,)):
            self._onMessage(_("There are no views to show them in."), True)
        row = self._row()
        if row is not None:
            self.twoRows.jump(*self.comparison.places(row))

    def _onPair(self, checked: bool) -> None:
        if checked:
            self._tools.disarm()
            self.comparison.startPairing()
        else:
            self._message = ""
            self.comparison.stopPairing()

    def _onPart(self, checked: bool = False) -> None:
        row = self._row()
        if row is not None:
            self.comparison.part(row)

    def _onClickHere(self, checked: bool = False) -> None:
        row = self._row()
        if row is not None:
            self.comparison.clickHere(row)

    def _onArmed(self) -> None:
        if self._tools.armed:
            self.comparison.stopPairing()

    def _onViews(self) -> None:
        """Views came or went: the user may have chosen another layout."""
        if self._ui.twoRowsButton.checked and not self.twoRows.isShown:
            self.twoRows.hide()
            self.refresh()
        self._watch()

    def _watch(self) -> None:
        """While pairs are made, clicks in the views pick nodules."""
        if not self.comparison.isPairing:
            self._clicks.stop()
        elif not self._clicks.armed:
            self._clicks.start(self._views.interactors())

    def _onClicked(self, ras: Any, shift: bool, sliceNode: Any) -> None:
        side = "prior" if TwoRows.isPriorView(sliceNode) or self._showsPrior(sliceNode) else "current"
        row = self.comparison.rowAt(side, ras)  # type: ignore[arg-type]
        if row is None:
            self._onMessage(_("There is no measured nodule here: click in the middle of one."), True)
        else:
            self.comparison.pick(row, side)  # type: ignore[arg-type]

    def _showsPrior(self, sliceNode: Any) -> bool:
        from ..scene.views import seenInstead

        prior, current = self.comparison.prior[0], self.comparison.current[0]
        return prior is not None and seenInstead(current, sliceNode) is prior

    def _onSelection(self) -> None:
        if not self._filling and self._ui.followUpTable.selectedItems():
            self._choose(self._ui.followUpTable.currentRow())

    def _onCellClicked(self, index: int, column: int) -> None:
        row = self._rows[index]
        if self.comparison.isPairing:
            self.comparison.pick(row)
        elif _key(row) == self._selected:  # once more on the selected row: back to the nodule
            self._jump(row)

    def _choose(self, index: int) -> None:
        row = self._rows[index]
        self._selected = _key(row)
        if not self.comparison.isPairing:
            segmentId = self.comparison.segmentOf("current", row.current)
            if segmentId is not None:
                self._session.select(segmentId)
            self._message = self.comparison.lost(row)
            self._jump(row)
        self.refresh()

    def _jump(self, row: Row) -> None:
        current, prior = self.comparison.places(row)
        if self.twoRows.isShown:
            self.twoRows.jump(current, prior)
        elif current is not None:
            from ..scene.views import showPoint

            showPoint(current)

    # -- patient -----------------------------------------------------------------------------------------------------

    def _onPatient(self, value: Any = None) -> None:
        from ..report.rules import Patient

        ui = self._ui
        known = ui.ageSpinBox.value >= _YOUNGEST and ui.sexComboBox.currentIndex > 0
        self.comparison.patient = (
            Patient(
                age=float(ui.ageSpinBox.value),
                female=ui.sexComboBox.currentIndex == 1,
                family_history=ui.familyCheckBox.checked,
                emphysema=ui.emphysemaCheckBox.checked,
                spiculation=False,
                upper_lobe=False,
            )
            if known
            else None
        )

    def _keepPatient(self, scans: set[str], current: Any) -> None:
        """Forgets what was told of the patient when the CT is none of those that were chosen together since then."""
        ui = self._ui
        if self._ofPatient and (current is None or current.GetID() not in self._ofPatient):
            self._ofPatient = set()
            ui.ageSpinBox.value = ui.ageSpinBox.minimum
            ui.sexComboBox.setCurrentIndex(0)
            ui.familyCheckBox.checked = ui.emphysemaCheckBox.checked = False
        self._ofPatient |= scans

    def _onSpiculated(self, checked: bool) -> None:
        self._mark(self.comparison.spiculated, checked)

    def _onUpper(self, checked: bool) -> None:
        self._mark(self.comparison.upper, checked)

    def _mark(self, marked: set[str], checked: bool) -> None:
        row = self._row()
        if row is not None:
            (marked.add if checked else marked.discard)(row.shown.tracking_uid)

    # -- documents ---------------------------------------------------------------------------------------------------

    def _withFindings(self, then: Callable[[], None]) -> None:
        """Goes on with findings that fit the masks; those from a file are taken as they are."""
        self._message = ""
        if self.comparison.hasMasks:
            self._fresh(then)
        else:
            then()

    def _onReport(self, checked: bool = False) -> None:
        kinds = ";;".join((_("Page (*.html)"), _("PDF (*.pdf)"), _("Findings (*.json)")))
        path = self._ask(_("Save the report"), ".html", kinds)
        if path is not None and self._canDraw(path):
            self._withFindings(lambda: self.comparison.save(path, self._ui.namesCheckBox.checked))

    def _onCsv(self, checked: bool = False) -> None:
        path = self._ask(_("Save the findings as a table"), ".csv", _("Table (*.csv)"))
        if path is not None:
            self._withFindings(lambda: self.comparison.save(path, self._ui.namesCheckBox.checked))

    def _onCopyText(self, checked: bool = False) -> None:
        self._withFindings(self._copyText)

    def _copyText(self) -> None:
        try:
            text = self.comparison.text(self._ui.namesCheckBox.checked)
        except InputError as error:
            self._onMessage(str(error), True)
            return
        slicer.app.clipboard().setText(text)
        self._onMessage(_("The findings are on the clipboard."), False)

    def _onDicom(self, checked: bool = False) -> None:
        if importlib.util.find_spec("highdicom") is None:
            self._onMessage(
                _("DICOM SEG and SR need highdicom, which Slicer 5.12 and newer bring along. CSV works without."), True
            )
            return
        chosen = qt.QFileDialog.getExistingDirectory(
            self._widget, _("Folder for segmentation.dcm and measurements.dcm"), self._folder()
        )
        if not chosen:
            return
        folder = Path(chosen)
        there = [name for name in ("segmentation.dcm", "measurements.dcm") if (folder / name).exists()]
        question = _("{files} are there already. Write them anew?").format(files=", ".join(there))
        if not there or slicer.util.confirmYesNoDisplay(question, parent=self._widget):
            slicer.app.userSettings().setValue(_FOLDER_SETTING, str(folder))
            self._withFindings(lambda: self.comparison.saveDicom(folder))

    def _onOpen(self, checked: bool = False) -> None:
        chosen = qt.QFileDialog.getOpenFileName(
            self._widget, _("Open findings"), self._folder(), _("Findings (*.json)")
        )
        if chosen:
            self._message = ""
            try:
                self.comparison.open(Path(chosen))
            except InputError as error:
                self._onMessage(str(error), True)

    def _ask(self, title: str, ending: str, kinds: str) -> Path | None:
        volume = self.comparison.current[0]
        name = safe_name(f"{volume.GetName() if volume is not None else ''} findings", "findings") + ending
        chosen = qt.QFileDialog.getSaveFileName(self._widget, title, str(Path(self._folder()) / name), kinds)
        if not chosen:
            return None
        path = Path(chosen)
        if path.suffix.lower() not in (".html", ".pdf", ".json", ".csv"):
            path = path.with_name(path.name + ending)
        slicer.app.userSettings().setValue(_FOLDER_SETTING, str(path.parent))
        return path

    @staticmethod
    def _folder() -> str:
        return str(slicer.app.userSettings().value(_FOLDER_SETTING) or qt.QDir.homePath())

    def _canDraw(self, path: Path) -> bool:
        """Offers to install what draws the pictures; a page can do without, a PDF cannot."""
        if path.suffix.lower() == ".json" or importlib.util.find_spec("matplotlib") is not None:
            return True
        question = _(
            "The pictures are drawn by the package matplotlib, which is not there. Install it into Slicer's Python?"
        )
        if slicer.util.confirmOkCancelDisplay(question, parent=self._widget):
            try:
                slicer.util.pip_install("matplotlib>=3.8")
            except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
                self._onMessage(_("matplotlib could not be installed: {error}.").format(error=error), True)
                return False
            return True
        if path.suffix.lower() == ".pdf":
            self._onMessage(_("A PDF needs matplotlib: install it, or save a page (HTML)."), True)
            return False
        return True


def _key(row: Row) -> tuple[str | None, str | None]:
    return (
        None if row.current is None else row.current.tracking_uid,
        None if row.prior is None else row.prior.tracking_uid,
    )
