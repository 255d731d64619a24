"""Entering, leaving, reloading, closing scenes, deleting nodes: nothing breaks, nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from gui.slicer_user import User

CENTER, ELSEWHERE = (5.0, -4.0, 3.0), (-18.0, 12.0, 9.0)


@pytest.fixture
def one(user: User) -> User:
    """One nodule, still armed."""
    user.load_volume()
    user.open()
    user.ui.addNoduleButton.click()
    user.click_at(CENTER)
    assert len(user.ids()) == 1
    return user


def _shortcuts(user: User) -> int:
    from PySide6.QtGui import QShortcut

    user.host.process()
    return len(user.host._window.findChildren(QShortcut))


def _armed_views(user: User) -> list[str]:
    """Views that show a pointer of our own."""
    from PySide6.QtCore import Qt

    views = user.host.app.layoutManager()
    return [
        name
        for name in views.sliceViewNames()
        if views.sliceWidget(name).sliceView().cursor().shape() == Qt.CursorShape.BitmapCursor
    ]


def test_keys_and_clicks_end_with_the_module(one: User) -> None:
    installed = _shortcuts(one)
    assert installed >= 9
    one.host.select("SAMMed3D")  # entering twice
    assert _shortcuts(one) == installed
    one.host.select(None)
    assert _shortcuts(one) == 0 and not one.widget.clicks.armed
    one.click_at(ELSEWHERE)
    one.press("Ctrl+Z")
    assert len(one.ids()) == 1
    assert _armed_views(one) == []


def test_the_cursor_tells_the_polarity_while_armed(one: User) -> None:
    view = one.host.app.layoutManager().sliceWidget("Red").sliceView()
    plus = view.cursor().pixmap().toImage()
    assert _armed_views(one) == ["Red", "Green", "Yellow"]
    one.press("S")
    assert view.cursor().pixmap().toImage() != plus and len(_armed_views(one)) == 3
    one.press("Esc")
    assert _armed_views(one) == []


def test_coming_back_goes_on(one: User) -> None:
    (segment,) = one.ids()
    before = one.mask(segment)
    one.host.select(None)
    one.open()
    assert one.ids() == [segment] and one.session.selectedId in (segment, None)
    one.session.select(segment)
    one.ui.addModeButton.click()
    one.click_at(np.add(CENTER, (4.0, 0.0, 0.0)))
    assert one.mask(segment).sum() > before.sum()


def test_nothing_of_the_panel_works_after_unloading(one: User) -> None:
    widget, panel = one.widget, one.widget.panel
    one.host.select(None)
    widget.cleanup()
    widget.cleanup()
    assert widget.panel is None and not panel._worker.isBusy
    one.view().click(150, 150)
    one.host.scene.scene.Clear(0)
    one.host.process(0.05)
    assert widget._parameterNode is None


def test_reload_makes_a_new_panel_that_works(one: User, monkeypatch: pytest.MonkeyPatch) -> None:
    old, old_panel, (segment,) = one.widget, one.widget.panel, one.ids()
    installed = _shortcuts(one)
    one.press("N")
    view = one.view()
    view.jump(ELSEWHERE)
    view.move(*view.to_pixel(ELSEWHERE))
    one.host.wait(lambda: one.session.previewed is not None)
    _patch_engine_after_reload(one, monkeypatch)
    old.onReload()
    assert old_panel.session.previewed is None and not _previews(one)
    one.settle()
    assert one.widget is not old and one.widget.panel is not old_panel
    assert _shortcuts(one) == installed
    assert one.ids() == [segment], "the nodule is still there"
    one.ui.addNoduleButton.click()
    one.click_at(ELSEWHERE)
    assert len(one.ids()) == 2
    one.press("Ctrl+Z")
    assert len(one.ids()) == 1


def _previews(user: User) -> list[Any]:
    import slicer.util

    nodes = slicer.util.getNodesByClass("vtkMRMLModelNode", user.host.scene.scene)
    return [node for node in nodes if node.GetAttribute("SAMMed3D.Preview")]


def _patch_engine_after_reload(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is imported anew: its worker gets the fake engine again."""
    import importlib

    import slicer.util

    original = slicer.util.reloadScriptedModule

    def reload(name: str) -> None:
        monkeypatch.setattr(importlib.import_module("SAMMed3DLib.gui.panel"), "Engine", lambda: user.engine)
        original(name)

    monkeypatch.setattr(slicer.util, "reloadScriptedModule", reload)


