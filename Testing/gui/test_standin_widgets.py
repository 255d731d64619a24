"""The simulated ctk and qMRML widgets, .ui loader and parameter nodes behave as their originals' source says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from standin.host import Host

_UI = """<ui version="4.0"><class>Test</class><widget class="qMRMLWidget" name="Test">
<layout class="QVBoxLayout" name="box"><item><widget class="{kind}" name="selector">
<property name="{property}"><bool>false</bool></property>
<property name="SlicerParameterName" stdset="0"><string>volume</string></property></widget></item></layout></widget>
<connections><connection><sender>Test</sender><signal>{signal}</signal><receiver>selector</receiver>
<slot>{slot}</slot></connection></connections></ui>"""
_GOOD = {
    "kind": "qMRMLNodeComboBox",
    "property": "addEnabled",
    "signal": "mrmlSceneChanged(vtkMRMLScene*)",
    "slot": "setMRMLScene(vtkMRMLScene*)",
}


@pytest.fixture
def selector(host: Host) -> Any:
    """A selector of volumes without None and without actions."""
    import slicer

    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.addEnabled = box.removeEnabled = False
    box.setMRMLScene(slicer.mrmlScene)
    return box


def _volume(host: Host, name: str = "CT") -> Any:
    return host.scene.add_volume(np.zeros((3, 4, 5), dtype=np.int16), name=name)


def test_a_selector_takes_the_first_volume_and_signals_in_order(host: Host, selector: Any) -> None:
    seen: list[Any] = []
    selector.connect("currentNodeIDChanged(QString)", lambda name: seen.append(name))
    selector.connect("currentNodeChanged(bool)", lambda valid: seen.append(valid))
    selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: seen.append(node))
    first = _volume(host)
    assert seen == [first, True, first.GetID()]
    second = _volume(host, "Second")
    assert selector.currentNode() is first and selector.nodeCount() == 2 and len(seen) == 3
    selector.setCurrentNode(second)
    assert seen[3] is second
    host.scene.scene.RemoveNode(second)
    assert selector.currentNode() is first
    host.scene.scene.Clear(0)
    assert selector.currentNode() is None and seen[-3:] == [None, False, ""]


def test_a_selector_with_menu_actions_goes_to_another_node_when_its_own_is_removed(host: Host, selector: Any) -> None:
    """As Slicer 5.13 was seen to do."""
    selector.renameEnabled = True
    _volume(host)
    second = _volume(host, "Second")
    assert selector.currentNode() is None
    selector.setCurrentNode(second)
    seen: list[Any] = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: seen.append(node))
    host.scene.scene.RemoveNode(second)
    assert [node.GetName() for node in seen] == ["CT"]


def test_a_selector_filters(host: Host, selector: Any) -> None:
    labels = host.scene.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    assert selector.currentNode() is labels
    selector.hideChildNodeTypes = ["vtkMRMLLabelMapVolumeNode"]
    assert selector.nodeCount() == 0
    volume = _volume(host)
    assert selector.nodeCount() == 1
    selector.showChildNodeTypes = False
    volume.SetHideFromEditors(1)
    host.scene.scene.AddNewNodeByClass("vtkMRMLModelNode")
    selector.noneEnabled = True
    assert selector.nodeCount() == 0 and selector.currentNode() is None


def test_a_slider_clamps_and_a_section_collapses(host: Host) -> None:
    import ctk
    import qt

    slider, seen = ctk.ctkSliderWidget(), []
    slider.minimum, slider.maximum, slider.decimals = 0.0, 1.0, 2
    slider.connect("valueChanged(double)", lambda value: seen.append(value))
    slider.value = 0.456
    slider.setValue(7.0)
    assert seen == [0.456, 1.0]
    with pytest.raises(AttributeError):
        slider.setMinimum(0.0)  # no slot in ctk: only the property is there

    section = ctk.ctkCollapsibleButton()
    child = qt.QPushButton("inside")
    qt.QVBoxLayout(section).addWidget(child)
    section.show()
    assert section.checked and not section.collapsed and child.visible
    section.collapsed = True
    assert not section.checked and not child.visible


def test_ui_files_are_checked(host: Host, tmp_path: Path) -> None:
    import slicer

    from standin.pythonqt import SignalError
    from standin.ui_loader import UiError

    def load(**changes: str) -> Any:
        path = tmp_path / "Test.ui"
        path.write_text(_UI.format(**(_GOOD | changes)), encoding="utf-8")
        return slicer.util.loadUI(str(path))

    widget = load()
    ui = slicer.util.childWidgetVariables(widget)
    assert ui.selector.addEnabled is False and ui.selector.SlicerParameterName == "volume"
    widget.setMRMLScene(slicer.mrmlScene)
    assert ui.selector.mrmlScene() is slicer.mrmlScene
    with pytest.raises(UiError, match="no property"):
        load(property="adEnabled")
    with pytest.raises(UiError, match="unknown widget classes"):
        load(kind="qMRMLNodeCombo")
    with pytest.raises(UiError, match="no slot"):
        load(slot="setMrmlScene(vtkMRMLScene*)")
    with pytest.raises(SignalError):
        load(signal="mrmlSceneChanged()")


def test_parameters_follow_widgets_and_the_other_way(host: Host, selector: Any) -> None:
    import ctk
    import qt
    import slicer
    from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

    class Parameters:
        volume: slicer.vtkMRMLScalarVolumeNode
        level: Annotated[float, WithinRange(0, 1)] = 0.5
        overlap: bool = True

    Parameters.__annotations__.update(  # this file's annotations are texts that name local modules
        volume=slicer.vtkMRMLScalarVolumeNode, level=Annotated[float, WithinRange(0, 1)], overlap=bool
    )
    wrapper = parameterNodeWrapper(Parameters)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    slider, check = ctk.ctkSliderWidget(), qt.QCheckBox()
    for widget, name in ((selector, "volume"), (slider, "level"), (check, "overlap")):
        widget.setProperty("SlicerParameterName", name)
    ui = type("", (), {})()
    ui.a, ui.b, ui.c = selector, slider, check
    volume = _volume(host)
    parameters = wrapper(node)
    assert parameters.volume is None and parameters.level == 0.5 and parameters.overlap
    tag = parameters.connectGui(ui)
    assert selector.currentNode() is None, "binding writes the parameter into the widget"
    assert (slider.maximum, slider.value, check.checked) == (1.0, 0.5, True)
    selector.setCurrentNode(volume)
    slider.value = 0.25
    check.click()
    assert parameters.volume is volume and parameters.level == 0.25 and not parameters.overlap
    assert (node.GetParameter("level"), node.GetParameter("overlap")) == ("0.25", "False")
    parameters.overlap = True
    assert check.checked
    with pytest.raises(ValueError, match="within range"):
        parameters.level = 2.0
    parameters.disconnectGui(tag)
    check.click()
    assert parameters.overlap
