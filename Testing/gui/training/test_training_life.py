"""Leaving, closing, saving and reloading: a run is never hurt, and nothing of the panel is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gui.training.test_training_run import watch, with_data

if TYPE_CHECKING:
    from gui.training.fake_runs import FakeRuns
    from gui.training.training_user import TrainingUser
    from standin.host import Host


def running(user: TrainingUser, runs: FakeRuns) -> None:
    from gui.training.fake_runs import curves

    with_data(user)
    user.press("startButton")
    watch(user, runs, "running", step=3, steps=10, curves=curves(3))


def test_leaving_the_module_leaves_the_run_alone(trainer: TrainingUser, runs: FakeRuns) -> None:
    running(trainer, runs)
    trainer.host.select("SAMMed3D")
    watch(trainer, runs, "finished")
    trainer.host.select("SAMMed3DTraining")
    assert runs.monitor_.commands == [] and "finished" in trainer.ui.runLabel.text


def test_closing_the_scene_leaves_the_run_alone(trainer: TrainingUser, runs: FakeRuns) -> None:
    running(trainer, runs)
    trainer.load_case("A")
    trainer.look()
    trainer.press("lossButton")
    trainer.host.scene.scene.Clear(0)
    trainer.host.process(0.05)
    assert trainer.ui.caseTable.rowCount == 0 and trainer.session.train.isRunning
    from gui.training.fake_runs import curves

    watch(trainer, runs, "running", step=4, curves=curves(4))
    trainer.host.wait(lambda: trainer.session.poll() and trainer.panel.plots.hasCurves, 5)
    assert runs.monitor_.commands == []


@pytest.mark.parametrize(
    ("answer", "closes", "commands"), [("Yes", True, ["stop"]), ("No", True, []), ("Cancel", False, [])]
)
def test_closing_slicer_asks_about_a_run(
    trainer: TrainingUser, runs: FakeRuns, answer: str, closes: bool, commands: list[str]
) -> None:
    from PySide6 import QtWidgets

    from standin import qt_module

    running(trainer, runs)
    qt_module.box_answers.append(getattr(QtWidgets.QMessageBox.StandardButton, answer))
    assert trainer.host._window.close() is closes
    assert "nodules is under way" in qt_module.messages[-1] and runs.monitor_.commands == commands


def test_closing_slicer_without_a_run_asks_nothing(trainer: TrainingUser) -> None:
    trainer.open()
    assert trainer.host._window.close()


def test_quitting_lets_the_run_go_on_and_ends_the_jobs(trainer: TrainingUser, runs: FakeRuns) -> None:
    running(trainer, runs)
    trainer.session.compare.refresh()
    runs.add_run("old", trainer.work_dir)
    trainer.session.compare.refresh()
    (trainer.work_dir / "old").mkdir(parents=True)
    trainer.session.compare.select("old")
    trainer.press("compareButton")
    widget = trainer.widget
    trainer.host.app.aboutToQuit.emit()
    assert runs.jobs[-1].killed and runs.monitor_.commands == []
    assert widget.panel is None
    widget.cleanup()


def test_reload_goes_on_watching(trainer: TrainingUser, runs: FakeRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    running(trainer, runs)
    trainer.work_dir.mkdir(exist_ok=True)
    trainer.press("lossButton")
    before, layout = trainer.widget, trainer.host.app.layoutManager().layout
    from SAMMed3DTrainingLib.session import runs_api

    real = dict(vars(runs_api.Runs))
    assert real
    trainer.widget.onReload()
    assert trainer.widget is not before and trainer.host.app.layoutManager().layout != layout
    assert runs.monitor_.commands == []
    kinds = [node.GetClassName() for node in _nodes(trainer.host)]
    assert "vtkMRMLPlotChartNode" not in kinds, "helper nodes go with the panel"


def _nodes(host: Host) -> list:
    scene = host.scene.scene
    return [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]


def test_settings_come_back_with_the_scene(trainer: TrainingUser) -> None:
    trainer.open()
    trainer.ui.epochsSpinBox.value = 11
    trainer.ui.acceptedCheckBox.checked = False
    trainer.ui.presetCombo.setCurrentIndex(2)
    path = trainer.folder / "scene.mrb"
    trainer.host.scene.save(path)
    trainer.host.scene.scene.Clear(0)
    trainer.host.process(0.05)
    assert trainer.ui.epochsSpinBox.value == 0 and trainer.ui.acceptedCheckBox.checked
    trainer.host.scene.load(path)
    trainer.host.process(0.05)
    assert trainer.ui.epochsSpinBox.value == 11 and not trainer.ui.acceptedCheckBox.checked
    assert trainer.ui.presetCombo.currentIndex == 2 and trainer.ui.folderEdit.text == str(trainer.dataset)


@pytest.mark.parametrize("name", ["train", "test"])
def test_the_scripts_beside_the_module_hide_from_slicer(host: Host, name: str) -> None:
    from gui.training.training_user import MODULE

    module = host.load(MODULE.with_name(f"{name}.py"))
    assert module.hidden and module.title
