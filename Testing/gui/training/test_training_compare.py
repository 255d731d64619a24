"""Sections 3 and 4: history, old against new, adopting, and the next case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest

from gui.training.test_training_run import reasons

if TYPE_CHECKING:
    from gui.training.fake_runs import FakeRuns
    from gui.training.training_user import TrainingUser

SHAPE_IJK = (40, 40, 24)


def write_comparison(folder: Path) -> None:
    """What ``compare`` leaves in a run's folder: one case with two nodules."""
    place = folder / "comparison"
    place.mkdir(parents=True)
    affine = np.diag([-1.0, -1.0, 1.5, 1.0])
    image = np.full(SHAPE_IJK, -850, np.int16)
    truth, old, new = (np.zeros(SHAPE_IJK, np.uint8) for _ in range(3))
    for value, (i, j, k) in ((1, (10, 10, 8)), (2, (28, 26, 16))):
        ball = np.linalg.norm((np.indices(SHAPE_IJK).T - (i, j, k)).T * np.reshape((1, 1, 1.5), (3, 1, 1, 1)), axis=0)
        image[ball < 4], truth[ball < 4], old[ball < 2.5], new[ball < 3.8] = 0, value, value + 2, value + 2
    for name, array in (("image", image), ("truth", truth), ("old", old), ("new", new)):
        nibabel.save(nibabel.Nifti1Image(array, affine), place / f"{name}.nii.gz")
    nodules = [
        {
            "case": "C1",
            "nodule": f"Nodule {value}",
            "label_value": value,
            "value": value + 2,
            "diameter_mm": 8.0,
            "old": {"dice": [0.4, 0.5]},
            "new": {"dice": [0.8, 0.45]},
            "center_ras": (affine @ [*center, 1.0])[:3].tolist(),
        }
        for value, center in ((1, (10, 10, 8)), (2, (28, 26, 16)))
    ]
    mean = {
        which: {"1": {"mean": value, "low": value - 0.1, "high": value + 0.1}, "5": {"mean": value}}
        for which, value in (("old", 0.4), ("new", 0.8), ("delta", 0.4))
    }
    files = {name: str(place / f"{name}.nii.gz") for name in ("image", "truth", "old", "new")}
    place.joinpath("comparison.json").write_text(
        json.dumps(
            {
                "schema": 1,
                "clicks": [1, 5],
                "old": {"title": "bundled"},
                "new": {"title": "new"},
                "nodules": nodules,
                "mean": mean,
                "caution": "1 of these 1 cases chose the checkpoint's epoch",
                "cases": [
                    {
                        "case": "C1",
                        "image": files["image"],
                        "label": files["truth"],
                        **{which: dict.fromkeys(("1", "5"), files[which]) for which in ("old", "new")},
                    }
                ],
            }
        ),
        encoding="utf-8",
    )


@pytest.fixture
def compared(trainer: TrainingUser, runs: FakeRuns) -> TrainingUser:
    """A run with a comparison."""
    runs.add_run("first", trainer.work_dir)
    write_comparison(trainer.work_dir / "first")
    trainer.open()
    trainer.host.wait(lambda: trainer.ui.runTable.rowCount == 1)
    return trainer


def test_the_history_shows_configuration_and_size(compared: TrainingUser) -> None:
    assert [compared.cells("runTable", column)[0] for column in range(4)] == ["first", "finished", "0.810", "40 MB"]
    tip = compared.ui.runTable.item(0, 0).toolTip()
    assert "preset quick" in tip and "20 epochs" in tip and "12 nodules of 5 cases" in tip


def test_runs_are_renamed_in_place(compared: TrainingUser, runs: FakeRuns) -> None:
    runs.add_run("second", compared.work_dir)
    compared.session.compare.refresh()
    compared.ui.runTable.item(0, 0).setText("better name")
    assert compared.cells("runTable", 0) == ["better name", "first"]
    compared.ui.runTable.item(0, 0).setText("first")
    assert "already" in compared.ui.messageLabel.text
    assert compared.cells("runTable", 0) == ["better name", "first"]
    compared.ui.runTable.item(0, 0).setText("  ")
    assert compared.cells("runTable", 0) == ["better name", "first"]


