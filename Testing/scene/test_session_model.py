"""The session's model and volume: what is missing, loading, what cannot be used, what changes in mid-work."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.scene.states import State
from SAMMed3DLib.worker.requests import LoadModel, SetVolume
from scene.session_bench import Bench


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
    assert bench.session.review.rows() == [] and bench.points() == [] and not bench.session.history.canUndo
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


def test_what_there_is_to_know_of_the_voxels_is_told(bench):
    bench.engine.volumeNote = "5 voxels are no numbers"
    bench.session.preload()
    bench.settle()
    assert ("5 voxels are no numbers", False) in bench.heard["message"] and bench.session.state is State.READY


def test_what_was_mended_is_seen_without_a_click(bench):
    other = bench.addVolume("warped")
    warp = bench.scene.add_warp().GetID()
    other.SetAndObserveTransformNodeID(warp)
    bench.session.setVolume(other)
    assert bench.session.state is State.ERROR
    other.SetAndObserveTransformNodeID(None)
    assert bench.session.state is State.READY
    bench.engine.errors[SetVolume] = "there are no lungs"
    bench.session.preload()
    bench.settle()
    assert bench.session.state is State.ERROR
    bench.engine.errors.clear()
    other.GetImageData().Modified()
    bench.settle()
    assert bench.session.state is State.READY
    other.SetAndObserveTransformNodeID(warp)
    assert bench.session.click((0.0, 0.0, 0.0)) is None and "non-linear" in bench.errors[-1]
    assert bench.heard["message"][-1][1], "the cause is still there"
    other.SetAndObserveTransformNodeID(None)
    assert bench.heard["message"][-1] == ("", False), "nothing to complain about any more"


def test_a_volume_that_the_scene_cannot_place(bench):
    other = bench.addVolume("warped")
    other.SetAndObserveTransformNodeID(bench.scene.add_warp().GetID())
    bench.session.setVolume(other)
    assert bench.session.state is State.ERROR and "non-linear" in bench.session.stateText
    assert bench.session.click((0.0, 0.0, 0.0)) is None and bench.session.review.rows() == []
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
    assert bench.session.history.undoText == "New nodule" and "non-linear" in bench.errors[-1]
    bench.volume.SetAndObserveTransformNodeID(None)
    assert bench.click(20, 12, 14) == segmentId
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (20, 12, 14)]))
    bench.session.undo()
    bench.session.undo()
    assert bench.session.review.rows() == [] and not bench.session.history.canUndo


# -- another model, volume, segmentation ------------------------------------------------------------------------------


def test_another_model_keeps_the_nodules(bench):
    segmentId = bench.click(10, 12, 14)
    bench.models.path = bench.models.path.with_name("turbo.pth")
    bench.session.setModel()
    bench.settle()
    assert [one.path for one in asked(bench, LoadModel)] == ["/models/nodule.pth", "/models/turbo.pth"]
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    assert bench.session.history.canUndo and bench.session.modelInfo.path == "/models/turbo.pth"
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
    assert bench.session.review.rows() == [] and bench.session.selectedId is None and not bench.session.history.canUndo
    bench.settle()
    second = bench.click(20, 12, 14)
    assert bench.session.segmentationNode.GetName() == "other nodules" and second != segmentId
    bench.session.setVolume(bench.volume)
    assert [row.segmentId for row in bench.session.review.rows()] == [segmentId]
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
