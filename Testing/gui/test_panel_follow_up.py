"""The section *Follow-up and report*: two scans compared, corrected, shown and written, as a user does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from gui.slicer_user import User

#: World RAS of the nodules in both scans, and of one that only the prior shows.
FIRST, SECOND, GONE = (5.0, -4.0, 3.0), (-18.0, 12.0, 9.0), (15.0, 15.0, -15.0)
NAME, COURSE, DOUBLING, PRIOR = 0, 1, 3, 4


class FollowUp:
    """A user with two scans: two nodules now, three before."""

    def __init__(self, user: User) -> None:
        from SAMMed3DLib.scene.mask_block import MaskBlock
        from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation, createSegmentation
        from SAMMed3DLib.scene.segment_writer import SegmentWriter
        from SAMMed3DLib.scene.volume_geometry import VolumeGeometry

        self.user = user
        self.current = user.load_volume()
        user.open()
        for place in (FIRST, SECOND):
            user.ui.addNoduleButton.setChecked(False)
            user.ui.nextNoduleButton.click()
            user.click_at(place)
        user.widget.panel.tools.disarm()
        before = VolumeGeometry(self.current)
        array = before.array().copy()
        array[0, 0, 0] += 1  # of the same voxels it would be a copy
        self.prior = user.host.scene.add_volume(array, before.ijkToRas, "Before")
        self.segmentation = createSegmentation(self.prior)
        nodules, grid = NoduleSegmentation(self.segmentation), np.indices(before.shapeKji)[::-1].reshape(3, -1)
        points = (before.ijkToWorld[:3, :3] @ grid).T + before.ijkToWorld[:3, 3]
        for number, place in enumerate((FIRST, SECOND, GONE), start=1):
            mask = (np.linalg.norm(points - place, axis=1) <= 4.0).reshape(before.shapeKji).astype(np.uint8)
            segment_id = nodules.addNodule(f"old {number}")
            SegmentWriter(self.segmentation, self.prior).write(segment_id, MaskBlock(mask, (0, 0, 0)))
        user.settle()

    @property
    def ui(self) -> Any:
        return self.user.ui

    @property
    def section(self) -> Any:
        return self.user.widget.panel.followUp

    def settle(self) -> None:
        self.user.settle()
        self.user.host.wait(lambda: not self.section.comparison.isRunning, 60.0)
        self.user.host.process()

    def compare(self) -> None:
        self.ui.priorVolumeSelector.setCurrentNode(self.prior)
        for edit, date in ((self.ui.currentDateEdit, "2024-07-01"), (self.ui.priorDateEdit, "2024-01-01")):
            edit.setText(date)
            edit.editingFinished.emit()
        self.ui.compareButton.click()
        self.settle()

    def table(self, column: int) -> list[str]:
        table = self.ui.followUpTable
        return [table.item(row, column).text() for row in range(table.rowCount)]

    def choose(self, name: str) -> None:
        """Clicks the row of a nodule."""
        row = self.table(NAME).index(name)
        self.ui.followUpTable.setCurrentCell(row, NAME)
        self.ui.followUpTable.cellClicked.emit(row, NAME)
        self.user.host.process()

    def offset(self, view: str = "Red") -> float:
        return self.user.view(view).slice_node.GetSliceOffset()


@pytest.fixture
def two(user: User, monkeypatch: pytest.MonkeyPatch) -> FollowUp:
    """The scans lie on each other; the real registration needs lungs, see Testing/report."""
    from SAMMed3DLib.report import follow_up
    from SAMMed3DLib.report.follow_up import Registration

    monkeypatch.setattr(follow_up, "register", lambda *_scans, **_more: Registration(np.eye(4), 1.0, 1.0, "affine"))
    return FollowUp(user)


def test_compare_fills_the_table_and_rows_lead_to_both_places(two: FollowUp) -> None:
    assert two.ui.followUpSection.collapsed and two.ui.compareButton.text == "Measure"
    two.compare()
    assert two.ui.compareButton.text == "Compare"
    assert two.table(NAME) == ["Nodule 1", "Nodule 2", "old 3 (prior)"]
    assert two.table(COURSE) == ["matched", "matched", "gone"]
    assert all(" days" in text for text in two.table(DOUBLING)[:2])
    head = two.ui.followUpTable.horizontalHeaderItem(PRIOR).text()
    assert head.startswith("2024-01-01 mm³") and two.ui.priorDateEdit.enabled and "contrast" in two.ui.caveatsLabel.text
    two.choose("Nodule 2")
    assert two.offset() == pytest.approx(SECOND[2], abs=1.0)
    assert two.user.session.selectedId == two.user.ids()[1]
    two.choose("old 3 (prior)")  # where it should lie
    assert two.offset() == pytest.approx(GONE[2], abs=1.0)


def test_two_clicks_in_the_table_correct_a_pair(two: FollowUp) -> None:
    two.compare()
    two.ui.pairButton.click()
    assert two.ui.pairButton.checked
    two.choose("Nodule 1")
    two.choose("old 3 (prior)")
    two.settle()
    assert not two.ui.pairButton.checked
    assert dict(zip(two.table(NAME), two.table(COURSE), strict=True)) == {
        "Nodule 1": "matched ✋",
        "Nodule 2": "matched",
        "old 1 (prior)": "gone",
    }
    two.choose("Nodule 1")
    two.ui.partButton.click()
    assert two.table(COURSE) == ["matched", "matched", "gone"], "its nearest takes the place again"
    two.choose("Nodule 1")
    two.ui.partButton.click()
    assert sorted(two.table(COURSE)) == ["gone", "gone", "matched", "new"]


def test_two_clicks_in_the_views_correct_a_pair(two: FollowUp) -> None:
    two.compare()
    two.ui.pairButton.click()
    two.user.click_at((-40.0, -30.0, 3.0))
    assert "no measured nodule" in two.ui.followUpLabel.text
    two.user.click_at(FIRST)
    composite = two.user.view("Red").slice_logic.GetSliceCompositeNode()
    composite.SetBackgroundVolumeID(two.prior.GetID())
    two.user.click_at(GONE)
    two.settle()
    assert "matched ✋" in two.table(COURSE) and len(two.user.ids()) == 2, "no nodule was made by these clicks"
    assert not two.section._clicks.armed


def test_click_here_makes_the_partner_of_what_is_gone(two: FollowUp) -> None:
    two.compare()
    two.choose("Nodule 1")
    assert not two.ui.clickHereButton.enabled
    two.choose("old 3 (prior)")
    two.ui.clickHereButton.click()
    two.settle()
    assert len(two.user.ids()) == 3
    assert two.table(COURSE).count("matched ✋") == 1 and "gone" not in two.table(COURSE)


def test_a_prior_that_is_newer_is_swapped(two: FollowUp, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer.util

    asked: list[str] = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **__: asked.append(text) or True)
    two.ui.priorVolumeSelector.setCurrentNode(two.prior)
    two.section.comparison.setDate(two.prior, "2025-01-01")
    two.section.comparison.setDate(two.current, "2024-01-01")
    two.ui.compareButton.click()
    two.settle()
    assert len(asked) == 1 and "Swap" in asked[0]
    assert two.user.session.volumeNode.GetName() == "Before"
    assert two.ui.priorVolumeSelector.currentNode().GetName() == "CT"
    assert sorted(two.table(COURSE)) == ["matched", "matched", "new"]


def test_documents_are_written_and_opened_again(two: FollowUp, tmp_path: Path) -> None:
    import slicer

    from standin import qt_module

    two.compare()
    two.ui.copyTextButton.click()
    assert "old 3 (prior): in the prior only" in slicer.app.clipboard().text()
    for button, name in ((two.ui.reportButton, "a.html"), (two.ui.reportButton, "a.json"), (two.ui.csvButton, "a.csv")):
        qt_module.file_answers.append(str(tmp_path / name))
        button.click()
        two.settle()
        assert (tmp_path / name).stat().st_size > 1000 and two.ui.followUpLabel.text.startswith("Saved")
    qt_module.file_answers.append("")  # the dialog is closed
    two.ui.csvButton.click()
    before = two.table(COURSE)
    two.ui.priorVolumeSelector.setCurrentNode(None)
    assert two.table(COURSE) == []
    qt_module.file_answers.append(str(tmp_path / "a.json"))
    two.ui.openFindingsButton.click()
    assert two.table(COURSE) == before
    assert two.ui.csvButton.enabled and not two.ui.dicomButton.enabled
    two.choose("Nodule 2")
    assert two.offset() == pytest.approx(SECOND[2], abs=1.0)
    (tmp_path / "b.json").write_text("{}", encoding="utf-8")
    qt_module.file_answers.append(str(tmp_path / "b.json"))
    two.ui.openFindingsButton.click()
    assert "no findings of SAMMed3D" in two.ui.followUpLabel.text


def test_the_patient_is_told_to_the_brock_model(two: FollowUp) -> None:
    two.ui.compareButton.click()
    two.settle()
    assert "Brock" not in two.section.comparison.text()
    two.ui.ageSpinBox.setValue(62)
    assert "Brock" not in two.section.comparison.text(), "the sex is not known yet"
    two.ui.sexComboBox.setCurrentIndex(1)
    two.choose("Nodule 1")
    two.ui.spiculatedCheckBox.click()
    text = two.section.comparison.text()
    assert text.count("age 62, female") == 2 and text.count("spiculated") == 1
    two.choose("Nodule 2")
    assert not two.ui.spiculatedCheckBox.checked


def test_another_patients_ct_is_told_nothing_of_the_last_one(two: FollowUp) -> None:
    ui = two.ui
    ui.ageSpinBox.setValue(62)
    ui.sexComboBox.setCurrentIndex(1)
    ui.emphysemaCheckBox.setChecked(True)
    two.compare()
    ui.volumeSelector.setCurrentNode(two.prior)
    two.settle()
    ui.volumeSelector.setCurrentNode(two.current)
    two.settle()
    assert two.section.comparison.patient is not None and ui.ageSpinBox.value == 62, "the same patient's"
    ui.volumeSelector.setCurrentNode(two.user.host.scene.add_volume(np.full((9, 9, 9), -800, np.int16), np.eye(4), "X"))
    two.settle()
    assert two.section.comparison.patient is None
    assert ui.ageSpinBox.value == 17 and ui.sexComboBox.currentIndex == 0 and not ui.emphysemaCheckBox.checked


def test_dicom_without_highdicom_says_what_works(
    two: FollowUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    from standin import qt_module

    two.ui.compareButton.click()
    two.settle()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "highdicom" else found(name))
    two.ui.dicomButton.click()
    assert "DICOM SEG and SR need highdicom" in two.ui.followUpLabel.text
    qt_module.file_answers.append(str(tmp_path / "ä ö ü.csv"))
    two.ui.csvButton.click()
    two.settle()
    assert (tmp_path / "ä ö ü.csv").stat().st_size > 500


def test_cancel_stops_the_registration(two: FollowUp, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from SAMMed3DLib.report import follow_up

    def endless(_now: Any, _then: Any, _lungs: Any, progress: Any) -> Any:
        while True:
            time.sleep(0.002)
            progress(1, 10)

    monkeypatch.setattr(follow_up, "register", endless)
    two.ui.priorVolumeSelector.setCurrentNode(two.prior)
    two.ui.compareButton.click()
    assert not two.ui.compareButton.enabled
    two.user.host.wait(lambda: "Registering" in two.ui.followUpProgressLabel.text, 60.0)
    two.ui.followUpCancelButton.click()
    two.settle()
    assert two.table(NAME) == [] and two.ui.compareButton.enabled


def test_leaving_the_module_ends_the_pairing(two: FollowUp) -> None:
    two.compare()
    two.ui.pairButton.click()
    assert two.section._clicks.armed
    two.user.host.select(None)
    assert not two.section._clicks.armed and not two.section.comparison.isPairing


def test_changes_since_the_comparison_are_said(two: FollowUp) -> None:
    two.compare()
    label = two.ui.followUpLabel
    assert label.text == ""
    two.user.session.review.delete(two.user.ids()[0])
    two.user.settle()
    changed = "Scans or nodules have changed since: press Compare."
    assert label.text == changed
    two.choose("Nodule 1")
    assert label.text == "Nodule 1 is not in its segmentation any more: press Compare or Measure."
    assert two.offset() == pytest.approx(FIRST[2], abs=1.0), "where it was"
    two.choose("Nodule 2")
    assert label.text == changed
    two.ui.compareButton.click()
    two.settle()
    assert label.text == "" and "Nodule 1" not in two.table(NAME) and "old 1 (prior)" in two.table(NAME)
    two.user.host.select(None)  # in another module
    two.prior.SetName("älter <1/2>")
    two.user.open()
    assert label.text == changed


def test_a_prior_that_is_deleted_leaves_no_neighbor_in_its_place(two: FollowUp) -> None:
    two.compare()
    scene = two.user.host.scene.scene
    scene.RemoveNode(two.segmentation)
    two.settle()
    assert two.ui.priorSegmentationSelector.currentNode() is None and two.table(NAME) == []
    two.ui.compareButton.click()
    assert "Before has no segmentation" in two.ui.followUpLabel.text
    scene.RemoveNode(two.prior)
    two.settle()
    assert two.ui.priorVolumeSelector.currentNode() is None and two.ui.compareButton.text == "Measure"


def test_the_scene_is_closed_while_it_measures(two: FollowUp) -> None:
    two.ui.priorVolumeSelector.setCurrentNode(two.prior)
    two.ui.compareButton.click()
    two.user.host.scene.scene.Clear(0)
    two.settle()
    assert two.table(NAME) == [] and two.ui.followUpLabel.text == "" and not two.ui.compareButton.enabled


def test_a_date_that_is_corrected_is_no_error_any_more(two: FollowUp) -> None:
    two.ui.priorVolumeSelector.setCurrentNode(two.prior)
    for date, message in (("31.5.2024", "31.5.2024 is no date: write it as 2024-05-31."), ("2024-05-31", "")):
        two.ui.priorDateEdit.setText(date)
        two.ui.priorDateEdit.editingFinished.emit()
        assert two.ui.followUpLabel.text == message


def test_a_volume_of_any_name_gives_a_file_name(two: FollowUp, monkeypatch: pytest.MonkeyPatch) -> None:
    import qt

    asked: list[str] = []
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda _parent, _title, place, _kinds: asked.append(place))
    two.ui.compareButton.click()
    two.settle()
    two.current.SetName("4: Thorax 1/2 größer?")
    two.ui.csvButton.click()
    assert Path(asked[0]).name == "4_Thorax_1_2_größer_findings.csv"


def test_another_layout_gives_the_nodules_back_to_all_views(two: FollowUp) -> None:
    layout = two.user.host.scene.scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    layout.AddLayoutDescription(layout.SlicerLayoutOneUpRedSliceView, "<layout/>")
    two.compare()
    two.ui.twoRowsButton.click()
    display = two.user.session.segmentationNode.GetDisplayNode()
    assert two.ui.twoRowsButton.checked and display.GetViewNodeIDs()
    layout.SetViewArrangement(layout.SlicerLayoutOneUpRedSliceView)
    two.user.widget.panel._views.changed()
    assert not two.ui.twoRowsButton.checked and not display.GetViewNodeIDs()
    assert layout.GetViewArrangement() == layout.SlicerLayoutOneUpRedSliceView


def test_cells_mark_axes_drawn_by_hand() -> None:
    import dataclasses

    from report.made_nodules import nodule
    from SAMMed3DLib.gui.follow_up_view import cells
    from SAMMed3DLib.scene.comparison import Row

    drawn = dataclasses.replace(nodule(7.0), diameters_by_hand=True)
    assert cells(Row(drawn, None, None))[6] == "7.0*" and cells(Row(nodule(7.0), None, None))[6] == "7.0"


def test_what_each_state_offers() -> None:
    from SAMMed3DLib.gui.follow_up_view import FollowUpFacts, followUpView

    def usable(**facts: Any) -> set[str]:
        return {name for name, control in followUpView(FollowUpFacts(**facts)).items() if control.enabled}

    assert "compareButton" not in usable() and usable(volume=True) >= {"compareButton"}
    outputs = {"reportButton", "copyTextButton", "csvButton", "dicomButton"}
    assert not usable(volume=True) & outputs
    from_file = {"volume": True, "findings": True, "compared": True, "selected": True, "now": True, "before": True}
    assert usable(**from_file) & outputs == outputs - {"dicomButton"} and "partButton" not in usable(**from_file)
    ready = {**from_file, "masks": True, "prior": True}
    assert usable(**ready) >= outputs | {"pairButton", "partButton"} and "clickHereButton" not in usable(**ready)
    gone = {**ready, "now": False, "expected": True}
    assert "clickHereButton" in usable(**gone) and "partButton" not in usable(**gone)
    assert "clickHereButton" not in usable(**{**gone, "expected": False})
    assert not usable(**ready, running=True) & (outputs | {"compareButton", "pairButton"})
