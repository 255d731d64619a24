"""The session's list of nodules: names, review, jumping, visibility, surfaces."""

from __future__ import annotations

import numpy as np


def test_names_states_and_visibility(bench):
    session = bench.session
    segmentId = bench.click(10, 12, 14)
    session.review.rename(segmentId, "  Hilar ")
    session.review.rename(segmentId, " ")
    session.review.accept(segmentId)
    session.review.accept(segmentId)
    session.review.setVisible(segmentId, False)
    row = bench.row(segmentId)
    assert (row.name, row.status, row.visible) == ("Hilar", "reviewed", False)
    assert session.history.undoText == "Accept"
    session.undo()
    assert bench.row(segmentId).status == "AI" and session.history.undoText == "Rename"
    session.review.unreview("gone")
    session.review.delete("gone")
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
        session.select(None)
        ids.append(bench.click(k, 12, 14))
    session.select(ids[1])
    session.review.acceptSelectedAndNext()
    assert session.selectedId == ids[2]
    session.review.rejectSelectedAndNext()
    assert session.selectedId == ids[0] and [row.segmentId for row in session.review.rows()] == ids[:2]
    session.review.acceptSelectedAndNext()
    assert session.selectedId is None and "All nodules are reviewed" in bench.heard["message"][-1][0]
    session.undo()
    session.undo()
    assert [row.status for row in session.review.rows()] == ["AI", "reviewed", "AI"]


def test_jumping_moves_all_slice_views(bench):
    session = bench.session
    view = bench.scene.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    segmentId = bench.click(10, 12, 14)
    session.review.jumpTo(segmentId)
    matrix = view.GetSliceToRAS()
    np.testing.assert_allclose([matrix.GetElement(n, 3) for n in range(3)], bench.ras(10, 12, 14), atol=1e-6)
    session.review.jumpTo("gone")
    assert "not there any more" in bench.errors[-1]


def surface(bench, segmentId):
    segment = bench.session.segmentationNode.GetSegmentation().GetSegment(segmentId)
    return segment.GetRepresentation("Closed surface")


def test_surfaces_are_shown_on_demand(bench):
    session = bench.session
    first = bench.click(10, 12, 14)
    session.select(None)
    second = bench.click(25, 12, 14)
    assert surface(bench, first) is None
    session.review.show3d(True)
    bench.settle()
    before = surface(bench, second).GetBounds()
    assert surface(bench, first).GetNumberOfPoints() > 0 and bench.session.segmentationNode.GetDisplayNode()
    session.select(None)
    third = bench.click(10, 25, 14)
    assert surface(bench, third).GetNumberOfPoints() > 0 and surface(bench, second).GetBounds() == before
    session.review.show3d(False)
    assert [surface(bench, one) for one in (first, second, third)] == [None] * 3


def test_while_a_point_is_dragged_its_surface_waits(bench):
    session = bench.session
    segmentId = bench.click(10, 12, 14)
    session.review.show3d(True)
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
    bench.session.review.show3d(True)
    bench.settle()
    segmentId = bench.click(10, 12, 14)
    assert surface(bench, segmentId).GetNumberOfPoints() > 0
