"""Control points as prompts: what the store reads, changes and signals, with Slicer's own markups nodes."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import slicer.util
from numpy.testing import assert_allclose

from SAMMed3DLib.scene.prompt_store import Prompt, PromptStore, createPrompts, findPrompts
from SAMMed3DLib.scene.volume_geometry import SceneError
from scene.events import log_of_store
from scene.transforms import rigid


@pytest.fixture
def volume(slicer_scene):
    return slicer_scene.add_volume(np.zeros((10, 12, 14), np.int16), name="Chest")


@pytest.fixture
def store(volume):
    store = PromptStore(createPrompts(volume))
    yield store
    store.close()


def place(store, ras=(1.0, 2.0, 3.0)) -> str:
    """A point placed by a script."""
    return store.node.GetNthControlPointID(store.node.AddControlPointWorld(*ras))


def preview(node) -> None:
    """The point under the mouse pointer in Place mode."""
    with slicer.util.NodeModify(node):
        index = node.AddControlPointWorld(5, 5, 5)
        node.SetNthControlPointPositionWorld(index, 5, 5, 5, node.PositionPreview)


def point(store, point_id):
    index = store.node.GetNthControlPointIndexByID(point_id)
    return (
        store.node.GetNthControlPointDescription(index),
        bool(store.node.GetNthControlPointSelected(index)),
        store.node.GetNthControlPointLabel(index),
    )


def test_add_writes_nodule_and_polarity_into_the_point(store) -> None:
    log = log_of_store(store)
    first, second = store.add((1, 2, 3), True, "S_1"), store.add((4, 5, 6), False, "S_1")
    other = store.add((7, 8, 9), True, None)
    assert point(store, first) == ("segment=S_1;label=1", True, "+")
    assert point(store, second) == ("segment=S_1;label=0", False, "-")
    assert point(store, other)[0] == ""
    assert store.prompts("S_1") == [
        Prompt(first, (1.0, 2.0, 3.0), True, "S_1"),
        Prompt(second, (4.0, 5.0, 6.0), False, "S_1"),
    ]
    assert store.untagged() == [Prompt(other, (7.0, 8.0, 9.0), True, None)]
    assert store.prompt(second).ras == (4.0, 5.0, 6.0) and store.segmentIds() == ["S_1"]
    assert log.take() == [], "own changes are no news"


def test_points_placed_by_others_are_signaled_once_defined(store) -> None:
    log = log_of_store(store)
    point_id = place(store)
    assert log.take() == [("placed", point_id)]
    assert store.untagged() == [Prompt(point_id, (1.0, 2.0, 3.0), True, None)]
    store.assign(point_id, "S_1", False)
    assert store.prompts("S_1") == [Prompt(point_id, (1.0, 2.0, 3.0), False, "S_1")] and store.untagged() == []
    store.assign(point_id, None, True)
    assert point(store, point_id)[0] == "" and log.take() == []


def test_previews_are_no_prompts(store) -> None:
    log = log_of_store(store)
    node = store.node
    preview(node)
    index = node.GetNumberOfControlPoints() - 1
    assert node.GetNumberOfControlPoints() == 1 and store.untagged() == [] and log.take() == []
    with pytest.raises(SceneError, match="no position"):
        store.prompt(node.GetNthControlPointID(index))
    node.SetNthControlPointPositionWorld(index, 6, 6, 6, node.PositionPreview)
    assert log.take() == []
    node.SetNthControlPointPositionWorld(index, 7, 7, 7, node.PositionDefined)
    assert log.take() == [("placed", node.GetNthControlPointID(index))]
    preview(node)
    node.RemoveNthControlPoint(1)
    assert log.take() == [], "a preview goes without a word"


def test_moves_by_scripts_are_final(store) -> None:
    point_id = store.add((1, 2, 3), True, "S_1")
    log = log_of_store(store)
    store.node.SetNthControlPointPositionWorld(0, 4, 5, 6)
    assert log.take() == [("moved", point_id, True)] and store.prompt(point_id).ras == (4.0, 5.0, 6.0)
    store.node.SetNthControlPointPositionWorld(0, 4, 5, 6)
    assert log.take() == [], "not moved at all"
    store.move(point_id, (7, 8, 9))
    assert log.take() == [] and store.prompt(point_id).ras == (7.0, 8.0, 9.0)


def test_a_drag_is_live_and_ends_once(store) -> None:
    point_id = store.add((1, 2, 3), True, "S_1")
    log = log_of_store(store)
    node = store.node
    node.InvokeEvent(node.PointStartInteractionEvent)
    for x in (2, 3, 4):
        node.SetNthControlPointPositionWorld(0, x, 2, 3)
    node.SetNthControlPointLocked(0, False)
    assert log.take() == [("moved", point_id, False)] * 3
    node.InvokeEvent(node.PointEndInteractionEvent)
    assert log.take() == [("moved", point_id, True)]
    node.InvokeEvent(node.PointStartInteractionEvent)
    node.InvokeEvent(node.PointEndInteractionEvent)
    assert log.take() == [], "picked up and put down"


def test_removals_name_the_prompt_that_was(store) -> None:
    first, second, third = (store.add((n, 0, 0), n != 1, f"S_{n}") for n in range(3))
    log = log_of_store(store)
    store.node.RemoveNthControlPoint(1)
    assert log.take() == [("removed", second, Prompt(second, (1.0, 0.0, 0.0), False, "S_1"))]
    store.node.RemoveAllControlPoints()
    assert [entry[:2] for entry in log.take()] == [("removed", first), ("removed", third)]
    store.node.RemoveAllControlPoints()
    again = store.add((1, 1, 1), True, "S_1")
    store.remove(again)
    store.remove(again)
    assert log.take() == [] and store.prompts("S_1") == []


def test_the_point_is_gone_when_its_removal_is_signaled(store) -> None:
    """Whoever reacts may change the list: nothing of Slicer's removal is still to come."""
    first, second = store.add((1, 0, 0), True, "S_1"), store.add((2, 0, 0), True, "S_1")
    left: list[list[str]] = []
    store.removed.connect(lambda point_id, prompt: left.append([p.id for p in store.prompts("S_1")]))
    store.removed.connect(lambda point_id, prompt: store.remove(second))
    store.node.RemoveNthControlPoint(0)
    assert left == [[second]] and store.prompts("S_1") == [] and first != second


