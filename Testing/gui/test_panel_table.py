"""The nodule list: selecting, renaming, hiding, reviewing, deleting, copying and saving."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from gui.slicer_user import User

CENTERS = ((5.0, -4.0, 3.0), (-18.0, 12.0, 9.0), (18.0, 16.0, -9.0))
EYE, NAME, VOLUME, CONFIDENCE, STATUS = 0, 1, 2, 5, 6


@pytest.fixture
def three(user: User) -> User:
    """Three nodules, each by one click; the third is selected."""
    user.load_volume()
    user.open()
    user.ui.addNoduleButton.click()
    for center in CENTERS:
        user.ui.nextNoduleButton.click()
        user.click_at(center)
    user.press("Esc")
    assert user.ui.noduleTable.rowCount == 3
    return user


def _select(user: User, row: int, column: int = NAME) -> None:
    """A mouse click on a cell."""
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    table = user.ui.noduleTable._qt
    table.scrollToItem(table.item(row, column))
    user.host.process()
    place = table.visualItemRect(table.item(row, column)).center()
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place)
    user.settle()


def test_selecting_a_row_shows_the_nodule_and_its_points(three: User) -> None:
    first = three.ids()[0]
    _select(three, 0)
    assert three.session.selectedId == first
    for name in ("Red", "Green", "Yellow"):
        x, y = three.view(name).to_pixel(CENTERS[0])
        width, height = three.view(name).window.GetSize()
        assert abs(x - width / 2) < 3 and abs(y - height / 2) < 3
    node = three.session.promptsNode
    shown = [node.GetNthControlPointVisibility(index) for index in range(node.GetNumberOfControlPoints())]
    assert shown == [True, False, False]
    three.ui.addModeButton.click()
    three.click_at(np.add(CENTERS[0], (4.0, 0.0, 0.0)))
    assert three.session.selectedId == first and len(three.session.store.prompts(first)) == 2


def test_the_arrow_buttons_and_keys_go_around(three: User) -> None:
    ids = three.ids()
    three.session.select(ids[0])
    for action, expected in (
        (three.ui.nextButton.click, ids[1]),
        (lambda: three.press("W"), ids[2]),
        (lambda: three.press("W"), ids[0]),
        (three.ui.previousButton.click, ids[2]),
        (lambda: three.press("Q"), ids[1]),
    ):
        action()
        three.settle()
        assert three.session.selectedId == expected
        assert three.ui.noduleTable.currentRow() == ids.index(expected)


def test_renaming_in_place(three: User) -> None:
    segment = three.ids()[1]
    item = three.ui.noduleTable.item(1, NAME)
    item.setText("Upper lobe")
    three.settle()
    segmentation = three.session.segmentationNode.GetSegmentation()
    assert segmentation.GetSegment(segment).GetName() == "Upper lobe"
    three.ui.noduleTable.item(1, NAME).setText("   ")
    three.settle()
    assert three.cell(1, NAME) == "Upper lobe", "a nodule keeps its name when none is given"
    segmentation.GetSegment(segment).SetName("Renamed elsewhere")
    three.settle()
    assert three.cell(1, NAME) == "Renamed elsewhere"


def test_the_eye_hides_and_shows(three: User) -> None:
    segment = three.ids()[1]
    display = three.session.segmentationNode.GetDisplayNode()
    _select(three, 1, EYE)
    assert not display.GetSegmentVisibility(segment)
    _select(three, 1, EYE)
    assert display.GetSegmentVisibility(segment)


def test_accept_moves_on_and_flag_toggles(three: User) -> None:
    ids = three.ids()
    three.session.select(ids[0])
    three.ui.acceptButton.click()
    three.settle()
    statuses = [row.status for row in three.session.review.rows()]
    assert statuses == ["reviewed", "AI", "AI"] and three.session.selectedId == ids[1]
    three.ui.flagButton.click()
    assert three.session.review.rows()[1].status == "flagged"
    three.ui.flagButton.click()
    assert three.session.review.rows()[1].status == "AI"
    three.press("A")
    assert three.session.review.rows()[1].status == "reviewed"
    segment = three.session.segmentationNode.GetSegmentation().GetSegment(ids[0])
    import slicer

    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.GetSegmentStatus(segment) == logic.Completed
    assert three.ui.noduleTable.item(0, STATUS).toolTip() or three.cell(0, STATUS)


def test_a_volume_that_is_not_to_be_trusted_is_marked_and_says_why(three: User, monkeypatch) -> None:
    plain = three.cell(1, VOLUME)
    rows = three.session.review.rows()
    doubted = {
        **rows[1].measurements,
        "volume_low_mm3": 80.0,
        "volume_high_mm3": 130.4,
        "note": "The network doubts its mask.",
    }
    rows[1] = dataclasses.replace(rows[1], measurements=doubted)
    monkeypatch.setattr(three.session.review, "rows", lambda: rows)
    three.session.nodulesChanged()
    tip = three.ui.noduleTable.item(1, VOLUME).toolTip()
    assert three.cell(1, VOLUME) == f"{plain} !" and three.cell(0, VOLUME)[-1] != "!"
    assert "80.0 to 130.4 mm" in tip and "The network doubts its mask." in tip
    assert three.ui.noduleTable.item(0, VOLUME).toolTip() == ""
    assert _tinted(three) == [False, True, False], "what is not to be trusted is seen at a glance"
    monkeypatch.undo()
    three.session.nodulesChanged()
    assert _tinted(three) == [False] * 3


def test_rows_that_the_model_doubts_are_tinted(three: User) -> None:
    from SAMMed3DLib.inference.judgement import SURE
    from SAMMed3DLib.scene.nodule_segmentation import LOW_IOU

    assert LOW_IOU == SURE, "the engine and the list doubt the same"
    second = three.ids()[1]
    three.session.volume.segmentation.setScore(second, SURE - 0.05)
    three.session.nodulesChanged()
    assert _tinted(three) == [False, True, False]


@pytest.mark.parametrize(
    ("iou", "word", "said"),
    ((0.83, "high", "0.83"), (0.6, "high", "0.60"), (0.55, "medium", "0.55"), (0.3, "low", "0.30"), (None, "–", "not")),
)
def test_the_models_own_estimate_is_a_word_and_no_measurement(three: User, iou: float, word: str, said: str) -> None:
    from SAMMed3DLib.inference.judgement import CORRECTED_SURE
    from SAMMed3DLib.scene.nodule_segmentation import HIGH_IOU

    assert HIGH_IOU == CORRECTED_SURE, "the engine and the list are sure of the same"
    three.session.volume.segmentation.setScore(three.ids()[1], iou)
    three.session.nodulesChanged()
    assert three.cell(1, CONFIDENCE) == word
    assert said in three.ui.noduleTable.item(1, CONFIDENCE).toolTip()


def _tinted(user: User) -> list[bool]:
    from PySide6.QtCore import Qt

    table = user.ui.noduleTable._qt
    return [table.item(row, NAME).background().style() != Qt.BrushStyle.NoBrush for row in range(table.rowCount())]


def test_several_rows_are_accepted_and_deleted_together(three: User, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer.util

    ids, asked, answers = three.ids(), [], [False, True]
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **__: asked.append(text) or answers.pop(0))
    _select(three, 0)
    three.ui.noduleTable._qt.selectAll()
    three.settle()
    assert three.widget.panel.nodules.selectedIds == ids
    three.ui.acceptButton.click()
    assert {row.status for row in three.session.review.rows()} == {"reviewed"}
    three.press("U")
    assert {row.status for row in three.session.review.rows()} == {"AI"}
    three.ui.flagButton.click()
    assert {row.status for row in three.session.review.rows()} == {"flagged"}
    three.press("X")
    assert three.ids() == ids and "3 nodules" in asked[0]
    three.press("X")
    assert three.ids() == []
    three.press("Ctrl+Z")
    assert three.ids() == ids, "one step"


def test_sorting_is_kept_and_numbers_in_names_count(three: User) -> None:
    from SAMMed3DLib.gui.nodule_list import _readSorting

    ids = three.ids()
    for one, name in zip(ids, ("Nodule 10", "Nodule 9", "Hilar"), strict=True):
        three.session.review.rename(one, name)
    header = three.ui.noduleTable._qt.horizontalHeader()

    def names() -> list[str]:
        return [three.cell(row, NAME) for row in range(three.ui.noduleTable.rowCount)]

    header.sectionClicked.emit(NAME)
    assert names() == ["Hilar", "Nodule 9", "Nodule 10"] and header.isSortIndicatorShown()
    assert _readSorting() == (NAME, False), "kept with the user's settings"
    header.sectionClicked.emit(NAME)
    assert names() == ["Nodule 10", "Nodule 9", "Hilar"]
    _select(three, 2)
    assert three.session.selectedId == ids[2]
    three.press("W")
    assert three.session.selectedId == ids[0], "keys follow what is seen"
    header.sectionClicked.emit(NAME)
    assert [row.name for row in three.session.review.rows()] == names() and not header.isSortIndicatorShown()


def test_the_list_is_narrowed(three: User) -> None:
    ids = three.ids()
    three.session.review.accept(ids[0])
    three.session.review.flag(ids[1])
    seen = {}
    for index in range(three.ui.filterCombo.count):
        three.ui.filterCombo.setCurrentIndex(index)
        three.settle()
        seen[three.ui.filterCombo.itemText(index)] = three.ui.noduleTable.rowCount
    assert seen == {"All": 3, "Not reviewed": 1, "Accepted": 1, "Flagged": 1, "At least 4 mm": 3}
    three.ui.filterCombo.setCurrentIndex(1)
    three.session.review.accept(ids[2])
    three.settle()
    assert three.ui.noduleTable.rowCount == 0 and len(three.ids()) == 3


def test_delete_goes_on_and_undo_brings_back(three: User) -> None:
    ids = three.ids()
    three.session.select(ids[1])
    before = three.mask(ids[1])
    three.press("X")
    assert three.ids() == [ids[0], ids[2]] and three.session.selectedId in (ids[0], ids[2])
    assert len(three.session.store.prompts(ids[1])) == 0
    three.ui.undoButton.click()
    three.settle()
    assert ids[1] in three.ids() and len(three.session.store.prompts(ids[1])) == 1
    np.testing.assert_array_equal(three.mask(ids[1]), before)


def test_without_a_selection_the_review_buttons_say_so(three: User) -> None:
    three.session.select(None)
    three.settle()
    for button in (three.ui.acceptButton, three.ui.flagButton, three.ui.rejectButton):
        assert not button.enabled and button.toolTip
    three.press("A")
    three.press("X")
    assert len(three.ids()) == 3 and {row.status for row in three.session.review.rows()} == {"AI"}


def test_copying_the_table(three: User) -> None:
    import slicer

    three.ui.copyButton.click()
    lines = slicer.app.clipboard().text().splitlines()
    assert len(lines) == 4
    assert all(len(line.split("\t")) == len(lines[0].split("\t")) >= 7 for line in lines)
    assert lines[1].split("\t")[0] == three.cell(0, NAME)


def test_saving_the_table(three: User, tmp_path: Path) -> None:
    from standin import qt_module

    chosen = tmp_path / "Knoten äöü nodules"
    qt_module.file_answers.append(str(chosen))
    three.ui.saveButton.click()
    rows = list(csv.reader(chosen.with_suffix(".csv").read_text(encoding="utf-8-sig").splitlines()))
    assert len(rows) == 4 and float(rows[1][rows[0].index("volume_mm3")]) > 0
    assert "csv" in three.ui.statusLabel.text
    qt_module.file_answers.append("")
    three.ui.saveButton.click()
    qt_module.file_answers.append(str(tmp_path / "no such folder" / "table.csv"))
    three.ui.saveButton.click()
    assert three.ui.setupFrame.visible and "nothing was changed" in three.ui.setupLabel.text
    three.ui.setupButton.click()
    assert not three.ui.setupFrame.visible


def test_segments_removed_or_added_elsewhere_show_in_the_table(three: User) -> None:
    ids = three.ids()
    segmentation = three.session.segmentationNode.GetSegmentation()
    segmentation.RemoveSegment(ids[0])
    three.settle()
    assert three.ui.noduleTable.rowCount == 2 and three.ids() == ids[1:]
    segmentation.AddEmptySegment("", "Drawn by hand")
    three.settle()
    assert three.ui.noduleTable.rowCount == 3 and three.cell(2, NAME) == "Drawn by hand"


def test_marks_of_others_become_nodules_and_nodules_become_nodes(user: User, tmp_path: Path) -> None:
    import slicer
    import slicer.util

    from standin import qt_module

    user.load_volume()
    user.open()
    assert user.ui.importButton.enabled and not user.ui.exportPointsButton.enabled
    assert "no nodules yet" in user.ui.exportPointsButton.toolTip
    user.ui.importButton.click()
    assert "Choose a point list" in user.ui.setupLabel.text
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "theirs")
    node.AddControlPointWorld(*CENTERS[0])
    user.ui.marksSelector.setCurrentNode(node)
    user.ui.importButton.click()
    user.settle()
    path = tmp_path / "marks.csv"
    path.write_text("r,a,s\n" + ",".join(map(str, CENTERS[1])) + "\n")
    qt_module.file_answers.append(str(path))
    user.ui.importFileButton.click()
    user.settle()
    assert user.ui.noduleTable.rowCount == 2 and "1 new nodules from 1 marks" in user.ui.statusLabel.text
    qt_module.file_answers.append("")  # the dialog is closed
    user.ui.importFileButton.click()
    user.ui.exportPointsButton.click()
    user.ui.exportLabelsButton.click()
    for name in ("vtkMRMLMarkupsFiducialNode", "vtkMRMLLabelMapVolumeNode"):
        assert [one for one in slicer.util.getNodesByClass(name) if one.GetAttribute("SAMMed3D.Export")]
    assert user.ui.noduleTable.rowCount == 2


def test_crops_of_the_selected_nodules_and_the_lungs(three: User, tmp_path: Path) -> None:
    import slicer.util

    from standin import qt_module

    def crops() -> list[str]:
        three.settle()
        return sorted(path.name for path in tmp_path.rglob("*_mask.nii.gz"))

    qt_module.file_answers.append("")
    three.ui.exportCropsButton.click()
    assert crops() == []
    qt_module.file_answers.append(str(tmp_path))
    three.ui.exportCropsButton.click()
    assert len(crops()) == 3 and "3 nodules are in" in three.ui.statusLabel.text
    _select(three, 0)
    three.ui.noduleTable._qt.selectAll()
    three.settle()
    three.session.review.delete(three.ids()[2])
    three.settle()
    three.ui.lungsButton.click()
    three.settle()
    assert "5 liters" in three.ui.statusLabel.text and three.ui.noduleTable.rowCount == 2
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert len([node for node in nodes if node.GetAttribute("SAMMed3D.Lungs")]) == 1
    three.engine.gate.clear()
    three.ui.lungsButton.click()
    three.host.wait(lambda: three.ui.statusStack.currentIndex == 1)
    assert not three.ui.lungsButton.enabled and "cancel" in three.ui.lungsButton.toolTip
    assert not three.ui.exportCropsButton.enabled and not three.ui.segmentAllButton.enabled
    three.ui.cancelButton.click()
    three.host.wait(lambda: three.session.state.name == "READY")
    three.engine.gate.set()
    three.settle()
    assert three.ui.lungsButton.enabled and "canceled" in three.ui.statusLabel.text


def _type(user: User, *keys: str) -> None:
    """Keys and texts to whatever has the focus, as a keyboard sends them."""
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest
    from PySide6.QtWidgets import QApplication

    named = {"F2": Qt.Key.Key_F2, "Esc": Qt.Key.Key_Escape, "Enter": Qt.Key.Key_Return}
    for text in keys:
        for key in [named[text]] if text in named else text:
            where = QApplication.focusWidget()
            assert where is not None
            QTest.keyClick(where, key)
            user.host.process()
    user.settle()


def _focus(user: User) -> None:
    user.host._window.activateWindow()
    user.host.process(0.05)
    user.ui.noduleTable._qt.setFocus()
    user.host.process()


def test_f2_or_typing_renames_and_esc_leaves_the_name(three: User) -> None:
    _select(three, 1, VOLUME)
    _focus(three)
    three.press("F2")
    _type(three, "Hilar", "Enter")
    assert three.cell(1, NAME) == "Hilar" and [row.name for row in three.session.review.rows()][1] == "Hilar"
    _type(three, "F2", "Other", "Esc")
    assert three.cell(1, NAME) == "Hilar"
    _type(three, "Right apex", "Enter")
    assert three.cell(1, NAME) == "Right apex", "typing begins, whatever cell of the row was clicked"
    three.press("Ctrl+Z")
    assert three.cell(1, NAME) == "Hilar"
    assert {row.status for row in three.session.review.rows()} == {"AI"}, "letters that are keys were typed"


def test_while_a_name_is_typed_names_are_offered_and_the_list_stays(three: User) -> None:
    from PySide6.QtWidgets import QApplication

    three.ui.noduleTable.item(0, NAME).setText("Zebra 7")
    three.settle()
    _select(three, 1)
    _focus(three)
    three.press("F2")
    completer = QApplication.focusWidget().completer()
    completer.setCompletionPrefix("zeb")
    assert completer.currentCompletion() == "Zebra 7"
    completer.setCompletionPrefix("lower")
    assert completer.completionCount() == 2, "names of places, wherever the letters are in them"
    _type(three, "Hal")
    three.session.review.rename(three.ids()[2], "Elsewhere")
    three.session.nodulesChanged()
    three.settle()
    assert QApplication.focusWidget().text() == "Hal", "what is typed is not taken away"
    _type(three, "o", "Enter")
    assert [three.cell(row, NAME) for row in range(3)] == ["Zebra 7", "Halo", "Elsewhere"]


def test_the_template_of_names_is_kept_and_a_bad_one_is_refused(three: User) -> None:
    import slicer

    three.ui.nameCombo.setEditText("{lobe} {number}")
    three.ui.nameCombo.lineEdit()._qt.editingFinished.emit()
    assert three.ui.setupFrame.visible and "no template for names" in three.ui.setupLabel.text
    assert three.ui.nameCombo.currentText == "Nodule {number}"
    three.ui.nameCombo.setEditText("N{number:02}")
    three.ui.nameCombo.lineEdit()._qt.editingFinished.emit()
    assert "N01" in three.ui.statusLabel.text
    assert slicer.app.userSettings().value("SAMMed3D/NameTemplate") == "N{number:02}"
    three.ui.addNoduleButton.click()
    three.ui.nextNoduleButton.click()
    three.click_at((-18.0, -14.0, 9.0))
    assert [row.name for row in three.session.review.rows()] == ["Nodule 1", "Nodule 2", "Nodule 3", "N04"]


def test_accepting_goes_on_in_the_order_that_is_seen(three: User) -> None:
    first, second, third = three.ids()
    for one, name in ((first, "b"), (second, "c"), (third, "a")):
        three.session.review.rename(one, name)
    three.ui.noduleTable._qt.horizontalHeader().sectionClicked.emit(NAME)
    three.session.select(third)
    three.press("A")
    assert three.session.selectedId == first, "a, b, c"
    three.press("X")
    assert three.session.selectedId == second
    three.press("Ctrl+Z")
    three.ui.filterCombo.setCurrentIndex(1)
    three.session.review.flag(first)
    three.settle()
    three.session.select(second)
    three.press("A")
    assert three.session.selectedId is None and "does not show 1 others" in three.ui.statusLabel.text
