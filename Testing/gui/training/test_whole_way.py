"""From a scene to a model that the SAMMed3D module uses, with real child processes and a network that is tiny."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gui.training.training_user import TrainingUser


def tiny_checkpoint(path: Path) -> Path:
    import torch

    from SAMMed3DLib.model import build_model, save_checkpoint

    torch.manual_seed(0)
    save_checkpoint(build_model("vit_tiny"), path)
    return path


def test_from_a_scene_to_an_adopted_model(real_trainer: TrainingUser, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer.util

    # One epoch may gain nothing, and then Adopt asks.
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **__: True)
    user = real_trainer
    store_file = tiny_checkpoint(user.folder / "start ä.pth")
    user.open()
    store = user.panel.module.store
    start = store.add_file(store_file)
    user.panel.train.refreshCheckpoints()
    user.ui.checkpointCombo.setCurrentIndex(user.ui.checkpointCombo.findText(start.title))

    for seed, name in enumerate(("Müller 1", "Meier", "Schmidt")):
        user.load_case(name, seed)
    user.look()
    assert user.cells("caseTable", 2) == ["2 of 2"] * 3
    assert not user.ui.startButton.enabled
    user.press("exportButton")
    user.settle()
    assert not user.ui.messageFrame.visible, user.ui.messageLabel.text
    assert len(list((user.dataset / "imagesTr").iterdir())) == 3
    assert user.cells("caseTable", 3) == ["written"] * 3
    assert not user.ui.exportButton.enabled

    user.ui.epochsSpinBox.value = 1
    user.ui.batchSpinBox.value = 8
    user.ui.runNameEdit.text = "erster Lauf"
    user.ui.deviceCombo.setCurrentIndex(1)
    user.press("estimateButton")
    user.settle(seconds=180)
    assert "About" in user.ui.estimateLabel.text, user.ui.messageLabel.text

    user.press("startButton")
    user.settle(run=True, seconds=180)
    status = user.session.train.status
    assert status.state == "finished", (status.message, status.log)
    assert user.cells("runTable", 0) == ["erster Lauf"]
    charts = user.panel.plots
    assert charts.hasCurves
    user.press("lossButton")
    assert user.ui.lossButton.checked
    user.press("lossButton")

    user.press("compareButton")
    user.settle(seconds=180)
    assert user.ui.noduleTable.rowCount, user.ui.messageLabel.text
    assert "Mean Dice" in user.ui.summaryLabel.text
    user.ui.noduleTable.setCurrentCell(0, 0)
    user.settle()
    view = user.panel.comparison
    assert view.isOnScreen, user.ui.messageLabel.text
    assert view.segmentationNode.GetSegmentation().GetNumberOfSegments() == 3

    user.host.select("SAMMed3D")
    neighbor = user.host.widget("SAMMed3D")
    user.host.select("SAMMed3DTraining")
    user.press("adoptButton")
    user.settle()
    assert "erster_Lauf" in user.ui.statusLabel.text, user.ui.messageLabel.text
    names = [neighbor.ui.modelCombo.itemText(n) for n in range(neighbor.ui.modelCombo.count)]
    assert any("erster_Lauf" in name for name in names)
    assert "erster_Lauf" in neighbor.ui.modelCombo.currentText
    assert Path(neighbor.session._models.path).name == "erster_Lauf.pth"
    config = json.loads((user.work_dir / "erster Lauf" / "config.json").read_text(encoding="utf-8"))
    assert config["preset"] == "5min"