def test_unset_positions_are_removals_and_setting_them_places_again(store) -> None:
    point_id = store.add((1, 2, 3), False, "S_1")
    log = log_of_store(store)
    store.node.UnsetNthControlPointPosition(0)
    assert log.take() == [("removed", point_id, Prompt(point_id, (1.0, 2.0, 3.0), False, "S_1"))]
    assert store.prompts("S_1") == []
    store.node.SetNthControlPointPositionWorld(0, 4, 5, 6)
    assert log.take() == [("placed", point_id)]
    assert store.prompts("S_1") == [Prompt(point_id, (4.0, 5.0, 6.0), False, "S_1")], "it still knows its nodule"
    store.node.UnsetAllControlPoints()
    assert [entry[:2] for entry in log.take()] == [("removed", point_id)]


def test_flipping_the_selection_flips_the_polarity(store) -> None:
    point_id = store.add((1, 2, 3), True, "S_1")
    log = log_of_store(store)
    store.node.SetNthControlPointSelected(0, False)
    assert log.take() == [("relabelled", point_id)]
    assert point(store, point_id) == ("segment=S_1;label=0", False, "-") and not store.prompt(point_id).positive
    store.node.SetNthControlPointSelected(0, True)
    assert log.take() == [("relabelled", point_id)] and store.prompt(point_id).positive
    store.node.SetNthControlPointLabel(0, "my label")
    store.node.SetNthControlPointLocked(0, True)
    store.node.SetNthControlPointVisibility(0, False)
    assert log.take() == [], "names, locks and visibility are no labels"