def test_deleting_asks_and_tells_the_room(compared: TrainingUser, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer.util

    answers, asked = [False, True], []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **__: asked.append(text) or answers.pop(0))
    compared.press("deleteRunButton")
    assert "40 MB" in asked[0] and compared.ui.runTable.rowCount == 1
    compared.press("deleteRunButton")
    assert compared.ui.runTable.rowCount == 0 and "no run" in reasons(compared)["deleteRunButton"].lower()


def test_old_and_new_nodule_by_nodule(compared: TrainingUser) -> None:
    assert compared.cells("noduleTable", 1) == ["0.400", "0.400"]
    assert compared.cells("noduleTable", 3) == ["+0.400", "+0.400"]
    text = compared.ui.summaryLabel.text
    assert "after 1 click: 0.400 → 0.800" in text and "2 held-out nodules" in text and "95 %" in text
    assert "drawn with the old weights" in text, "who drew the truth is favored"
    assert "Careful: 1 of these 1 cases chose the checkpoint's epoch" in text
    compared.ui.clicksCombo.setCurrentIndex(1)
    assert compared.cells("noduleTable", 3) == ["-0.050", "-0.050"]


def test_a_nodule_is_shown_with_truth_old_and_new(compared: TrainingUser) -> None:
    import slicer.util

    from SAMMed3DTrainingLib.scene.comparison_view import NEW, OLD, TRUTH

    compared.ui.noduleTable.setCurrentCell(0, 0)
    compared.settle()
    view = compared.panel.comparison
    counts = {}
    for name in (TRUTH, OLD, NEW):
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(view.segmentationNode, name, view.volumeNode)
        counts[name] = int(mask.sum())
        assert mask.astype(bool)[8, 10, 10] and not mask.astype(bool)[16, 26, 28]
    assert counts[OLD] < counts[NEW] <= counts[TRUTH]
    first = view.volumeNode
    compared.ui.noduleTable.setCurrentCell(1, 0)
    compared.settle()
    assert view.volumeNode is first, "the same case is not read twice"
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(view.segmentationNode, NEW, view.volumeNode)
    assert mask[16, 26, 28] and not mask[8, 10, 10]
    assert not view.volumeNode.GetSaveWithScene()
    compared.host.scene.scene.RemoveNode(view.segmentationNode)
    compared.ui.noduleTable.setCurrentCell(0, 0)
    compared.settle()
    assert view.segmentationNode is not None, "made anew where the user deleted it"


def test_leaving_gives_back_views_layout_and_nodules(compared: TrainingUser) -> None:
    host = compared.host
    manager = host.app.layoutManager()
    own = compared.load_case("A")
    for module in ("SAMMed3D", "SAMMed3DTraining"):  # the first look at a chest fits it
        host.select(module)
        host.process(0.1)
    (segmentation,) = [
        node for node in slicer_nodes("vtkMRMLSegmentationNode") if node.GetAttribute("SAMMed3D.Nodules")
    ]
    views = [manager.sliceWidget(name).sliceView()._view for name in ("Red", "Yellow")]
    for view in views:
        view.show(own)
        view.slice_node.SetFieldOfView(50.0, 40.0, 1.0)
        view.slice_node.JumpSliceByCentering(21.0, 12.0, -7.5)

    def shown() -> list:
        return [
            (
                view.slice_logic.GetSliceCompositeNode().GetBackgroundVolumeID(),
                np.round(view.slice_node.GetFieldOfView(), 3).tolist(),
                view.slice_node.GetOrientation(),
                round(view.slice_node.GetSliceOffset(), 3),
            )
            for view in views
        ]

    before, layout = shown(), manager.layout
    for case in (0, 1):  # twice: what was there before the first one counts
        compared.ui.noduleTable.setCurrentCell(case, 0)
        compared.settle()
    compared.press("sideBySideButton")
    assert shown() != before and manager.layout != layout and not segmentation.GetDisplayVisibility()
    host.select("SAMMed3D")
    host.process(0.05)
    assert manager.layout == layout and segmentation.GetDisplayVisibility()
    assert shown() == before and compared.panel.comparison.volumeNode is None
    host.select("SAMMed3DTraining")
    compared.ui.noduleTable.setCurrentCell(0, 0)
    compared.settle()
    assert compared.panel.comparison.volumeNode is not None, "shown again when it is wanted again"
    views[0].show(own)
    views[0].slice_node.SetFieldOfView(33.0, 22.0, 1.0)
    host.select("SAMMed3D")
    assert shown()[0][1] == [33.0, 22.0, 1.0], "a view that the user has used for something else stays"