def test_closing_the_scene_while_predicting(one: User) -> None:
    one.engine.gate.clear()
    one.click_at(ELSEWHERE, settle=False)
    one.host.process(0.02)
    one.host.scene.scene.Clear(0)
    one.engine.gate.set()
    one.settle()
    assert one.session.state.name == "NO_VOLUME" and one.ui.noduleTable.rowCount == 0
    assert not one.ui.undoButton.enabled and not one.widget.clicks.armed
    assert one.host.scene.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    one.load_volume("Second")
    one.settle()
    one.ui.addNoduleButton.click()
    one.click_at(ELSEWHERE)
    assert len(one.ids()) == 1 and one.mask(one.ids()[0]).any()


def test_closing_the_scene_in_another_module(one: User) -> None:
    one.host.select(None)
    one.host.scene.scene.Clear(0)
    one.host.process(0.02)
    assert one.session.volumeNode is None and one.session.state.name == "NO_VOLUME"
    one.load_volume()
    one.open()
    assert one.session.state.name == "READY" and one.ids() == []


@pytest.mark.parametrize("victim", ["volumeNode", "segmentationNode", "promptsNode"])
@pytest.mark.parametrize("busy", [False, True])
def test_any_node_may_be_deleted(one: User, victim: str, busy: bool) -> None:
    if busy:
        one.engine.gate.clear()
        one.click_at(np.add(CENTER, (4.0, 0.0, 0.0)), settle=False)
        one.host.process(0.02)
    one.host.scene.scene.RemoveNode(getattr(one.session, victim))
    one.engine.gate.set()
    one.settle()
    if victim == "volumeNode":
        assert one.session.state.name == "NO_VOLUME" and not one.ui.addNoduleButton.enabled
        one.load_volume("Another")
        one.settle()
    if not one.widget.clicks.armed:
        one.ui.addNoduleButton.click()
    one.ui.nextNoduleButton.click()
    one.click_at(ELSEWHERE)
    assert any(one.mask(segment)[tuple(_voxel(ELSEWHERE))] for segment in one.ids())


def _voxel(ras: Any) -> tuple[int, ...]:
    return tuple(round(x) for x in ((ras[2] + 30.0) / 1.5, (36.0 - ras[1]) / 1.2, (36.0 - ras[0]) / 1.2))


def test_another_volume_gets_its_own_nodules(one: User) -> None:
    first = one.session.segmentationNode
    one.engine.gate.clear()
    one.click_at(np.add(CENTER, (4.0, 0.0, 0.0)), settle=False)
    one.host.process(0.02)
    second = one.load_volume("Second", seed=1)
    one.ui.volumeSelector.setCurrentNode(second)
    one.engine.gate.set()
    one.settle()
    assert one.session.volumeNode is second and one.ids() == []
    if not one.widget.clicks.armed:
        one.ui.addNoduleButton.click()
    one.click_at(ELSEWHERE)
    assert one.session.segmentationNode is not first and len(one.ids()) == 1
    assert first.GetSegmentation().GetNumberOfSegments() == 1
    one.ui.volumeSelector.setCurrentNode(one.host.scene.scene.GetFirstNodeByName("CT"))
    one.settle()
    assert one.session.segmentationNode is first and len(one.ids()) == 1


def test_a_hand_edit_is_the_start_of_the_next_click(one: User) -> None:
    import slicer.util

    (segment,) = one.ids()
    edited = one.mask(segment)
    edited[30:34, 40:50, 40:50] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        edited.astype(np.uint8), one.session.segmentationNode, segment, one.session.volumeNode
    )
    one.settle()
    one.click_at(np.add(CENTER, (4.0, 0.0, 0.0)))
    after = one.mask(segment)
    assert after[30:34, 40:50, 40:50].all(), "what was drawn by hand stays"
    one.ui.undoButton.click()
    one.settle()
    np.testing.assert_array_equal(one.mask(segment), edited)


def test_a_transformed_volume_keeps_its_nodules(one: User) -> None:
    (segment,) = one.ids()
    before = one.mask(segment)
    matrix = np.array([[0.0, -1, 0, 30], [1, 0, 0, -20], [0, 0, 1, 15], [0, 0, 0, 1]])
    transform = one.host.scene.add_transform(matrix)
    one.session.volumeNode.SetAndObserveTransformNodeID(transform.GetID())
    one.settle()
    assert one.session.segmentationNode.GetTransformNodeID() == transform.GetID()
    np.testing.assert_array_equal(one.mask(segment), before)
    if not one.widget.clicks.armed:
        one.ui.addNoduleButton.click()
    one.session.select(segment)
    moved = (matrix @ np.append(np.add(CENTER, (4.0, 0.0, 0.0)), 1.0))[:3]
    one.click_at(moved)
    after = one.mask(segment)
    assert after.sum() > before.sum() and (after & before).sum() == before.sum()