def test_editing_the_description_moves_a_prompt_to_another_nodule(store) -> None:
    point_id = store.add((1, 2, 3), True, "S_1")
    log = log_of_store(store)
    store.node.SetNthControlPointDescription(0, "note segment=S_2;label=0")
    assert log.take() == [("relabelled", point_id)]
    assert store.prompt(point_id) == Prompt(point_id, (1.0, 2.0, 3.0), False, "S_2")
    assert point(store, point_id) == ("note segment=S_2;label=0", False, "-")
    store.node.SetNthControlPointDescription(0, "another note segment=S_2;label=0")
    assert log.take() == []
    store.node.SetNthControlPointDescription(0, "")
    assert log.take() == [("relabelled", point_id)] and store.prompt(point_id).segmentId is None


def test_changes_in_one_go(store) -> None:
    first, second = store.add((1, 2, 3), True, "S_1"), store.add((4, 5, 6), True, "S_1")
    log = log_of_store(store)
    with slicer.util.NodeModify(store.node):
        store.node.SetNthControlPointPositionWorld(0, 9, 9, 9)
        store.node.SetNthControlPointPositionWorld(1, 8, 8, 8)
        third = place(store)
    entries = log.take()
    assert sorted(entries, key=str) == [("moved", first, True), ("moved", second, True), ("placed", third)]
    with slicer.util.NodeModify(store.node):
        store.node.RemoveAllControlPoints()
        fourth = place(store, (3, 3, 3))
    entries = log.take()
    assert ("placed", fourth) in entries or fourth in (first, second, third)
    assert [prompt.ras for prompt in store.untagged()] == [(3.0, 3.0, 3.0)] and store.prompts("S_1") == []


def test_arrays_of_points(store) -> None:
    log = log_of_store(store)
    slicer.util.updateMarkupsControlPointsFromArray(store.node, np.array([[1.0, 2, 3], [4, 5, 6]]))
    assert sorted(entry[0] for entry in log.take()) == ["placed", "placed"]
    assert [prompt.ras for prompt in store.untagged()] == [(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)]


def test_quiet_silences_what_is_done_meanwhile(store) -> None:
    log = log_of_store(store)
    with store.quiet():
        with store.quiet():
            place(store)
        point_id = place(store)
        store.node.SetNthControlPointPositionWorld(1, 3, 3, 3)
        store.node.RemoveNthControlPoint(0)
    assert log.take() == []
    store.node.SetNthControlPointPositionWorld(0, 4, 4, 4)
    assert log.take() == [("moved", point_id, True)], "known from then on"


def test_replace_all_restores_prompts_and_their_order(store) -> None:
    ids = [store.add((n, 0, 0), n % 2 == 0, "S_1") for n in range(4)]
    other = store.add((50, 0, 0), True, "S_2")
    before = store.prompts("S_1")
    log = log_of_store(store)

    assert store.replaceAll("S_1", before) == ids, "nothing to change"
    assert store.replaceAll("S_1", before[:2]) == ids[:2] and store.prompts("S_1") == before[:2]
    restored = store.replaceAll("S_1", before)
    assert restored[:2] == ids[:2]
    store.remove(restored[0])
    store.move(restored[1], (9, 9, 9))
    store.assign(restored[2], "S_1", False)
    restored = store.replaceAll("S_1", before)
    now = store.prompts("S_1")
    assert [prompt.id for prompt in now] == restored
    assert [(prompt.ras, prompt.positive) for prompt in now] == [(prompt.ras, prompt.positive) for prompt in before]
    assert store.replaceAll("S_1", []) == [] and store.prompts("S_1") == []
    assert [prompt.id for prompt in store.prompts("S_2")] == [other] and log.take() == []


def test_show_only_hides_the_prompts_of_others(store) -> None:
    for number in range(4):
        store.add((number, 0, 0), True, f"S_{number % 2}")
    place(store)
    log = log_of_store(store)

    def visible() -> list[bool]:
        return [bool(store.node.GetNthControlPointVisibility(n)) for n in range(5)]

    store.showOnly("S_1")
    assert visible() == [False, True, False, True, True], "points of no nodule stay in sight"
    store.showOnly("S_0")
    assert visible() == [True, False, True, False, True]
    store.showOnly(None)
    assert visible() == [True] * 5 and log.take() == []