def slicer_nodes(name: str) -> list:
    import slicer.util

    return slicer.util.getNodesByClass(name)


def test_adopting_what_is_no_better_asks(compared: TrainingUser, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer.util

    path = compared.work_dir / "first" / "comparison" / "comparison.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    adopted, asked, answers = [], [], [False, True]
    monkeypatch.setattr(compared.session.compare, "adopt", lambda: adopted.append(True))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **__: asked.append(text) or answers.pop(0))
    compared.press("adoptButton")
    assert adopted == [True] and asked == [], "better by 0.4"
    told["mean"]["delta"]["1"]["mean"] = 0.0003
    path.write_text(json.dumps(told), encoding="utf-8")
    compared.session.compare.refresh()
    compared.press("adoptButton")
    assert adopted == [True] and "not better" in asked[0] and "+0.000" in asked[0] and "1 click" in asked[0]
    compared.press("adoptButton")
    assert adopted == [True, True]


def test_side_by_side_borrows_the_layout(compared: TrainingUser) -> None:
    import slicer

    from SAMMed3DTrainingLib.scene.comparison_view import NEW, OLD

    manager = compared.host.app.layoutManager()
    before = manager.layout
    compared.ui.noduleTable.setCurrentCell(0, 0)
    compared.settle()
    display = compared.panel.comparison.segmentationNode.GetDisplayNode()
    assert display.GetSegmentVisibility(NEW) and display.GetSegmentVisibility(OLD)
    for name in ("Red", "Yellow"):
        manager.sliceWidget(name)
    compared.press("sideBySideButton")
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
    assert compared.ui.sideBySideButton.checked
    assert not display.GetSegmentVisibility(NEW) and display.GetSegmentVisibility(OLD)
    second = compared.panel.comparison.segmentationNode.GetNthDisplayNode(1)
    assert second.GetVisibility() and not second.GetSegmentVisibility(OLD) and second.GetSegmentVisibility(NEW)
    compared.press("sideBySideButton")
    assert manager.layout == before and display.GetSegmentVisibility(NEW) and not second.GetVisibility()
    assert manager.sliceWidget("Yellow").mrmlSliceNode().GetOrientation() == "Sagittal"


def test_the_chart_of_nodules(compared: TrainingUser) -> None:
    compared.press("noduleChartButton")
    node = compared.panel.plots._plots.node("nodulesTable")
    assert node.GetTable().GetColumnByName("New").GetTuple1(0) == pytest.approx(0.8)
    assert compared.ui.noduleChartButton.checked
    compared.press("noduleChartButton")
    assert not compared.ui.noduleChartButton.checked


def test_files_that_are_gone_are_told(compared: TrainingUser) -> None:
    (compared.work_dir / "first" / "comparison" / "old.nii.gz").unlink()
    compared.ui.noduleTable.setCurrentCell(0, 0)
    compared.settle()
    assert "press Compare again" in compared.ui.messageLabel.text