def test_a_saved_scene_goes_on_where_it_was(one: User, tmp_path: Path) -> None:
    one.click_at(np.add(CENTER, (4.0, 0.0, 0.0)))
    (segment,) = one.ids()
    one.ui.overlapCheckBox.click()
    before = one.mask(segment)
    one.host.scene.save(tmp_path / "nodules.mrb")
    one.host.scene.scene.Clear(0)
    one.settle()
    assert one.ids() == [] and one.session.options.doNotOverlap, "on in new scenes"
    one.host.scene.load(tmp_path / "nodules.mrb")
    one.settle()
    assert one.ids() == [segment]
    np.testing.assert_array_equal(one.mask(segment), before)
    assert len(one.session.store.prompts(segment)) == 2 and not one.session.options.doNotOverlap
    one.session.select(segment)
    one.ui.addModeButton.click()
    one.click_at(np.add(CENTER, (-4.0, 0.0, 0.0)))
    after = one.mask(segment)
    assert one.ids() == [segment] and (after & before).sum() == before.sum() and after.sum() > before.sum()


def test_only_our_own_nodes_are_added(user: User) -> None:
    user.load_volume()
    assert user.host.app.layoutManager().threeDWidget(0) is not None  # the application has one from the start
    before = _classes(user)
    user.open()
    user.ui.addNoduleButton.click()
    user.click_at(CENTER)
    added = _classes(user)
    for name in before:
        added.remove(name)
    markups = "Fiducial" if "vtkMRMLMarkupsFiducialDisplayNode" in added else ""
    lines = user.host.scene.scene.GetNodesByClass("vtkMRMLMarkupsLineNode")
    assert not any(lines.GetItemAsObject(n).GetSaveWithScene() for n in range(2)), "of the measure: not of the scene"
    (model,) = _previews(user)
    assert not model.GetSaveWithScene() and not model.GetDisplayNode().GetSaveWithScene()
    assert sorted(added) == [
        *["vtkMRMLMarkupsDisplayNode"] * (2 if markups else 3),
        *["vtkMRMLMarkupsFiducialDisplayNode"] * bool(markups),
        "vtkMRMLMarkupsFiducialNode",
        *["vtkMRMLMarkupsLineNode"] * 2,
        "vtkMRMLModelDisplayNode",
        "vtkMRMLModelNode",
        "vtkMRMLScriptedModuleNode",
        "vtkMRMLSegmentationDisplayNode",
        "vtkMRMLSegmentationNode",
    ]


def _classes(user: User) -> list[str]:
    scene = user.host.scene.scene
    return [scene.GetNthNode(index).GetClassName() for index in range(scene.GetNumberOfNodes())]


def test_an_existing_point_list_can_be_picked_as_prompts(user: User) -> None:
    user.load_volume()
    points = user.host.scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Mine")
    points.AddControlPoint(*CENTER)
    points.AddControlPoint(*ELSEWHERE)
    user.open()
    user.ui.promptsSelector.setCurrentNode(points)
    user.settle()
    assert user.session.promptsNode is points
    masks = [user.mask(segment) for segment in user.ids()]
    assert masks and np.logical_or.reduce(masks)[_voxel(CENTER)]


def test_options_are_kept_by_the_scene_and_followed(one: User) -> None:
    parameters = one.widget._parameterNode
    one.ui.overlapCheckBox.click()
    one.ui.everyClickCheckBox.click()
    assert not parameters.doNotOverlap and parameters.everyClickIsNew
    assert not one.session.options.doNotOverlap and one.session.options.everyClickIsNew
    parameters.doNotOverlap = True
    assert one.ui.overlapCheckBox.checked and one.session.options.doNotOverlap
    one.ui.clickSelectsCheckBox.click()
    one.ui.zoomCheckBox.click()
    one.ui.measureCheckBox.click()
    options = one.session.options
    assert not (options.selectsInside or options.zoomsIn or options.showsMeasure)
    assert options.showsPreview
    one.ui.previewCheckBox.click()
    assert not options.showsPreview and not parameters.showPreview
    display = one.session.segmentationNode.GetDisplayNode()
    one.ui.outlineSlider.value, one.ui.fillSlider.value = 3.0, 0.5
    assert (display.GetSliceIntersectionThickness(), display.GetOpacity2DFill()) == (3, 0.5)
    one.ui.show3dButton.click()
    one.settle()
    one.host.process(0.6)
    assert parameters.show3d
    assert one.session.segmentationNode.GetSegmentation().ContainsRepresentation("Closed surface")
    one.ui.show3dButton.click()
    one.settle()
    assert not parameters.show3d


def test_without_a_main_window_the_module_opens(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import SAMMed3DLib.gui.panel
    from gui.slicer_user import MODULE, User
    from standin.host import Host

    monkeypatch.setattr(SAMMed3DLib.gui.panel, "Engine", lambda: engine)
    host = Host(with_layout=False)
    host.load(MODULE)
    user = User(host, engine)
    user.open()
    user.ui.addNoduleButton.click()
    assert host.close() == []
