"""The session when the scene changes under it: nodes deleted, moved, exchanged, closed, saved and reopened."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.requests import LoadModel, SetVolume
from SAMMed3DLib.scene.states import State
from scene.session_bench import IJK_TO_RAS, SHAPE, Bench


def asked(bench, kind):
    return [request for request in bench.engine.asked if isinstance(request, kind)]


# -- states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "volume", "state"),
    [
        ({"torch": False}, True, State.NO_TORCH),
        ({"path": None}, True, State.NO_WEIGHTS),
        ({}, False, State.NO_VOLUME),
        ({}, True, State.READY),
    ],
)
def test_what_is_missing_is_said_and_clicks_are_refused(slicer_scene, models, volume, state):
    bench = Bench(slicer_scene, volume=volume, **models)
    assert bench.session.state is state
    bench.session.preload()
    bench.session.segmentAll() if state is not State.READY else None
    if state is not State.READY:
        assert bench.session.click((0.0, 0.0, 0.0)) is None
        assert bench.errors[-1] == bench.session.stateText != ""
        assert not bench.worker.queued and bench.points() == []
    bench.session.close()


def test_nothing_is_asked_of_the_worker_before_preload_or_a_click(bench):
    assert bench.worker.generation == 0 and bench.session.state is State.READY
    bench.session.preload()
    assert bench.session.state is State.LOADING
    bench.settle()
    assert [type(one).__name__ for one in bench.engine.asked] == ["LoadModel", "SetVolume", "Prefetch"]
    assert bench.session.modelInfo.name == "fake"
    assert bench.heard["busyChanged"] == [(True,), (False,)]
    bench.session.preload()
    bench.settle()
    assert len(bench.engine.asked) == 3


def test_loading_can_be_canceled_and_begins_again_with_a_click(bench):
    bench.session.preload()
    bench.session.cancel()
    assert bench.session.state is State.READY
    bench.settle()
    assert [type(one).__name__ for one in bench.engine.asked] == ["Prefetch"] and not bench.errors
    bench.session.cancel()
    segmentId = bench.click(10, 12, 14)
    assert [type(one).__name__ for one in bench.engine.asked[1:]] == ["LoadModel", "SetVolume", "Predict"]
    assert bench.row(segmentId).volumeMm3 == 125.0


def test_what_there_is_to_know_about_the_loaded_model_is_told(bench):
    bench.engine.modelNote = "There is not enough graphics memory: the model runs on the CPU"
    bench.session.preload()
    bench.settle()
    assert (bench.engine.modelNote, False) in bench.heard["message"]


def test_a_model_that_cannot_be_loaded(bench):
    bench.engine.errors[LoadModel] = "nodule.pth is damaged: download it again"
    assert bench.session.click(bench.ras(10, 12, 14))
    bench.settle()
    assert bench.session.state is State.ERROR and "damaged" in bench.session.stateText
    assert bench.errors == ["nodule.pth is damaged: download it again"]
    assert bench.session.rows() == [] and bench.points() == [] and not bench.session.canUndo
    assert bench.session.click(bench.ras(10, 12, 14)) is None
    bench.engine.errors.clear()
    bench.session.setModel()
    bench.settle()
    assert bench.session.state is State.READY
    assert bench.click(10, 12, 14)


def test_a_volume_that_cannot_be_used(bench):
    bench.engine.errors[SetVolume] = "the volume holds NaN"
    bench.session.preload()
    bench.settle()
    assert bench.session.state is State.ERROR and bench.session.stateText == "the volume holds NaN"
    bench.engine.errors.clear()
    bench.session.setVolume(bench.addVolume("other"))
    bench.settle()
    assert bench.session.state is State.READY


def test_a_volume_that_the_scene_cannot_place(bench):
    other = bench.addVolume("warped")
    other.SetAndObserveTransformNodeID(bench.scene.add_warp().GetID())
    bench.session.setVolume(other)
    assert bench.session.state is State.ERROR and "non-linear" in bench.session.stateText
    assert bench.session.click((0.0, 0.0, 0.0)) is None and bench.session.rows() == []
    bench.session.setVolume(bench.volume)
    assert bench.click(10, 12, 14)


def test_what_was_mended_can_be_clicked(bench):
    other = bench.addVolume("warped")
    other.SetAndObserveTransformNodeID(bench.scene.add_warp().GetID())
    bench.session.setVolume(other)
    other.SetAndObserveTransformNodeID(None)
    assert bench.click(10, 12, 14) and bench.session.state is State.READY
    bench.engine.errors[SetVolume] = "the volume holds NaN"
    other.GetImageData().Modified()
    bench.click(10, 12, 18)
    assert bench.session.state is State.ERROR and len(bench.points()) == 1
    assert bench.session.click(bench.ras(10, 12, 18)) is None
    bench.engine.errors.clear()
    other.GetImageData().Modified()
    assert bench.click(10, 12, 18) and bench.session.state is State.READY and len(bench.points()) == 2


def test_a_warp_that_comes_later_is_said_with_the_click(bench):
    segmentId = bench.click(10, 12, 14)
    point = bench.ras(10, 12, 18)
    bench.volume.SetAndObserveTransformNodeID(bench.scene.add_warp().GetID())
    assert bench.session.click(point) is None
    assert "non-linear" in bench.errors[-1]
    bench.volume.SetAndObserveTransformNodeID(None)
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))


def test_a_warp_while_an_answer_is_on_its_way(bench):
    segmentId = bench.session.click(bench.ras(10, 12, 14))
    bench.volume.SetAndObserveTransformNodeID(bench.scene.add_warp().GetID())
    bench.settle()
    assert "non-linear" in bench.errors[-1] and not bench.session.isBusy
    bench.session.undo()
    assert bench.session.undoText == "New nodule" and "non-linear" in bench.errors[-1]
    bench.volume.SetAndObserveTransformNodeID(None)
    assert bench.click(20, 12, 14) == segmentId
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (20, 12, 14)]))
    bench.session.undo()
    bench.session.undo()
    assert bench.session.rows() == [] and not bench.session.canUndo


# -- another model, volume, segmentation ------------------------------------------------------------------------------


def test_another_model_keeps_the_nodules(bench):
    segmentId = bench.click(10, 12, 14)
    bench.models.path = bench.models.path.with_name("turbo.pth")
    bench.session.setModel()
    bench.settle()
    assert [one.path for one in asked(bench, LoadModel)] == ["/models/nodule.pth", "/models/turbo.pth"]
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    assert bench.session.canUndo and bench.session.modelInfo.path == "/models/turbo.pth"
    bench.click(10, 12, 18)
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (10, 12, 18)]))


def test_the_model_is_loaded_again_when_the_provider_says_something_else(bench):
    bench.click(10, 12, 14)
    bench.models.device = "cuda"
    bench.click(10, 12, 18)
    assert [one.device for one in asked(bench, LoadModel)] == ["cpu", "cuda"]


def test_changing_the_volume_in_mid_work_and_coming_back(bench):
    segmentId = bench.session.click(bench.ras(10, 12, 14))
    other = bench.addVolume("other")
    bench.session.setVolume(other)
    assert bench.session.rows() == [] and bench.session.selectedId is None and not bench.session.canUndo
    bench.settle()
    second = bench.click(20, 12, 14)
    assert bench.session.segmentationNode.GetName() == "other nodules" and second != segmentId
    bench.session.setVolume(bench.volume)
    assert [row.segmentId for row in bench.session.rows()] == [segmentId]
    bench.session.preload()
    bench.settle()
    # the answer that was lost with the change is asked for again
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    assert bench.heard["documentChanged"]


def test_late_answers_of_another_volume_are_ignored(bench):
    segmentId = bench.session.click(bench.ras(10, 12, 14))
    while bench.worker.queued:
        bench.worker.runOne()
    bench.session.setVolume(bench.addVolume("other"))
    bench.settle()
    bench.session.setVolume(bench.volume)
    assert bench.full(segmentId).sum() == 0


def test_a_volume_whose_voxels_change_is_copied_again(bench):
    segmentId = bench.click(10, 12, 14)
    assert len(asked(bench, SetVolume)) == 1
    bench.volume.GetImageData().Modified()
    bench.click(10, 12, 18)
    assert len(asked(bench, SetVolume)) == 2
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (10, 12, 18)]))


def test_a_volume_that_changes_while_an_answer_is_on_its_way_is_asked_about_again(bench):
    segmentId = bench.session.click(bench.ras(10, 12, 14))
    while bench.worker.queued:
        bench.worker.runOne()
    bench.volume.GetImageData().Modified()
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    assert len(asked(bench, SetVolume)) == 2


def test_another_segmentation_has_its_own_nodules_and_points(bench):
    first = bench.click(10, 12, 14)
    own = bench.session.segmentationNode
    other = bench.scene.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "second reader")
    bench.session.setSegmentation(other)
    assert bench.session.rows() == [] and bench.session.segmentationNode is other
    second = bench.click(20, 12, 14)
    assert [row.segmentId for row in bench.session.rows()] == [second]
    assert other.GetNodeReference(other.GetReferenceImageGeometryReferenceRole()) is bench.volume
    bench.session.setSegmentation(own)
    bench.session.select(first)
    bench.click(10, 12, 18)
    np.testing.assert_array_equal(bench.full(first), bench.cubes([(10, 12, 14), (10, 12, 18)]))


# -- transforms -------------------------------------------------------------------------------------------------------

TURN = np.array([[0.8, -0.6, 0.0, 5.0], [0.6, 0.8, 0.0, -7.0], [0.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.0, 1.0]])


def test_clicks_on_a_transformed_volume_land_where_they_are_seen(bench):
    bench.volume.SetAndObserveTransformNodeID(bench.scene.add_transform(TURN).GetID())
    segmentId = bench.click(10, 12, 14)
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    np.testing.assert_allclose(bench.place(0), (TURN @ IJK_TO_RAS @ [14, 12, 10, 1])[:3])
    (request,) = bench.engine.predictions
    np.testing.assert_allclose(request.points[0], (IJK_TO_RAS @ [14, 12, 10, 1])[:3])
    np.testing.assert_allclose(request.ijk_to_world, TURN @ IJK_TO_RAS)
    assert bench.session.segmentationNode.GetTransformNodeID() == bench.volume.GetTransformNodeID()


def test_a_volume_that_is_moved_takes_its_nodules_along(bench):
    segmentId = bench.click(10, 12, 14)
    asked_before = len(bench.engine.asked)
    bench.volume.SetAndObserveTransformNodeID(bench.scene.add_transform(TURN).GetID())
    bench.settle()
    assert bench.session.segmentationNode.GetTransformNodeID() == bench.volume.GetTransformNodeID()
    np.testing.assert_allclose(bench.place(0), (TURN @ IJK_TO_RAS @ [14, 12, 10, 1])[:3])
    assert not [one for one in bench.engine.asked[asked_before:] if type(one).__name__ in ("SetVolume", "Predict")]
    bench.click(10, 12, 18)
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (10, 12, 18)]))
    assert len(asked(bench, SetVolume)) == 1
    bench.session.undo()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))


# -- nodes deleted by the user ----------------------------------------------------------------------------------------


def test_the_volume_is_deleted_while_predicting(bench):
    bench.session.click(bench.ras(10, 12, 14))
    bench.scene.scene.RemoveNode(bench.volume)
    assert bench.session.volumeNode is None and bench.session.state is State.NO_VOLUME
    bench.settle()
    assert bench.session.rows() == [] and bench.session.click((0.0, 0.0, 0.0)) is None
    bench.volume = bench.addVolume("next")
    bench.session.setVolume(bench.volume)
    assert bench.click(10, 12, 14)


def test_the_segmentation_is_deleted_while_predicting(bench):
    bench.session.click(bench.ras(10, 12, 14))
    bench.scene.scene.RemoveNode(bench.session.segmentationNode)
    bench.settle()
    assert bench.session.segmentationNode is None and bench.session.rows() == []
    assert bench.points() == [] and bench.session.selectedId is None and not bench.session.canUndo
    segmentId = bench.click(20, 12, 14)
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(20, 12, 14)]))


def test_the_point_list_is_deleted(bench):
    segmentId = bench.click(10, 12, 14)
    bench.scene.scene.RemoveNode(bench.session.promptsNode)
    assert bench.session.promptsNode is None
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    bench.click(10, 12, 24)
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (10, 12, 24)]))
    assert len(bench.points()) == 1
    bench.session.undo()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))


def test_the_point_list_is_deleted_while_predicting(bench):
    segmentId = bench.click(10, 12, 14)
    bench.session.click(bench.ras(10, 12, 18))
    bench.scene.scene.RemoveNode(bench.session.promptsNode)
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    assert not bench.row(segmentId).isPending


def test_a_segment_is_deleted_while_predicting_and_comes_back(bench):
    session = bench.session
    first = bench.click(10, 12, 14)
    session.click(bench.ras(10, 12, 18))
    session.segmentationNode.GetSegmentation().RemoveSegment(first)
    assert session.rows() == [] and bench.points() == [] and session.selectedId is None
    bench.settle()
    session.undo()
    bench.settle()
    np.testing.assert_array_equal(bench.full(first), bench.cubes([(10, 12, 14), (10, 12, 18)]))
    assert len(bench.points()) == 2


def test_other_nodes_and_lists_of_points_are_none_of_our_business(bench):
    bench.click(10, 12, 14)
    other = bench.scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "landmarks")
    other.AddControlPointWorld(0.0, 0.0, 0.0)
    other.RemoveAllControlPoints()
    bench.scene.scene.RemoveNode(other)
    assert len(bench.session.rows()) == 1 and bench.session.segmentationNode is not None


# -- closing and reopening --------------------------------------------------------------------------------------------


def test_the_scene_is_closed_while_predicting(bench):
    bench.session.preload()
    bench.session.click(bench.ras(10, 12, 14))
    while bench.worker.queued:
        bench.worker.runOne()
    bench.scene.scene.Clear(0)
    assert bench.session.volumeNode is None and bench.session.rows() == []
    bench.settle()
    assert bench.session.state is State.NO_VOLUME and not bench.session.isBusy
    bench.session.undo()
    bench.session.redo()
    bench.session.cancel()
    bench.volume = bench.addVolume("after")
    bench.session.setVolume(bench.volume)
    assert bench.click(10, 12, 14)


def test_after_close_nothing_is_heard_any_more(bench):
    bench.click(10, 12, 14)
    bench.session.click(bench.ras(10, 12, 18))
    node, segmentation = bench.session.promptsNode, bench.session.segmentationNode
    bench.session.close()
    count = {name: len(heard) for name, heard in bench.heard.items()}
    node.AddControlPointWorld(*bench.ras(10, 12, 22))
    segmentation.GetSegmentation().AddEmptySegment("", "x")
    bench.scene.scene.RemoveNode(segmentation)
    bench.scene.scene.Clear(0)
    assert {name: len(heard) for name, heard in bench.heard.items()} == count


def reopen(bench, tmp_path):
    bench.scene.save(tmp_path / "scene.mrb")
    bench.session.close()
    bench.scene.load(tmp_path / "scene.mrb")
    again = Bench(bench.scene, volume=False)
    again.volume = next(
        node for node in (again.scene.scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode") for n in range(3)) if node
    )
    again.session.setVolume(again.volume)
    return again


def test_a_reopened_scene_goes_on_where_it_was(bench, tmp_path):
    first = bench.click(10, 12, 14)
    bench.click(10, 12, 18)
    bench.click(10, 12, 21, positive=False)
    bench.session.rename(first, "Hilar")
    bench.session.nextNodule()
    second = bench.click(25, 12, 14)
    bench.session.accept(second)
    masks, rows = {one: bench.full(one) for one in (first, second)}, bench.session.rows()
    again = reopen(bench, tmp_path)
    assert again.session.rows() == rows
    again.session.preload()
    again.settle()
    assert again.session.rows() == rows and not again.engine.predictions
    for segmentId, mask in masks.items():
        np.testing.assert_array_equal(again.full(segmentId), mask)
    again.session.select(first)
    assert again.visible() == [True, True, True, False]
    again.click(10, 16, 14)
    # all prompts are known again, so that the result is that of an unbroken session
    assert [len(one.labels) for one in again.engine.predictions] == [4] and again.engine.predictions[0].start is None
    np.testing.assert_array_equal(again.full(first), masks[first] | bench.cubes([(10, 16, 14)]) * again.full(first))
    again.session.undo()
    np.testing.assert_array_equal(again.full(first), masks[first])
    again.session.close()


def test_a_reopened_edit_is_the_start_of_the_next_click(bench, tmp_path):
    segmentId = bench.click(10, 12, 14)
    drawn = bench.full(segmentId)
    drawn[20:24, 12:15, 14:16] = 1
    bench.edit(segmentId, drawn)
    again = reopen(bench, tmp_path)
    again.session.preload()
    again.settle()
    assert again.row(segmentId).volumeMm3 == drawn.sum()
    again.session.select(segmentId)
    again.click(10, 12, 24)
    np.testing.assert_array_equal(again.full(segmentId), drawn | again.cubes([(10, 12, 24)]))
    assert len(again.engine.predictions[-1].labels) == 1
    again.session.close()


def test_a_scene_saved_while_predicting_is_answered_after_reopening(bench, tmp_path):
    segmentId = bench.session.click(bench.ras(10, 12, 14))
    again = reopen(bench, tmp_path)
    again.session.preload()
    again.settle()
    np.testing.assert_array_equal(again.full(segmentId), again.cubes([(10, 12, 14)]))
    again.session.close()


def test_nothing_else_in_the_scene_changes(bench):
    scene = bench.scene.scene
    before = {scene.GetNthNode(n).GetID(): scene.GetNthNode(n).GetMTime() for n in range(scene.GetNumberOfNodes())}
    bench.click(10, 12, 14)
    bench.session.undo()
    after = {scene.GetNthNode(n).GetID(): scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())}
    new = {node.GetClassName() for key, node in after.items() if key not in before}
    assert new == {
        "vtkMRMLSegmentationNode", "vtkMRMLSegmentationDisplayNode", "vtkMRMLMarkupsFiducialNode",
        "vtkMRMLMarkupsFiducialDisplayNode",
    }
    changed = [after[key].GetName() for key, time in before.items() if after[key].GetMTime() != time]
    # Slicer itself makes a new point list the one that its toolbar places into
    assert set(changed) <= {"SubjectHierarchy", "Selection", "CT"}
    assert bench.volume.GetImageData().GetScalarRange() == (-800.0, -800.0) and SHAPE[0] == 36


# -- the list ---------------------------------------------------------------------------------------------------------


def test_names_states_and_visibility(bench):
    session = bench.session
    segmentId = bench.click(10, 12, 14)
    session.rename(segmentId, "  Hilar ")
    session.rename(segmentId, " ")
    session.accept(segmentId)
    session.accept(segmentId)
    session.setVisible(segmentId, False)
    row = bench.row(segmentId)
    assert (row.name, row.status, row.visible) == ("Hilar", "reviewed", False)
    assert session.undoText == "Accept"
    session.undo()
    assert bench.row(segmentId).status == "AI" and session.undoText == "Rename"
    session.unreview("gone")
    session.delete("gone")
    assert "not there any more" in bench.errors[-1]


def test_renaming_elsewhere_is_seen(bench):
    segmentId = bench.click(10, 12, 14)
    bench.heard["nodulesChanged"].clear()
    bench.session.segmentationNode.GetSegmentation().GetSegment(segmentId).SetName("Other")
    assert bench.heard["nodulesChanged"] and bench.row(segmentId).name == "Other"


def test_accept_and_reject_walk_through_the_list(bench):
    session = bench.session
    ids = []
    for k in (8, 16, 24):
        session.nextNodule()
        ids.append(bench.click(k, 12, 14))
    session.select(ids[1])
    session.acceptSelectedAndNext()
    assert session.selectedId == ids[2]
    session.rejectSelectedAndNext()
    assert session.selectedId == ids[0] and [row.segmentId for row in session.rows()] == ids[:2]
    session.acceptSelectedAndNext()
    assert session.selectedId is None and "All nodules are reviewed" in bench.heard["message"][-1][0]
    session.undo()
    session.undo()
    assert [row.status for row in session.rows()] == ["AI", "reviewed", "AI"]


def test_jumping_moves_all_slice_views(bench):
    session = bench.session
    view = bench.scene.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    segmentId = bench.click(10, 12, 14)
    session.jumpTo(segmentId)
    matrix = view.GetSliceToRAS()
    np.testing.assert_allclose([matrix.GetElement(n, 3) for n in range(3)], bench.ras(10, 12, 14), atol=1e-6)
    session.jumpTo("gone")
    assert "not there any more" in bench.errors[-1]


def surface(bench, segmentId):
    segment = bench.session.segmentationNode.GetSegmentation().GetSegment(segmentId)
    return segment.GetRepresentation("Closed surface")


def test_surfaces_are_shown_on_demand(bench):
    session = bench.session
    first = bench.click(10, 12, 14)
    session.nextNodule()
    second = bench.click(25, 12, 14)
    assert surface(bench, first) is None
    session.show3d(True)
    bench.settle()
    before = surface(bench, second).GetBounds()
    assert surface(bench, first).GetNumberOfPoints() > 0 and bench.session.segmentationNode.GetDisplayNode()
    session.nextNodule()
    third = bench.click(10, 25, 14)
    assert surface(bench, third).GetNumberOfPoints() > 0 and surface(bench, second).GetBounds() == before
    session.show3d(False)
    assert [surface(bench, one) for one in (first, second, third)] == [None] * 3


def test_while_a_point_is_dragged_its_surface_waits(bench):
    session = bench.session
    segmentId = bench.click(10, 12, 14)
    session.show3d(True)
    bench.settle()
    before, point = surface(bench, segmentId).GetBounds(), bench.points()[0]
    bench.drag(point, bench.ras(20, 12, 14))
    bench.worker.runOne()
    bench.drag(point, bench.ras(22, 12, 14))
    session.poll()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(20, 12, 14)]))
    assert surface(bench, segmentId).GetBounds() == before
    bench.drop(point)
    bench.settle()
    assert surface(bench, segmentId).GetBounds() != before
    session.promptsNode.RemoveAllControlPoints()
    session.undo()
    bench.settle()
    assert surface(bench, segmentId).GetNumberOfPoints() > 0


def test_surfaces_that_were_asked_for_before_the_first_nodule(bench):
    bench.session.show3d(True)
    bench.settle()
    segmentId = bench.click(10, 12, 14)
    assert surface(bench, segmentId).GetNumberOfPoints() > 0