def test_comparing_shows_progress_and_can_be_canceled(compared: TrainingUser, runs: FakeRuns) -> None:
    from SAMMed3DTrainingLib.runs.job_process import JobStatus

    compared.press("compareButton")
    job = runs.jobs[-1]
    assert job.command == "compare" and str(compared.work_dir / "first") in job.arguments
    job.status = JobStatus(fraction=0.25, left_s=90.0, message="C1")
    compared.host.wait(lambda: compared.ui.statusStack.currentIndex == 1, 5)
    compared.host.wait(lambda: compared.ui.progressBar.value == 250, 5)
    label = compared.ui.progressLabel  # a long text is cut in its middle and whole in the tool tip
    assert "C1" in label.toolTip and "2 min" in label.toolTip and "2 min" in label.text
    compared.press("cancelButton")
    compared.settle()
    assert not compared.ui.messageFrame.visible


def test_a_model_that_cannot_be_adopted_is_told(compared: TrainingUser) -> None:
    (compared.work_dir / "first" / "sam_model_dice_best.pth").write_bytes(b"no checkpoint")
    compared.press("adoptButton")
    compared.settle()
    assert compared.ui.messageFrame.visible and compared.ui.messageLabel.text
    assert not list((compared.folder / "models").glob("finetuned/*"))


def ranked(name: str, path: str, uncertainty: float) -> dict[str, Any]:
    return {
        "path": path,
        "name": name,
        "uncertainty": uncertainty,
        "candidates": 5,
        "expected_nodules": 1.5,
        "objects": [{"point_ras": [1.0, 2.0, 3.0], "uncertainty": 0.7}],
    }


def test_the_next_case_is_the_one_that_the_model_is_unsure_about(trainer: TrainingUser, runs: FakeRuns) -> None:
    trainer.load_case("done")
    clear, unsure = (trainer.load_case(name, n + 1, nodules=0) for n, name in enumerate(("clear", "unsure")))
    trainer.open()
    trainer.look()
    trainer.ui.nextSection.collapsed = False
    assert trainer.session.next.volumes == 2
    trainer.press("rankButton")
    trainer.host.wait(lambda: runs.jobs, 20)
    paths = runs.jobs[-1].arguments[1:3]
    assert all(nibabel.load(path).shape == (48, 48, 30) for path in paths)
    runs.jobs[-1].done(ranked=[ranked("002", paths[1], 0.6), ranked("001", paths[0], 0.2)], skipped={})
    trainer.settle()
    assert trainer.cells("nextTable", 0) == ["unsure", "clear"]
    trainer.ui.nextTable.setCurrentCell(0, 0)
    trainer.press("openNextButton")
    neighbor = trainer.host.widget("SAMMed3D")
    assert neighbor.ui.volumeSelector.currentNode() is unsure and clear is not None


def test_volumes_deleted_after_the_ranking(trainer: TrainingUser, runs: FakeRuns) -> None:
    volume = trainer.load_case("gone", nodules=0)
    trainer.open()
    trainer.look()
    trainer.ui.nextSection.collapsed = False
    trainer.press("rankButton")
    trainer.host.wait(lambda: runs.jobs, 20)
    runs.jobs[-1].done(ranked=[ranked("001", runs.jobs[-1].arguments[1], 0.6)], skipped={})
    trainer.settle()
    trainer.host.scene.scene.RemoveNode(volume)
    trainer.ui.nextTable.setCurrentCell(0, 0)
    trainer.press("openNextButton")
    assert "no longer in the scene" in trainer.ui.messageLabel.text


def test_files_of_a_folder_are_ranked_where_they_are(trainer: TrainingUser, runs: FakeRuns) -> None:
    from standin import qt_module

    trainer.open()
    trainer.ui.nextSection.collapsed = False
    assert "load more" in reasons(trainer)["rankButton"]
    folder = trainer.folder / "scans"
    folder.mkdir()
    qt_module.file_answers.append(str(folder))
    trainer.ui.nextSourceCombo.setCurrentIndex(1)
    trainer.press("rankButton")
    assert runs.jobs[-1].command == "rank" and str(folder) in runs.jobs[-1].arguments
    runs.jobs[-1].failed("no volume could be ranked")
    trainer.settle()
    assert "no volume could be ranked" in trainer.ui.messageLabel.text
