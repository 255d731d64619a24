"""Section 2: a run is set, estimated, started, watched and ended; what goes wrong is said, with a way out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gui.training.fake_runs import FakeRuns
    from gui.training.training_user import TrainingUser

CONTROLS = (
    "exportButton",
    "importButton",
    "addDatasetButton",
    "removeDatasetButton",
    "checkDatasetButton",
    "estimateButton",
    "startButton",
    "pauseButton",
    "stopButton",
    "lossButton",
    "diceButton",
    "compareButton",
    "adoptButton",
    "continueButton",
    "deleteRunButton",
    "clicksCombo",
    "sideBySideButton",
    "noduleChartButton",
    "rankButton",
    "openNextButton",
    "messageButton",
    "cancelButton",
)


def reasons(user: TrainingUser) -> dict[str, str]:
    """Tool tips of what cannot be used now."""
    widgets = {name: getattr(user.ui, name) for name in CONTROLS}
    return {name: widget.toolTip for name, widget in widgets.items() if not widget.enabled}


def with_data(user: TrainingUser) -> None:
    """The module is open, and there is a data set to train on."""
    folder = user.folder / "ready"
    folder.mkdir(exist_ok=True)
    user.open()
    user.session.data.addDataset(folder, check=False)
    user.host.process()


def watch(user: TrainingUser, runs: FakeRuns, state: str, **values: Any) -> None:
    """The run says something, and the panel hears it."""
    runs.monitor_.set(state, **values)
    user.session.poll()
    user.host.process()


def test_opening_starts_nothing(trainer: TrainingUser, runs: FakeRuns) -> None:
    import threading

    before = threading.active_count()
    trainer.open()
    assert not runs.jobs and not runs.requests and threading.active_count() == before
    assert not trainer.work_dir.exists() and not trainer.dataset.exists()


def test_what_cannot_be_used_says_why(trainer: TrainingUser) -> None:
    trainer.open()
    told = reasons(trainer)
    assert set(told) >= {"exportButton", "startButton", "pauseButton", "compareButton", "openNextButton"}
    assert all(told.values())
    assert "nothing to train on" in told["startButton"]
    assert "no run" in told["compareButton"].lower()
    assert "SAMMed3D" in trainer.ui.statusLabel.text


def test_settings_become_the_request(trainer: TrainingUser, runs: FakeRuns) -> None:
    with_data(trainer)
    ui = trainer.ui
    ui.presetCombo.setCurrentIndex(1)
    ui.epochsSpinBox.value, ui.batchSpinBox.value, ui.accumulationSpinBox.value = 7, 3, 2
    ui.rateSpinBox.value = 0.0001
    ui.deviceCombo.setCurrentIndex(2)
    ui.gpusEdit.text = "0, 1"
    ui.runNameEdit.text = " zweiter Lauf "
    trainer.press("startButton")
    (request,) = runs.requests
    assert request.task_name == "zweiter Lauf" and request.work_dir == trainer.work_dir
    assert (request.preset, request.num_epochs, request.batch_size, request.accumulation_steps) == ("15min", 7, 3, 2)
    assert request.lr == pytest.approx(0.0001) and request.device == "cuda" and request.gpu_ids == (0, 1)
    assert request.data == (trainer.folder / "ready",) and request.checkpoint is None


def test_zero_means_as_the_preset(trainer: TrainingUser, runs: FakeRuns) -> None:
    with_data(trainer)
    trainer.press("startButton")
    assert runs.requests[0].num_epochs is None and runs.requests[0].lr is None


def test_an_estimate_holds_for_what_it_was_made_of(trainer: TrainingUser, runs: FakeRuns) -> None:
    with_data(trainer)
    trainer.press("estimateButton")
    assert not trainer.ui.startButton.enabled and "Measuring" in trainer.ui.startButton.toolTip
    runs.jobs[-1].done(time_s=600.0, memory_mb=900, disk_mb=80, steps=40, nodules=4, cases=2, device="cpu")
    trainer.settle()
    text = trainer.ui.estimateLabel.text
    assert "10 min" in text and "40 steps" in text and "900 MB" in text
    trainer.ui.runNameEdit.text = "another name"
    assert trainer.ui.estimateLabel.text == text
    trainer.ui.batchSpinBox.value = 2
    assert trainer.ui.estimateLabel.text == "Not estimated yet."


def test_gains_warnings_and_who_chose_are_told(trainer: TrainingUser, runs: FakeRuns) -> None:
    with_data(trainer)
    trainer.press("startButton")
    warning = "the best weights so far are worse on 15-30 mm (1): -0.100"
    values = {"best_dice": 0.8, "change": (0.05, 0.012), "warnings": (warning,)}
    watch(trainer, runs, "running", epoch=1, epochs=2, step=3, steps=10, **values)
    text = trainer.ui.runLabel.text
    assert "+0.050 since the start (standard error 0.012)" in text and warning in text
    caution = "no case is held out from the choice of the weights"
    watch(trainer, runs, "finished", caution=caution, change=None, warnings=())
    text = trainer.ui.runLabel.text
    assert "No epoch beat the weights" in text and caution in text and "Best Dice" not in text


def test_a_failed_estimate_is_told(trainer: TrainingUser, runs: FakeRuns) -> None:
    with_data(trainer)
    trainer.press("estimateButton")
    runs.jobs[-1].failed("The data set holds no nodule: export one.")
    trainer.settle()
    assert trainer.ui.messageFrame.visible and "no nodule" in trainer.ui.messageLabel.text
    trainer.press("dismissButton")
    assert not trainer.ui.messageFrame.visible


def test_a_refused_run_is_told_in_words(trainer: TrainingUser, runs: FakeRuns) -> None:
    with_data(trainer)
    runs.refusal = "The folder of runs has 0.1 GB free, and the run needs about 1 GB: free some."
    trainer.press("startButton")
    assert trainer.ui.messageLabel.text == runs.refusal and not trainer.session.train.isRunning


def test_a_run_is_watched_paused_and_stopped(trainer: TrainingUser, runs: FakeRuns) -> None:
    from gui.training.fake_runs import curves

    with_data(trainer)
    trainer.press("startButton")
    assert trainer.session.state.name == "STARTING" and "starting" in trainer.ui.runLabel.text
    assert "under way" in trainer.ui.startButton.toolTip and not trainer.ui.startButton.enabled
    watch(trainer, runs, "starting", read=(12, 63))
    assert "12 of 63 cases" in trainer.ui.runLabel.text
    watch(trainer, runs, "encoding", fraction=0.2, left_s=30.0)
    assert "30 s" in trainer.ui.runLabel.text
    watch(
        trainer,
        runs,
        "running",
        epoch=2,
        epochs=20,
        step=10,
        steps=100,
        fraction=0.1,
        left_s=7200.0,
        best_dice=0.7,
        curves=curves(10),
    )
    text = trainer.ui.runLabel.text
    assert "epoch 2 of 20" in text and "2 h" in text and "Best Dice 0.700 after 1 click." in text
    assert trainer.ui.runBar.visible and trainer.ui.runBar.value == 100
    trainer.press("pauseButton")
    watch(trainer, runs, "running", pausing=True)
    assert not trainer.ui.pauseButton.enabled
    watch(trainer, runs, "paused", pausing=False)
    assert trainer.ui.pauseButton.text == "Resume"
    trainer.press("pauseButton")
    watch(trainer, runs, "running")
    trainer.press("stopButton")
    assert runs.monitor_.commands == ["pause", "resume", "stop"]
    watch(trainer, runs, "stopping")
    assert not trainer.ui.stopButton.enabled and not trainer.ui.pauseButton.enabled
    watch(trainer, runs, "stopped")
    assert not trainer.ui.runBar.visible and trainer.ui.startButton.enabled
    assert "stopped" in trainer.ui.statusLabel.text


def test_how_a_run_ended_is_one_sentence_at_the_top_and_the_rest_below_its_progress(
    trainer: TrainingUser, runs: FakeRuns
) -> None:
    """The line at the top has room for two lines: what is longer was cut off, and stood there twice."""
    with_data(trainer)
    trainer.press("startButton")
    watch(trainer, runs, "finished", best_dice=0.8, caution="no case is held out", warnings=("8-15 mm (3) fell",))
    name = trainer.session.train.name
    assert trainer.ui.statusLabel.text == f"{name} has finished."
    below = trainer.ui.runLabel.text
    assert below.startswith(f"{name} has finished. ") and "No epoch beat" in below
    assert "no case is held out" in below and "8-15 mm (3) fell" in below


def test_a_full_gpu_offers_a_smaller_batch(trainer: TrainingUser, runs: FakeRuns) -> None:
    with_data(trainer)
    trainer.press("startButton")
    smaller = dataclasses.replace(runs.requests[0], batch_size=2, accumulation_steps=2)
    watch(trainer, runs, "failed", kind="out_of_memory", message="The GPU's memory is exhausted.", suggestion=smaller)
    assert "memory is exhausted" in trainer.ui.messageLabel.text
    assert "2" in trainer.ui.messageButton.text and "2 steps" in trainer.ui.messageButton.toolTip
    trainer.press("messageButton")
    assert runs.requests[-1] == smaller and trainer.session.train.isRunning
    assert not trainer.ui.messageFrame.visible


def test_a_run_killed_from_outside_can_be_continued(trainer: TrainingUser, runs: FakeRuns) -> None:
    with_data(trainer)
    trainer.press("startButton")
    runs.add_run("nodules", trainer.work_dir, state="killed", resumable=True)
    watch(trainer, runs, "killed")
    assert "from outside" in trainer.ui.statusLabel.text
    trainer.press("continueButton")
    assert runs.requests[-1].resume and runs.requests[-1].folder == trainer.work_dir / "nodules"


def test_a_run_found_on_the_disk_is_watched_again(trainer: TrainingUser, runs: FakeRuns) -> None:
    runs.add_run("yesterday", trainer.work_dir, state="running")
    trainer.open()
    trainer.host.wait(lambda: trainer.session.train.isRunning)
    assert runs.monitor_.process is None and trainer.session.train.name == "yesterday"
    assert "watched again" in trainer.ui.statusLabel.text
    assert trainer.ui.stopButton.enabled and "under way" in reasons(trainer)["deleteRunButton"]


def test_the_last_words_of_a_long_run_are_read(trainer: TrainingUser, runs: FakeRuns) -> None:
    with_data(trainer)
    trainer.press("startButton")
    ends: list[str] = []
    trainer.session.train.ended.connect(lambda status: ends.append(status.state))
    watch(trainer, runs, "finished", caught_up=False)
    assert not ends and trainer.session.train.isRunning
    runs.monitor_.set("finished", caught_up=True)
    trainer.host.wait(lambda: ends, 5)
    trainer.session.poll()
    assert ends == ["finished"] and not trainer.session.train.isRunning


def test_one_run_at_a_time(trainer: TrainingUser, runs: FakeRuns) -> None:
    with_data(trainer)
    runs.add_run("theirs", trainer.work_dir, state="running")
    trainer.session.compare.refresh()
    assert "theirs is under way in another process" in reasons(trainer)["startButton"]


def test_missing_packages_are_one_list_and_one_button(
    trainer: TrainingUser, runs: FakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    import slicer.util

    from SAMMed3DTrainingLib.runs.packages_check import Package

    runs.missing = (Package("nibabel", "nibabel>=5.1", "reads and writes NIfTI"),)
    with_data(trainer)
    assert trainer.session.state.name == "NO_PACKAGES"
    assert "nibabel" in trainer.ui.messageLabel.text and trainer.ui.messageButton.text == "Install"
    assert "nibabel" in reasons(trainer)["startButton"]
    asked: list[str] = []
    installed: list[list[str]] = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **__: asked.append(text) or True)

    def pip_install(requirements: list[str]) -> None:
        installed.append(requirements)
        pins = Path(requirements[-1]).read_text(encoding="utf-8")
        assert "numpy==" in pins
        runs.missing = ()

    monkeypatch.setattr(slicer.util, "pip_install", pip_install)
    trainer.press("messageButton")
    assert "nibabel>=5.1" in asked[0] and installed[0][:2] == ["nibabel>=5.1", "-c"]
    assert not trainer.ui.messageFrame.visible and trainer.ui.startButton.enabled


def test_a_refused_installation_changes_nothing(
    trainer: TrainingUser, runs: FakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    import slicer.util

    from SAMMed3DTrainingLib.runs.packages_check import Package

    runs.missing = (Package("nibabel", "nibabel>=5.1", "reads and writes NIfTI"),)
    trainer.open()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **__: False)
    trainer.press("messageButton")
    assert trainer.session.state.name == "NO_PACKAGES" and trainer.ui.messageFrame.visible


def test_curves_borrow_the_layout_and_give_it_back(trainer: TrainingUser, runs: FakeRuns) -> None:
    import slicer

    from gui.training.fake_runs import curves

    with_data(trainer)
    manager = trainer.host.app.layoutManager()
    before = manager.layout
    trainer.press("startButton")
    watch(trainer, runs, "running", step=5, steps=10, curves=curves(5))
    assert manager.layout == before, "nobody asked for the curves"
    trainer.press("lossButton")
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView and trainer.ui.lossButton.checked
    trainer.press("diceButton")
    assert trainer.ui.diceButton.checked and not trainer.ui.lossButton.checked
    trainer.press("diceButton")
    assert manager.layout == before and not trainer.ui.diceButton.checked
    trainer.press("lossButton")
    manager.setLayout(6)
    trainer.press("lossButton")
    trainer.press("lossButton")
    assert manager.layout == 6, "the user's choice in the meantime counts"


def test_the_chart_holds_the_values(trainer: TrainingUser, runs: FakeRuns) -> None:
    from gui.training.fake_runs import curves
    from SAMMed3DTrainingLib.scene.run_plots import MOST_POINTS

    with_data(trainer)
    trainer.press("startButton")
    watch(trainer, runs, "running", step=4, steps=10, curves=curves(4))
    plots = trainer.panel.plots._plots
    table = plots.node("stepTable").GetTable()
    assert table.GetNumberOfRows() == 4
    assert table.GetColumnByName("Loss").GetTuple1(3) == pytest.approx(0.25)
    assert plots.node("lossChart").GetNumberOfPlotSeriesNodes() == 2
    assert not plots.node("lossChart").GetSaveWithScene()
    plots.show("long", curves(5 * MOST_POINTS))
    assert plots.node("stepTable").GetTable().GetNumberOfRows() == MOST_POINTS


def test_the_log_is_shown_when_opened(trainer: TrainingUser, runs: FakeRuns) -> None:
    with_data(trainer)
    trainer.press("startButton")
    watch(trainer, runs, "running", log=("first line", "epoch 1"))
    assert trainer.ui.logEdit.plainText == ""
    trainer.ui.logSection.collapsed = False
    assert trainer.ui.logEdit.plainText == "first line\nepoch 1"
