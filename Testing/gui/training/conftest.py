"""The training module in the simulation; the folder above runs these tests in its child process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gui.training.fake_runs import FakeRuns
    from gui.training.training_user import TrainingUser
    from SAMMed3DLib.weights.store import WeightsStore
    from standin.host import Host


@pytest.fixture(autouse=True)
def own_store(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightsStore:
    """Models of the test, not of this computer, for both modules."""
    import SAMMed3DLib.gui.model_panel
    import SAMMed3DLib.gui.panel
    import SAMMed3DTrainingLib.gui.segmentation_module
    from SAMMed3DLib.weights.store import WeightsStore

    store = WeightsStore(tmp_path / "models")
    for module in (SAMMed3DLib.gui.model_panel, SAMMed3DLib.gui.panel, SAMMed3DTrainingLib.gui.segmentation_module):
        monkeypatch.setattr(module, "applicationStore", lambda: store)
    return store


@pytest.fixture
def runs() -> FakeRuns:
    """Runs and other child processes that do what the test tells them; see there."""
    from gui.training.fake_runs import FakeRuns

    return FakeRuns()


@pytest.fixture
def trainer(host: Host, runs: FakeRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingUser:
    """The module is loaded, not yet opened; its child processes are fakes."""
    import SAMMed3DTrainingLib.gui.panel
    from gui.training.training_user import TrainingUser

    monkeypatch.setattr(SAMMed3DTrainingLib.gui.panel, "Runs", lambda: runs)
    return TrainingUser(host, tmp_path)


@pytest.fixture
def real_trainer(host: Host, tmp_path: Path) -> Iterator[TrainingUser]:
    """The module with real child processes; none outlives the test."""
    from gui.training.training_user import TrainingUser

    user = TrainingUser(host, tmp_path)
    yield user
    if user.opened and user.session.train.isRunning:
        user.session.train.kill()
