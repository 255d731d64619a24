"""Section 1: the table of cases, what is written, and data sets that lie ready."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel
import numpy as np

from gui.training.test_training_run import reasons

if TYPE_CHECKING:
    from gui.training.fake_runs import FakeRuns
    from gui.training.training_user import TrainingUser

TICK, CASE, NODULES, STATE = range(4)


def test_problems_are_told_before_anything_is_written(trainer: TrainingUser) -> None:
    trainer.load_case("good")
    trainer.load_case("nobody looked", 1, accepted=0)
    trainer.load_case("empty", 2, nodules=0)
    trainer.open()
    trainer.look()
    states = dict(zip(trainer.cells("caseTable", CASE), trainer.cells("caseTable", STATE), strict=True))
    assert states["good"] == "new"
    assert states["empty"] not in ("new", "written") and len([s for s in states.values() if s == "new"]) == 1
    assert trainer.ui.exportButton.text == "Export 1 case"
    trainer.ui.acceptedCheckBox.checked = False
    assert trainer.ui.exportButton.text == "Export 2 cases"
    assert not trainer.dataset.exists()


def test_only_ticked_cases_are_written_under_the_name_typed(trainer: TrainingUser) -> None:
    import qt

    trainer.load_case("A")
    trainer.load_case("B", 1)
    trainer.open()
    trainer.look()
    trainer.ui.caseTable.item(1, TICK).setCheckState(qt.Qt.Unchecked)
    trainer.ui.caseTable.item(0, CASE).setText("Straße 7")
    trainer.press("exportButton")
    trainer.settle()
    names = [path.name for path in sorted((trainer.dataset / "labelsTr").iterdir())]
    assert names == ["Straße_7.nii.gz"]
    assert "1 case was written to" in trainer.ui.statusLabel.text
    assert trainer.cells("caseTable", STATE) == ["written", "new"]
    item = trainer.ui.caseTable.item(0, TICK)
    assert item.data(10) is None, "what is written has no tick"


def test_what_changed_is_written_again_and_the_rest_left_alone(trainer: TrainingUser) -> None:
    from SAMMed3DLib.scene import nodule_segmentation
    from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation

    first = trainer.load_case("A")
    trainer.load_case("B", 1)
    trainer.open()
    trainer.look()
    trainer.press("exportButton")
    trainer.settle()
    untouched = (trainer.dataset / "labelsTr" / "B.nii.gz").stat().st_mtime_ns
    segmentation = nodule_segmentation.findSegmentation(first)
    segment_id = segmentation.GetSegmentation().GetNthSegmentID(1)
    NoduleSegmentation(segmentation).setStatus(segment_id, nodule_segmentation.AI)
    trainer.look()
    assert trainer.cells("caseTable", STATE) == ["changed", "written"]
    trainer.press("exportButton")
    trainer.settle()
    labels = np.asanyarray(nibabel.load(trainer.dataset / "labelsTr" / "A.nii.gz").dataobj)
    assert set(np.unique(labels)) == {0, 1}
    assert (trainer.dataset / "labelsTr" / "B.nii.gz").stat().st_mtime_ns == untouched


def test_canceling_keeps_whole_cases_only(trainer: TrainingUser) -> None:
    for seed in range(3):
        trainer.load_case(f"case {seed}", seed)
    trainer.open()
    trainer.look()
    trainer.press("exportButton")
    assert trainer.session.job.kind.name == "EXPORT" and not trainer.ui.importButton.enabled
    trainer.session.job.cancel()
    trainer.settle()
    images, labels = (
        {p.name.replace("_0000", "") for p in (trainer.dataset / part).glob("*")} for part in ("imagesTr", "labelsTr")
    )
    assert images == labels and len(images) < 3
    assert trainer.ui.exportButton.enabled


def test_a_folder_that_cannot_be_written_is_told(trainer: TrainingUser) -> None:
    trainer.load_case("A")
    trainer.open()
    (trainer.folder / "a file").write_text("")
    trainer.ui.folderEdit.text = str(trainer.folder / "a file")
    trainer.look()
    assert trainer.cells("caseTable", CASE) == ["A"]
    assert "a file" in reasons(trainer)["exportButton"] and "a file" in trainer.ui.statusLabel.text
    assert (trainer.folder / "a file").read_text(encoding="utf-8") == ""


def test_choosing_folders(trainer: TrainingUser, runs: FakeRuns) -> None:
    from standin import qt_module

    trainer.open()
    other = trainer.folder / "other"
    qt_module.file_answers.append(str(other))
    trainer.press("folderButton")
    assert trainer.session.data.folder == other
    qt_module.file_answers.append("")
    trainer.press("folderButton")
    assert trainer.session.data.folder == other, "Cancel changes nothing"
    qt_module.file_answers.append(str(trainer.folder / "my runs"))
    trainer.press("workDirButton")
    assert trainer.ui.workDirEdit.text == str(trainer.folder / "my runs")
    assert trainer.session.train.settings.workDir == trainer.folder / "my runs"


def test_a_data_set_that_lies_ready_is_checked_in_a_child_process(trainer: TrainingUser, runs: FakeRuns) -> None:
    import qt

    from standin import qt_module

    trainer.open()
    trainer.ui.datasetsSection.collapsed = False
    ready = trainer.folder / "ready"
    ready.mkdir()
    qt_module.file_answers.append(str(ready))
    trainer.press("addDatasetButton")
    assert runs.jobs[-1].command == "check" and runs.jobs[-1].arguments == [str(ready)]
    runs.jobs[-1].done(cases=7, nodules=19, problems=[{"case": "C3", "text": "has no label map"}])
    trainer.settle()
    assert trainer.cells("datasetTable", 1) == ["ready"] and trainer.cells("datasetTable", 2) == ["7"]
    assert "C3: has no label map" in trainer.ui.datasetTable.item(0, 1).toolTip()
    assert trainer.session.data.trainingData == (ready,) and trainer.ui.startButton.enabled
    trainer.ui.datasetTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
    assert trainer.session.data.trainingData == () and not trainer.ui.startButton.enabled
    assert "Select a data set" in reasons(trainer)["removeDatasetButton"]
    trainer.ui.datasetTable.setCurrentCell(0, 1)
    trainer.press("removeDatasetButton")
    assert trainer.ui.datasetTable.rowCount == 0 and ready.is_dir()


def test_files_become_cases(trainer: TrainingUser) -> None:
    from standin import qt_module

    source = trainer.folder / "files"
    source.mkdir()
    image = np.full((20, 20, 12), -800, np.int16)
    labels = np.zeros_like(image, np.uint8)
    image[8:12, 8:12, 4:8], labels[8:12, 8:12, 4:8] = 0, 1
    nibabel.save(nibabel.Nifti1Image(image, np.diag([1.0, 1.0, 1.5, 1])), source / "one.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([1.0, 1.0, 1.5, 1])), source / "one_seg.nii.gz")
    trainer.open()
    qt_module.file_answers.append(str(source))
    trainer.press("importButton")
    trainer.settle()
    assert not trainer.ui.messageFrame.visible, trainer.ui.messageLabel.text
    assert len(list((trainer.dataset / "imagesTr").iterdir())) == 1
    assert json.loads((trainer.dataset / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 1
    assert trainer.ui.startButton.enabled


def test_a_new_scene_is_looked_at_by_itself(trainer: TrainingUser) -> None:
    trainer.open()
    trainer.load_case("late")
    trainer.host.wait(lambda: trainer.ui.caseTable.rowCount == 1, 5)
    assert trainer.ui.exportButton.enabled


def test_the_panel_can_be_closed_during_an_export(trainer: TrainingUser) -> None:
    trainer.load_case("A")
    trainer.open()
    trainer.look()
    trainer.press("exportButton")
    trainer.host.scene.scene.Clear(0)
    trainer.settle()
    parts = [
        {p.name.replace("_0000", "") for p in Path(trainer.dataset / part).glob("*.nii.gz")}
        for part in ("imagesTr", "labelsTr")
    ]
    assert parts[0] == parts[1]
