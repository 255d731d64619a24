"""What the panel shows when something is missing, fails or takes long; disabled controls say why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gui.slicer_user import User

CENTER = (5.0, -4.0, 3.0)
CONTROLS = (
    "addNoduleButton",
    "nextNoduleButton",
    "addModeButton",
    "subtractModeButton",
    "undoButton",
    "redoButton",
    "show3dButton",
    "windowButton",
    "fitButton",
    "slabButton",
    "closeUpButton",
    "keysButton",
    "segmentAllButton",
    "sensitivitySlider",
    "acceptButton",
    "flagButton",
    "rejectButton",
    "previousButton",
    "nextButton",
    "copyButton",
    "saveButton",
    "downloadButton",
    "openModelButton",
    "removeModelButton",
    "copyDeviceButton",
)


def _reasons(user: User) -> dict[str, str]:
    """Tool tips of what cannot be used now."""
    widgets = {name: getattr(user.ui, name) for name in CONTROLS}
    return {name: widget.toolTip for name, widget in widgets.items() if not widget.enabled}


def _tips(user: User) -> dict[str, str]:
    return {name: getattr(user.ui, name).toolTip for name in CONTROLS if getattr(user.ui, name).enabled}


def test_opening_loads_nothing(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    before = threading.active_count()
    user.load_volume()
    user.host.select("SAMMed3D")
    assert user.engine.requests == [] and threading.active_count() == before
    user.settle()
    assert [type(request).__name__ for request in user.engine.requests][:2] == ["LoadModel", "SetVolume"]


def test_without_a_volume_everything_says_why(user: User) -> None:
    user.open()
    reasons = _reasons(user)
    for name in ("addNoduleButton", "nextNoduleButton", "segmentAllButton"):
        assert "volume" in reasons[name].lower()
    assert all(reasons.values())
    assert "sample" in user.ui.stepsLabel.text
    user.press("N")
    assert not user.widget.clicks.armed
    volume = user.load_volume()
    user.settle()
    assert user.ui.volumeSelector.currentNode() is volume and user.session.volumeNode is volume
    assert user.ui.addNoduleButton.enabled
    enabled = _tips(user)
    assert all(enabled.values()) and enabled["addNoduleButton"] != reasons["addNoduleButton"]


def test_label_maps_are_no_volumes(user: User) -> None:
    labels = user.host.scene.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
    user.open()
    assert user.ui.volumeSelector.currentNode() is None and user.session.volumeNode is None
    user.host.app.applicationLogic().GetSelectionNode().SetActiveVolumeID(labels.GetID())
    user.settle()
    assert user.session.volumeNode is None


def test_a_volume_under_a_warp_is_refused_in_words(user: User) -> None:
    volume = user.load_volume()
    user.open()
    volume.SetAndObserveTransformNodeID(user.host.scene.add_warp().GetID())
    user.settle()
    user.ui.addNoduleButton.click()
    if user.widget.clicks.armed:
        user.click_at(CENTER)
    text = user.ui.setupLabel.text + " ".join(_reasons(user).values())
    assert user.ids() == [] and "harden" in text.lower()


def test_an_engine_error_is_shown_and_can_be_closed(user: User) -> None:
    user.load_volume()
    user.open()
    user.ui.addNoduleButton.click()
    user.engine.error = "There is not enough memory for this volume"
    user.click_at(CENTER)
    assert user.ui.setupFrame.visible and "not enough memory" in user.ui.setupLabel.text
    user.engine.error = None
    user.ui.setupButton.click()
    assert not user.ui.setupFrame.visible
    if not user.widget.clicks.armed:
        user.ui.addNoduleButton.click()
    user.click_at(CENTER)
    assert any(user.mask(segment).any() for segment in user.ids())


def test_a_model_that_does_not_load_is_an_error_with_a_way_out(user: User) -> None:
    user.engine.error = "The file is no checkpoint of this module"
    user.load_volume()
    user.open()
    assert user.session.state.name == "ERROR"
    assert "no checkpoint" in user.ui.setupLabel.text and user.ui.setupFrame.visible
    assert "no checkpoint" in _reasons(user)["addNoduleButton"]


def test_the_bar_and_cancel_appear_for_long_work_only(user: User) -> None:
    user.load_volume()
    user.open()
    user.ui.addNoduleButton.click()
    assert user.ui.statusStack.currentIndex == 0
    user.engine.gate.clear()
    timer = user.widget.panel._progress._timer
    delay, timer.interval = timer.interval, 60_000  # a busy machine is slower than any delay
    user.click_at(CENTER, settle=False)
    user.host.process(0.05)
    assert user.ui.statusStack.currentIndex == 0 and timer.active, "short work must not flicker"
    assert delay == 300
    timer.interval = 0
    user.host.wait(lambda: user.ui.statusStack.currentIndex == 1)
    assert user.ui.cancelButton.enabled and user.ui.cancelButton.toolTip
    user.ui.cancelButton.click()
    assert not user.ui.cancelButton.enabled
    user.settle()
    assert user.ui.statusStack.currentIndex == 0
    user.engine.gate.set()
    user.settle()


def test_segment_all_shows_progress_and_the_slider_shows_more_or_fewer(user: User) -> None:
    user.load_volume()
    user.open()
    user.engine.found = [((5.0, -4.0, 3.0), 0.95), ((-18.0, 12.0, 9.0), 0.7), ((18.0, 16.0, -9.0), 0.2)]
    assert not user.ui.sensitivitySlider.enabled and user.ui.sensitivitySlider.toolTip
    user.ui.segmentAllButton.click()
    user.settle()
    shown = len(user.ids())
    assert 1 <= shown <= 3 and user.ui.sensitivitySlider.enabled
    user.ui.sensitivitySlider.value = 1.0
    user.settle()
    assert len(user.ids()) == 3
    asked = len(user.engine.asked("Generate"))
    user.ui.sensitivitySlider.value = 0.0
    user.settle()
    assert len(user.ids()) < 3 and len(user.engine.asked("Generate")) == asked
    user.ui.sensitivitySlider.value = 1.0
    user.settle()
    user.ui.undoButton.click()
    user.settle()
    assert user.ids() == []
    user.ui.redoButton.click()
    user.settle()
    assert len(user.ids()) == 3


def test_segment_all_can_be_canceled_and_keeps_what_was_found(user: User) -> None:
    user.load_volume()
    user.open()
    user.engine.found = [((5.0, -4.0, 3.0), 0.95), ((-18.0, 12.0, 9.0), 0.9), ((18.0, 16.0, -9.0), 0.9)]
    user.engine.pause_after = 2
    user.ui.segmentAllButton.click()
    user.host.wait(lambda: user.ui.statusStack.currentIndex == 1)
    assert user.session.state.name == "GENERATING"
    user.host.wait(lambda: user.ui.progressBar.value == 2)
    assert user.ui.progressBar.maximum == 3
    assert not user.ui.segmentAllButton.enabled and user.ui.segmentAllButton.toolTip
    user.ui.cancelButton.click()
    user.settle()
    assert len(user.ids()) == 2 and user.session.state.name == "READY"


def test_a_long_progress_text_is_cut_and_whole_in_the_tool_tip(user: User) -> None:
    user.load_volume()
    user.open()
    panel = user.widget.panel
    panel._progress._showBar()
    user.host.process()
    text = f"Looking for nodules, about 2 min left (2 of 3, CT chest with contrast {'B60f ' * 20}that no panel holds)"
    panel._progress.setProgress(1, 3, text)
    shown = user.ui.progressLabel.text
    assert user.ui.progressLabel.wordWrap and user.ui.progressLabel.toolTip == text
    assert shown != text and "…" in shown and shown.startswith("Looking for nodules") and shown.endswith("holds)")
    assert user.ui.progressLabel.heightForWidth(user.ui.progressLabel.width) <= user.ui.statusStack.height
    panel._progress.setProgress(1, 3, "Looking for nodules")
    assert user.ui.progressLabel.text == "Looking for nodules"


def test_clicks_are_answered_while_all_nodules_are_looked_for(user: User) -> None:
    user.load_volume()
    user.open()
    user.engine.found = [((-18.0, 12.0, 9.0), 0.9), ((18.0, 16.0, -9.0), 0.9)]
    user.engine.pause_after = 1
    user.ui.segmentAllButton.click()
    user.host.wait(lambda: user.ui.progressBar.value == 1)
    user.ui.addNoduleButton.click()
    user.click_at(CENTER, settle=False)
    user.host.wait(lambda: len(user.ids()) == 1 and user.mask(user.ids()[0]).any())
    user.engine.pause_after = None
    user.settle()
    assert len(user.ids()) == 3


class _TorchLogic:
    """PyTorchUtils.PyTorchUtilsLogic as the PyTorch extension has it."""

    answer: Any = None
    asked: list[Any] = []

    def installTorch(self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None):
        self.asked.append(forceComputationBackend)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def without_torch(user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """PyTorch is not installed; the PyTorch extension is not either."""
    import SAMMed3DLib.gui.model_panel as model_panel
    import SAMMed3DLib.torch_setup.install as torch_install

    present = torch_install.TorchState.PRESENT
    absent = torch_install.TorchState.MISSING
    user.torch = False
    monkeypatch.setattr(model_panel, "torchAvailable", lambda: user.torch)
    monkeypatch.setattr(
        torch_install.TorchInstaller,
        "__init__",
        lambda self, services=None, state=None: vars(self).update(
            _services=torch_install.SlicerServices(), _state=lambda: present if user.torch else absent
        ),
    )
    return user


def test_without_pytorch_one_button_leads_on(without_torch: User, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    user = without_torch
    user.load_volume()
    user.open()
    assert user.session.state.name == "NO_TORCH" and user.engine.requests == []
    assert user.ui.setupFrame.visible and user.ui.setupButton.text == "Install PyTorch"
    assert "PyTorch" in _reasons(user)["addNoduleButton"]
    user.ui.setupButton.click()
    assert "PyTorch extension" in user.ui.setupLabel.text

    extension = types.ModuleType("PyTorchUtils")
    extension.PyTorchUtilsLogic = _TorchLogic  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    monkeypatch.setattr(_TorchLogic, "asked", [])
    monkeypatch.setattr(_TorchLogic, "answer", RuntimeError("no wheel for this driver"))
    user.ui.setupButton.click()
    assert user.ui.setupFrame.visible and user.ui.cpuOnlyButton.visible
    monkeypatch.setattr(_TorchLogic, "answer", None)
    user.ui.setupButton.click()  # declined: nothing happens
    assert user.session.state.name == "NO_TORCH"
    monkeypatch.setattr(_TorchLogic, "answer", object())
    monkeypatch.setattr(_TorchLogic, "installTorch", _installing(user))
    user.ui.setupButton.click()
    user.settle()
    assert user.torch and user.session.state.name in ("READY", "NO_TORCH")


def _installing(user: User) -> Any:
    def install(self: Any, **options: Any) -> object:
        user.torch = True
        return object()

    return install


def test_a_missing_checkpoint_leads_to_the_model_section(user: User, tmp_path: Path) -> None:
    import slicer

    user.load_volume()
    user.open()
    names = [user.ui.modelCombo.itemText(index) for index in range(user.ui.modelCombo.count)]
    absent = next(index for index, name in enumerate(names) if "download" in name)
    user.ui.modelSection.collapsed = True
    user.ui.modelCombo.setCurrentIndex(absent)
    user.settle()
    assert user.session.state.name == "NO_WEIGHTS"
    assert user.ui.setupFrame.visible and "download" in _reasons(user)["addNoduleButton"].lower()
    user.ui.setupButton.click()
    assert not user.ui.modelSection.collapsed and user.ui.downloadButton.enabled
    user.ui.modelCombo.setCurrentIndex(0)
    user.settle()
    assert user.session.state.name == "READY"
    assert slicer.app.userSettings().value("SAMMed3D/Model")


def test_the_text_of_every_state_is_shown_somewhere(user: User) -> None:
    user.open()
    assert user.ui.statusLabel.text
    user.load_volume()
    user.settle()
    assert "Click nodules" in user.ui.statusLabel.text
    user.ui.addNoduleButton.click()
    assert "Click" in user.ui.statusLabel.text


def test_everything_that_can_be_used_has_a_tool_tip_at_any_time(user: User) -> None:
    kinds = (
        "QPushButton",
        "QToolButton",
        "QCheckBox",
        "QComboBox",
        "QTableWidget",
        "ctkSliderWidget",
        "qMRMLNodeComboBox",
    )

    def bare() -> list[str]:
        return [
            name
            for name, widget in vars(user.ui).items()
            if widget.className() in kinds and not name.startswith("qt_") and not widget.toolTip
        ]

    user.open()
    assert bare() == []
    user.load_volume()
    user.settle()
    assert bare() == []
    user.ui.addNoduleButton.click()
    user.click_at(CENTER)
    assert bare() == []