def test_positions_are_world_and_moving_the_list_moves_nothing(slicer_scene, store) -> None:
    matrix = rigid()
    log = log_of_store(store)
    first = store.add((1, 2, 3), True, "S_1")
    store.node.SetAndObserveTransformNodeID(slicer_scene.add_transform(matrix).GetID())
    assert log.take() == []
    assert_allclose(store.prompt(first).ras, matrix[:3, :3] @ (1, 2, 3) + matrix[:3, 3], atol=1e-9)
    second = store.add((5, 6, 7), True, "S_1")
    assert_allclose(store.prompt(second).ras, (5, 6, 7), atol=1e-9)
    store.move(first, (1, 2, 3))
    assert_allclose(store.prompt(first).ras, (1, 2, 3), atol=1e-9)


def test_lists_of_others_become_prompts_with_their_labels_kept(slicer_scene) -> None:
    node = slicer_scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "theirs")
    node.AddControlPointWorld((1, 2, 3), "tumor A")
    node.AddControlPointWorld((4, 5, 6), "tumor B")
    node.SetNthControlPointDescription(1, "big segment=S_7;label=0")
    node.SetNthControlPointSelected(0, False)
    store = PromptStore(node)
    first, second = (node.GetNthControlPointID(n) for n in range(2))
    assert store.untagged() == [Prompt(first, (1.0, 2.0, 3.0), False, None)]
    assert store.prompts("S_7") == [Prompt(second, (4.0, 5.0, 6.0), False, "S_7")]
    assert not node.GetNthControlPointSelected(1), "a tag read from a file shows in the color"
    store.assign(first, "S_1", True)
    assert [node.GetNthControlPointLabel(n) for n in range(2)] == ["tumor A", "tumor B"]
    store.close()


def test_closed_stores_are_deaf(store) -> None:
    log = log_of_store(store)
    store.close()
    place(store)
    store.node.RemoveAllControlPoints()
    assert log.take() == []
    store.close()


def test_a_deleted_node_harms_nobody(slicer_scene, volume) -> None:
    node = createPrompts(volume)
    store = PromptStore(node)
    point_id = store.add((1, 2, 3), True, "S_1")
    slicer_scene.scene.RemoveNode(node)
    del node
    gc.collect()
    assert store.prompt(point_id).ras == (1.0, 2.0, 3.0)
    store.remove(point_id)
    store.close()


def test_what_cannot_be_done_is_named(slicer_scene, volume, store) -> None:
    with pytest.raises(SceneError, match="No point list"):
        PromptStore(None)
    with pytest.raises(SceneError, match="No point list"):
        PromptStore(slicer_scene.scene.AddNewNodeByClass("vtkMRMLMarkupsCurveNode"))
    for change in (store.prompt, lambda p: store.move(p, (1, 2, 3)), lambda p: store.assign(p, "S", True)):
        with pytest.raises(SceneError, match="not there any more"):
            change("99")
    store.node.SetMaximumNumberOfControlPoints(0)
    with pytest.raises(SceneError, match="takes no more points"):
        store.add((1, 2, 3), True, "S_1")
    store.node.SetMaximumNumberOfControlPoints(-1)
    store.node.SetFixedNumberOfControlPoints(True)
    with pytest.raises(SceneError, match="takes no more points"):
        store.add((1, 2, 3), True, "S_1")
    assert store.untagged() == []


def test_the_list_is_made_for_its_volume(slicer_scene, volume) -> None:
    transform = slicer_scene.add_transform(np.diag([1.0, -1.0, 1.0, 1.0]))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    theirs = slicer_scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "theirs")
    assert findPrompts(volume) is None and findPrompts(None) is None
    node = createPrompts(volume)
    assert findPrompts(volume) is node is not theirs
    assert node.GetName() == "Chest prompts" and node.GetTransformNodeID() == transform.GetID()
    assert node.GetSaveWithScene() and node.GetDisplayNode() is not None
    other = slicer_scene.add_volume(np.zeros((3, 4, 5), np.int16))
    assert findPrompts(other) is None
