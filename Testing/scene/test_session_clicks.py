"""The session from clicks to segments: every way in which points come, move and go."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from vtk.util import numpy_support

from SAMMed3DLib.scene.states import State
from SAMMed3DLib.scene.volume_geometry import VolumeGeometry
from SAMMed3DLib.worker.requests import AXES, Predict, Segmented
from scene.session_bench import SHAPE
from scene.session_fakes import place as slices
from scene.transforms import rigid


def test_the_first_click_makes_a_nodule_and_fills_it(bench):
    session = bench.session
    segmentId = session.click(bench.ras(10, 12, 14))
    assert session.selectedId == segmentId
    assert session.state is State.LOADING and session.isBusy
    assert session.review.rows()[0].isPending
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    row = session.review.rows()[0]
    assert (row.segmentId, row.name, row.status, row.isPending) == (segmentId, "Nodule 1", "AI", False)
    assert (row.volumeMm3, row.predictedIou) == (125.0, 0.9)
    assert session.state is State.READY and not session.isBusy
    assert session.segmentationNode is not None and session.promptsNode is not None


def test_each_click_without_a_selection_is_a_nodule_of_its_own(bench):
    first = bench.click(10, 12, 14)
    bench.session.select(None)
    second = bench.click(20, 12, 14)
    assert first != second
    assert bench.full(first).sum() == bench.full(second).sum() == 125
    assert [row.name for row in bench.session.review.rows()] == ["Nodule 1", "Nodule 2"]


def test_further_clicks_refine_the_selected_nodule_and_shift_clicks_take_away(bench):
    segmentId = bench.click(10, 12, 14)
    assert bench.click(10, 12, 17) == segmentId
    assert bench.click(10, 12, 20, positive=False) == segmentId
    expected = bench.cubes([(10, 12, 14), (10, 12, 17)])
    expected[8:13, 10:15, 18:23] = 0
    np.testing.assert_array_equal(bench.full(segmentId), expected)


def test_every_click_can_be_made_a_new_nodule(bench):
    bench.session.options.everyClickIsNew = True
    first, second = bench.click(10, 12, 14), bench.click(20, 12, 14)
    assert first != second
    assert bench.click(20, 12, 16, positive=False) == second


def test_clicks_that_come_faster_than_answers_are_all_in_the_last_request(bench):
    segmentId = bench.session.click(bench.ras(10, 12, 14))
    bench.session.click(bench.ras(10, 12, 18))
    bench.session.click(bench.ras(10, 12, 22))
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (10, 12, 18), (10, 12, 22)]))
    assert [len(request.labels) for request in bench.engine.predictions] == [3]


def test_an_earlier_answer_is_shown_while_the_latest_is_on_its_way(bench):
    segmentId = bench.click(10, 12, 14)
    bench.session.click(bench.ras(10, 12, 18))
    bench.worker.runOne()
    bench.session.click(bench.ras(10, 12, 22))
    bench.session.poll()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (10, 12, 18)]))
    assert bench.session.review.rows()[0].isPending
    bench.settle()
    # and the step in between is exact, although its answer came after the third click
    bench.session.undo()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (10, 12, 18)]))
    assert not bench.session.isBusy


def test_a_click_outside_the_volume_is_refused_with_a_message(bench):
    assert bench.session.click((500.0, 0.0, 0.0)) is None
    assert "outside the volume" in bench.errors[-1]
    assert bench.session.review.rows() == [] and bench.points() == []
    assert not bench.session.history.canUndo


def test_taking_away_needs_a_selected_nodule(bench):
    assert bench.session.click(bench.ras(10, 12, 14), positive=False) is None
    assert "Select a nodule" in bench.errors[-1]
    assert bench.points() == []


def test_points_of_the_markups_toolbar_and_of_scripts_are_clicks(bench):
    first = bench.click(10, 12, 14)
    node = bench.session.promptsNode
    node.AddControlPointWorld(*bench.ras(10, 12, 18))
    bench.settle()
    np.testing.assert_array_equal(bench.full(first), bench.cubes([(10, 12, 14), (10, 12, 18)]))
    bench.session.options.polarity = False
    node.AddControlPointWorld(*bench.ras(10, 12, 21))
    bench.settle()
    assert bench.full(first)[10, 12, 20] == 0
    bench.session.options.polarity = True
    bench.session.select(None)
    node.AddControlPointWorld(*bench.ras(25, 12, 14))
    bench.settle()
    assert len(bench.session.review.rows()) == 2


def test_a_toolbar_point_outside_is_removed_again(bench):
    bench.click(10, 12, 14)
    bench.session.promptsNode.AddControlPointWorld(900, 0, 0)
    assert "outside the volume" in bench.errors[-1]
    assert len(bench.points()) == 1


def point_list(bench, *places):
    node = bench.scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "mine")
    for kji in places:
        node.AddControlPointWorld(*bench.ras(*kji))
    return node


def test_each_point_of_a_picked_list_makes_a_nodule(bench):
    node = point_list(bench, (10, 12, 14), (25, 12, 14), (25, 12, 17))
    node.SetNthControlPointSelected(2, False)
    node.AddControlPointWorld(900, 0, 0)
    bench.session.setPrompts(node)
    bench.settle()
    first, second = (row.segmentId for row in bench.session.review.rows())
    np.testing.assert_array_equal(bench.full(first), bench.cubes([(10, 12, 14)]))
    expected = bench.cubes([(25, 12, 14)])
    expected[:, :, 15:] = 0
    np.testing.assert_array_equal(bench.full(second), expected)
    assert node.GetNumberOfControlPoints() == 4 and bench.session.promptsNode is node
    assert "outside the volume" in bench.errors[-1] and bench.session.selectedId is None


def test_the_points_of_a_picked_list_go_into_the_selected_nodule(bench):
    segmentId = bench.click(10, 12, 14)
    bench.session.setPrompts(point_list(bench, (10, 12, 18), (10, 12, 22)))
    bench.settle()
    # the first point is in the other list: its mask stays as the start
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (10, 12, 18), (10, 12, 22)]))
    assert bench.session.selectedId == segmentId and len(bench.session.review.rows()) == 1


def test_a_list_saved_from_another_scene_makes_its_nodules_again(bench, tmp_path):
    bench.click(10, 12, 14)
    bench.click(10, 12, 17)
    bench.session.select(None)
    bench.click(25, 12, 14)
    bench.click(25, 12, 16, positive=False)
    masks = [bench.full(row.segmentId) for row in bench.session.review.rows()]
    description = [bench.session.promptsNode.GetNthControlPointDescription(n) for n in range(4)]
    places = [bench.place(n) for n in range(4)]
    for node in (bench.session.segmentationNode, bench.session.promptsNode):
        bench.scene.scene.RemoveNode(node)
    node = point_list(bench)
    for place, text in zip(places, description, strict=True):
        node.SetNthControlPointDescription(node.AddControlPointWorld(*place), text)
    bench.session.options.everyClickIsNew = True
    bench.session.setPrompts(node)
    bench.settle()
    rows = bench.session.review.rows()
    assert len(rows) == 2 and node.GetNumberOfControlPoints() == 4
    for row, mask in zip(rows, masks, strict=True):
        np.testing.assert_array_equal(bench.full(row.segmentId), mask)


def test_dragging_a_point_is_live_and_one_step(bench):
    segmentId = bench.click(10, 12, 14)
    bench.click(20, 12, 14)
    point = bench.points()[1]
    before = bench.full(segmentId)
    bench.engine.asked.clear()
    for step in range(1, 4):
        bench.drag(point, bench.ras(20, 12, 14 + step))
        bench.settle()
        np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (20, 12, 14 + step)]))
    bench.drop(point)
    bench.settle()
    # what is shown while it moves is a draft: the last answer is that of the click at rest
    assert [asked.moving for asked in bench.engine.predictions] == [True, True, True, False]
    assert bench.session.history.undoText == "Move point"
    bench.session.undo()
    np.testing.assert_array_equal(bench.full(segmentId), before)
    bench.session.redo()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (20, 12, 17)]))
    np.testing.assert_allclose(bench.place(1), bench.ras(20, 12, 17))
    assert not bench.session.isBusy


def test_while_a_point_is_held_nothing_is_drawn_or_written_that_the_next_move_makes_stale(bench):
    predict, axes = (
        bench.engine._predict,
        {AXES: [[[1.0, 0.0, 0.0], [5.0, 0.0, 0.0]], [[3.0, -1.0, 0.0], [3.0, 1.0, 0.0]]]},
    )

    def measured(request):
        answer = predict(request)
        return dataclasses.replace(answer, measurements={**answer.measurements, **axes})

    bench.engine._predict = measured
    segmentId = bench.click(10, 12, 14)
    lines = slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode")
    shown, told = bench.session.volume, bench.heard["dragging"]
    assert [line.GetDisplayVisibility() for line in lines] == [1, 1] and told == []
    (point,) = bench.points()
    for step in range(3):
        bench.drag(point, bench.ras(11, 12, 14 + step))
        bench.settle()
        assert [line.GetDisplayVisibility() for line in lines] == [0, 0], "they would be of an earlier mask"
        assert shown.record(segmentId).isPending and told == [(True,)], "the answer at rest is still to come"
        assert bench.row(segmentId).volumeMm3 == bench.full(segmentId).sum(), "the list follows"
    bench.drop(point)
    bench.settle()
    assert [line.GetDisplayVisibility() for line in lines] == [1, 1]
    assert not shown.record(segmentId).isPending and told == [(True,), (False,)]


def test_an_answer_is_drawn_once_with_all_that_it_changes(bench):
    paused = []
    for signal in (bench.session.noduleChanged, bench.session.selectionChanged, bench.session.nodulesChanged):
        signal.connect(lambda *_args: paused.append(slicer.app.pauses))
    bench.click(10, 12, 14)
    bench.session.review.acceptSelectedAndNext()
    bench.session.undo()
    bench.settle()
    assert paused and min(paused) > 0 and slicer.app.pauses == 0


def test_a_point_moved_by_a_script_is_a_step_of_its_own(bench):
    segmentId = bench.click(10, 12, 14)
    bench.session.promptsNode.SetNthControlPointPositionWorld(0, *bench.ras(20, 12, 14))
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(20, 12, 14)]))
    bench.session.undo()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))


def test_a_point_dropped_outside_the_volume_returns(bench):
    segmentId = bench.click(10, 12, 14)
    point = bench.points()[0]
    bench.drag(point, bench.ras(10, 12, 20))
    bench.drag(point, (900.0, 0.0, 0.0))
    bench.drop(point)
    bench.settle()
    np.testing.assert_allclose(bench.place(0), bench.ras(10, 12, 14))
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    assert "out of the volume" in bench.errors[-1]


def test_deleting_a_point_goes_back_and_deleting_the_last_removes_the_nodule(bench):
    segmentId = bench.click(10, 12, 14)
    bench.click(10, 12, 20)
    node = bench.session.promptsNode
    node.RemoveNthControlPoint(1)
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    node.RemoveNthControlPoint(0)
    bench.settle()
    assert bench.session.review.rows() == [] and bench.session.selectedId is None
    bench.session.undo()
    assert [row.segmentId for row in bench.session.review.rows()] == [segmentId]
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    bench.session.undo()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (10, 12, 20)]))
    assert node.GetNumberOfControlPoints() == 2 and not bench.session.isBusy


def test_with_negative_points_only_the_nodule_is_empty_until_a_positive_one_comes(bench):
    segmentId = bench.click(10, 12, 14)
    bench.click(10, 12, 16, positive=False)
    bench.session.promptsNode.RemoveNthControlPoint(0)
    bench.settle()
    assert bench.full(segmentId).sum() == 0 and len(bench.session.review.rows()) == 1
    assert bench.session.review.rows()[0].volumeMm3 is None
    bench.click(10, 12, 12)
    assert bench.full(segmentId)[10, 12, 10] == 1 and bench.full(segmentId)[10, 12, 16] == 0


def test_all_points_removed_at_once(bench):
    first = bench.click(10, 12, 14)
    bench.click(10, 12, 20)
    bench.session.select(None)
    bench.click(25, 12, 14)
    bench.session.promptsNode.RemoveAllControlPoints()
    bench.settle()
    assert bench.session.review.rows() == []
    while bench.session.history.canUndo and len(bench.points()) < 3:
        bench.session.undo()
    np.testing.assert_array_equal(bench.full(first), bench.cubes([(10, 12, 14), (10, 12, 20)]))


def test_a_point_can_change_sides(bench):
    segmentId = bench.click(10, 12, 14)
    bench.click(10, 12, 17)
    node = bench.session.promptsNode
    node.SetNthControlPointSelected(1, False)
    bench.settle()
    assert bench.full(segmentId)[10, 12, 16] == 0
    bench.session.undo()
    assert bench.full(segmentId)[10, 12, 16] == 1 and node.GetNthControlPointSelected(1)


def test_only_the_selected_nodules_points_are_shown(bench):
    first = bench.click(10, 12, 14)
    bench.session.select(None)
    second = bench.click(25, 12, 14)
    assert bench.visible() == [False, True]
    bench.session.select(first)
    assert bench.visible() == [True, False]
    assert bench.heard["selectionChanged"][-1] == (first,)
    bench.session.select(None)
    assert bench.visible() == [True, True]
    bench.session.select("no such segment")
    assert bench.session.selectedId is None and second


def test_neighbors_stay_whole_and_can_be_left_out(bench):
    first = bench.click(10, 12, 14)
    bench.session.select(None)
    second = bench.click(10, 12, 16)
    assert bench.full(first).sum() == bench.full(second).sum() == 125
    bench.session.options.doNotOverlap = True
    bench.session.select(None)
    third = bench.click(10, 12, 12)
    assert bench.full(third).sum() == 2 * 25 and bench.full(first).sum() == 125
    assert bench.row(third).volumeMm3 == 50.0


def test_errors_of_the_engine_take_the_click_back(bench):
    segmentId = bench.click(10, 12, 14)
    bench.engine.errors[Predict] = "no memory for that"
    bench.click(10, 12, 18)
    bench.session.select(None)
    bench.click(25, 12, 14)
    assert bench.errors[-2:] == ["no memory for that"] * 2
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    assert [row.segmentId for row in bench.session.review.rows()] == [segmentId] and len(bench.points()) == 1
    assert bench.session.history.undoText == "New nodule" and bench.session.state is State.READY
    del bench.engine.errors[Predict]
    bench.session.select(segmentId)
    bench.click(10, 12, 18)
    assert bench.full(segmentId).sum() > 125


def test_cancel_drops_the_clicks_without_an_answer(bench):
    segmentId = bench.click(10, 12, 14)
    bench.session.click(bench.ras(10, 12, 18))
    bench.session.click(bench.ras(10, 12, 22))
    bench.session.cancel()
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    assert len(bench.points()) == 1 and bench.session.history.undoText == "New nodule"


def test_a_rest_of_the_pointer_prepares_a_click_only_for_a_new_nodule(bench):
    bench.session.preload()
    bench.settle()
    bench.engine.asked.clear()
    bench.session.prefetch(bench.ras(10, 12, 14))
    bench.settle()
    bench.session.prefetch(bench.ras(10, 12, 14))
    bench.session.prefetch((900.0, 0.0, 0.0))
    bench.settle()
    assert [type(request).__name__ for request in bench.engine.asked] == ["Prefetch"]
    bench.click(10, 12, 14)
    bench.engine.asked.clear()
    bench.session.prefetch(bench.ras(20, 12, 14))
    assert not bench.session.isBusy and not bench.engine.asked


# -- what a click would give ------------------------------------------------------------------------------------------


PLACE = (10, 12, 14)


@pytest.fixture
def ready(bench):
    """Model and volume are there."""
    bench.session.preload()
    bench.settle()
    return bench


def models(bench):
    nodes = slicer.util.getNodesByClass("vtkMRMLModelNode", bench.scene.scene)
    return [node for node in nodes if node.GetAttribute("SAMMed3D.Preview")]  # the views' planes are models too


def is_drawn(bench):
    """Whether an outline is in the slice views; it never is in 3D."""
    drawn = [node for node in models(bench) if node.GetDisplayNode().GetVisibility()]
    assert not any(node.GetDisplayNode().GetVisibility3D() for node in models(bench))
    assert bool(drawn) == (bench.session.previewed is not None)
    return bool(drawn)


def hover(bench, *kji):
    bench.session.prefetch(bench.ras(*kji))
    bench.settle()
    return is_drawn(bench)


def previewed(bench):
    volume = np.zeros(SHAPE, np.uint8)
    block = bench.session.previewed
    volume[slices(block)] = block.mask
    return volume


@pytest.mark.parametrize("isMoved", [False, True])
def test_a_rest_outlines_exactly_what_the_click_gives_and_makes_nothing(ready, isMoved):
    session = ready.session
    if isMoved:
        ready.volume.SetAndObserveTransformNodeID(ready.scene.add_transform(rigid()).GetID())
    heard = {name: len(calls) for name, calls in ready.heard.items() if name not in ("busyChanged", "progressed")}
    assert hover(ready, *PLACE)
    shown = previewed(ready)
    (node,) = models(ready)
    corners = [ready.ras(*(p + side * 2.5 for p in PLACE)) for side in (-1, 1)]
    middle = np.mean(numpy_support.vtk_to_numpy(node.GetPolyData().GetPoints().GetData()), axis=0)
    np.testing.assert_allclose(middle, np.mean(corners, axis=0), atol=1e-3)
    inverse = np.linalg.inv(VolumeGeometry(ready.volume).ijkToWorld)
    ijk = numpy_support.vtk_to_numpy(node.GetPolyData().GetPoints().GetData()) @ inverse[:3, :3].T + inverse[:3, 3]
    np.testing.assert_allclose(
        [ijk.min(0), ijk.max(0)], [np.array(PLACE)[::-1] - 2.5, np.array(PLACE)[::-1] + 2.5], atol=1e-4
    )
    assert session.review.rows() == [] and not session.history.canUndo and session.segmentationNode is None
    assert session.promptsNode is None and not session.isBusy
    assert heard == {name: len(ready.heard[name]) for name in heard}, "nobody is told"
    segmentId = ready.click(*PLACE)
    assert not is_drawn(ready)
    np.testing.assert_array_equal(ready.full(segmentId), shown)


def test_the_outline_is_what_would_be_written_beside_other_nodules(ready):
    session = ready.session
    session.options.doNotOverlap, first = True, ready.click(*PLACE)
    session.select(None)
    assert hover(ready, 10, 12, 17)
    shown = previewed(ready)
    assert 0 < shown.sum() < 125 and not (shown & ready.full(first)).any()
    second = ready.click(10, 12, 17)
    np.testing.assert_array_equal(ready.full(second), shown)
    session.options.doNotOverlap = False
    session.select(None)
    assert hover(ready, 10, 12, 12) and previewed(ready).sum() == 125


def test_its_color_is_a_light_one_of_the_next_nodule(ready):
    assert hover(ready, *PLACE)
    (node,) = models(ready)
    color = node.GetDisplayNode().GetColor()
    segmentId = ready.click(*PLACE)
    own = ready.session.volume.segmentation.segment(segmentId).GetColor()
    np.testing.assert_allclose(color, (1.0 + np.array(own)) / 2.0, atol=1e-6)


@pytest.mark.parametrize("voxels", [0, 2, 3])
def test_nothing_is_outlined_where_a_click_finds_nothing(ready, monkeypatch, voxels):
    mask = np.zeros((1, 1, 3), np.uint8)
    mask[0, 0, :voxels] = 1
    monkeypatch.setattr(ready.engine, "_predict", lambda request: Segmented(mask, PLACE, 0.2, {}, 1))
    assert hover(ready, *PLACE) == (voxels == 3)
    assert (ready.click(*PLACE) in ready.session.volume.nodules) == (voxels == 3)


def test_nothing_is_outlined_where_a_click_would_do_something_else(ready):
    session = ready.session
    first = ready.click(*PLACE)
    assert not hover(ready, 25, 12, 14), "it adds to the selected nodule"
    session.options.everyClickIsNew = True
    assert hover(ready, 25, 12, 14)
    session.options.everyClickIsNew = False
    session.select(None)
    session.options.selectsInside = True
    assert not hover(ready, *PLACE), "it selects the nodule there"
    assert session.click(ready.ras(*PLACE)) is None and session.selectedId == first
    session.review.accept(first)
    session.select(None)
    assert not hover(ready, *PLACE), "it selects it, locked as it is"
    session.options.selectsInside = False
    assert hover(ready, *PLACE), "it makes another one of the same"
    session.options.doNotOverlap = True
    session.hidePreview()  # as the panel does with each change of an option
    assert not hover(ready, *PLACE), "nothing would be left of it beside the first"
    assert hover(ready, *PLACE[:2], 15) and previewed(ready).sum() == 25
    session.options.polarity = False
    assert not hover(ready, 25, 12, 14), "it is refused: there is nothing to take away from"
    session.options.polarity = True
    session.prefetch((900.0, 0.0, 0.0))
    assert not session.isBusy and not is_drawn(ready)


def other_volume(bench):
    bench.session.setVolume(bench.addVolume("Other"))


def moved(bench):
    bench.volume.SetAndObserveTransformNodeID(bench.scene.add_transform(rigid()).GetID())


def other_voxels(bench):
    slicer.util.arrayFromVolume(bench.volume)[:] = -500
    slicer.util.arrayFromVolumeModified(bench.volume)


def other_model(bench):
    bench.models.path = Path("/models/other.pth")
    bench.session.setModel()


ENDS = {
    "pointer": lambda bench: bench.session.hidePreview(),
    "another place": lambda bench: bench.session.prefetch((900.0, 0.0, 0.0)),
    "selection": lambda bench: bench.session.select(bench.known),
    "undo": lambda bench: bench.session.undo(),
    "delete": lambda bench: bench.session.review.delete(bench.known),
    "accept": lambda bench: bench.session.review.accept(bench.known),
    "click": lambda bench: bench.session.click(bench.ras(25, 20, 20)),
    "search": lambda bench: bench.session.segmentAll(),
    "no volume": lambda bench: bench.session.setVolume(None),
    "volume deleted": lambda bench: bench.scene.scene.RemoveNode(bench.volume),
    "other volume": other_volume,
    "moved": moved,
    "other voxels": other_voxels,
    "other model": other_model,
    "closed": lambda bench: bench.session.close(),
    "scene closed": lambda bench: bench.scene.scene.Clear(0),
}


@pytest.mark.parametrize("isLate", [False, True])
@pytest.mark.parametrize("what", ENDS)
def test_what_ends_a_preview_and_its_late_answer(ready, what, isLate):
    ready.known = ready.click(25, 12, 14)
    ready.session.select(None)
    ready.worker.held = isLate
    ready.session.prefetch(ready.ras(*PLACE))
    if isLate:
        assert ready.worker.queued
    else:
        ready.settle()
        assert is_drawn(ready)
    ENDS[what](ready)
    assert not is_drawn(ready)
    ready.worker.held = False
    ready.settle()
    assert not is_drawn(ready)
    if what in ("closed", "scene closed"):
        assert models(ready) == []


def test_only_the_answer_for_the_latest_place_is_drawn(ready):
    ready.session.prefetch(ready.ras(*PLACE))
    ready.worker.runOne()
    ready.session.prefetch(ready.ras(25, 12, 14))
    assert ready.session.poll() and not is_drawn(ready)
    ready.settle()
    np.testing.assert_array_equal(previewed(ready), ready.cubes([(25, 12, 14)]))


def test_what_is_prepared_for_others_is_not_drawn(ready):
    assert [type(one).__name__ for one in ready.engine.asked][-1] == "Prefetch" and not is_drawn(ready)
    ids = []
    for k in (8, 16, 24):
        ready.session.select(None)
        ids.append(ready.click(k, 12, 14))
    ready.session.options.everyClickIsNew = True
    ready.session.select(ids[0])
    ready.engine.asked.clear()
    ready.session.review.acceptSelectedAndNext()
    ready.settle()
    assert [type(one).__name__ for one in ready.engine.asked] == ["Prefetch"] * 2 and not is_drawn(ready)


def test_without_the_option_the_rest_only_prepares(bench):
    bench.session.options.showsPreview = False
    bench.session.preload()
    bench.settle()
    bench.engine.asked.clear()
    assert not hover(bench, *PLACE) and models(bench) == []
    assert [type(one).__name__ for one in bench.engine.asked] == ["Prefetch"]


def test_a_preview_is_neither_saved_nor_listed(ready, tmp_path):
    ready.click(25, 12, 14)
    ready.session.select(None)
    assert hover(ready, *PLACE)
    (node,) = models(ready)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(ready.scene.scene)
    assert node.GetHideFromEditors() and not hierarchy.GetItemByDataNode(node)
    ready.scene.save(tmp_path / "scene.mrb")
    ready.session.close()
    ready.scene.load(tmp_path / "scene.mrb")
    assert models(ready) == [] and not slicer.util.getNodesByClass("vtkMRMLModelDisplayNode", ready.scene.scene)


def test_the_outline_is_drawn_in_the_slice_and_not_filled(ready, slice_view):
    view = slice_view()
    view.show(ready.volume)
    view.jump(ready.ras(*PLACE))
    before = view.pixels().astype(int)
    assert hover(ready, *PLACE)
    changed = np.abs(view.pixels().astype(int) - before).max(axis=2) > 20
    rows, columns = np.nonzero(changed)
    height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
    assert min(height, width) > 10 and changed.sum() < 3 * (height + width), "a line around it"
    x, y = view.to_pixel(ready.ras(*PLACE))
    assert (
        not changed[-1 - y - 3 : -1 - y + 4, x - 3 : x + 4].any() and rows.min() < changed.shape[0] - 1 - y < rows.max()
    )
    ready.session.hidePreview()
    np.testing.assert_array_equal(view.pixels(), before)


def test_a_view_of_another_volume_and_a_slab_are_seen_as_a_click_sees_them(ready, slice_view):
    view = slice_view()
    view.show(ready.volume)
    slicer.util.arrayFromVolume(ready.volume)[14, 12, 14] = 100
    slicer.util.arrayFromVolumeModified(ready.volume)
    ready.settle()
    view.slice_node.SetSlabReconstructionEnabled(True)
    view.slice_node.SetSlabReconstructionType(vtk.VTK_IMAGE_SLAB_MAX)
    view.slice_node.SetSlabReconstructionThickness(12.0)
    ready.session.preload()
    ready.settle()
    beside = np.array(ready.ras(14, 12, 14)) + [0.0, 0.0, 3.0]
    ready.session.prefetch(beside, view.slice_node)
    ready.settle()
    assert is_drawn(ready)
    shown = previewed(ready)
    np.testing.assert_array_equal(shown, ready.cubes([(14, 12, 14)]), "the bright voxel behind")
    segmentId = ready.session.click(beside, sliceNode=view.slice_node)
    ready.settle()
    np.testing.assert_array_equal(ready.full(segmentId), shown)
    ready.session.select(None)
    ready.worker.held = True
    ready.session.prefetch(ready.ras(25, 12, 14), view.slice_node)
    view.show(ready.addVolume("Other"))
    ready.worker.held = False
    ready.settle()
    assert not is_drawn(ready)
    ready.session.prefetch(beside, view.slice_node)
    ready.settle()
    assert not is_drawn(ready)
