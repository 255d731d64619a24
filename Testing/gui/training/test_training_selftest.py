"""The self-test that users run inside Slicer, here in the simulation; and the functions for scripts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gui.training.fake_runs import FakeMonitor, FakeRuns

if TYPE_CHECKING:
    from gui.training.training_user import TrainingUser
    from SAMMed3DLib.weights.store import WeightsStore


@pytest.mark.skipif("SAMMED3D_SELFTEST" not in os.environ, reason="takes minutes: set SAMMED3D_SELFTEST to run it")
def test_the_modules_self_test_passes(real_trainer: TrainingUser, own_store: WeightsStore) -> None:
    import slicer

    real_trainer.opened = True
    slicer.selfTests["SAMMed3DTraining"](msec=0)
    assert [entry.name for entry in own_store.entries() if entry.name.startswith("self-test")] == []


def test_scripts_export_a_scene(trainer: TrainingUser) -> None:
    import sys

    trainer.load_case("A")
    trainer.load_case("B", 1, accepted=1)
    logic = sys.modules["SAMMed3DTraining"].SAMMed3DTrainingLogic
    results = logic.exportScene(trainer.dataset)
    assert [(result.name, result.state) for result in results] == [("A", "added"), ("B", "added")]
    assert logic.exportScene(trainer.dataset) == []


def test_scripts_train_and_hear_why_it_failed(trainer: TrainingUser) -> None:
    from SAMMed3DTrainingLib.runs.run_files import RunError
    from SAMMed3DTrainingLib.session import scripting

    class Failing(FakeRuns):
        def monitor(self, folder: Path, process: object) -> FakeMonitor:
            monitor = super().monitor(folder, process)
            monitor.set("failed", message="the data set holds no nodule")
            return monitor

    runs = Failing()
    with pytest.raises(RunError, match="no nodule"):
        scripting.train([trainer.folder], trainer.work_dir, "one", runs=runs, preset="full", epochs=3)
    assert runs.requests[0].preset == "full" and runs.requests[0].num_epochs == 3


def test_scripts_hear_that_there_is_nothing_to_adopt(trainer: TrainingUser) -> None:
    from SAMMed3DTrainingLib.runs.run_files import RunError
    from SAMMed3DTrainingLib.session import scripting

    with pytest.raises(RunError, match="no run"):
        scripting.adopt(trainer.work_dir / "none", models=None)
