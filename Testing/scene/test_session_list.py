"""The session's list of nodules: names, review, jumping, visibility, surfaces."""

from __future__ import annotations

import numpy as np
import pytest
import slicer.util

from SAMMed3DLib.inference.geometry import slice_normal
from SAMMed3DLib.scene.review import tableText
from SAMMed3DLib.scene.volume_geometry import VolumeGeometry
from SAMMed3DLib.worker.requests import AXES, Prefetch
from scene.session_bench import IJK_TO_RAS


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


def test_an_accepted_nodule_is_locked_until_it_is_unlocked(bench):
    session = bench.session
    segmentId = bench.click(10, 12, 14)
    bench.session.review.accept(segmentId)
    before, (point,) = bench.full(segmentId), bench.points()
    node = session.promptsNode
    assert bench.click(10, 12, 18) is None and bench.click(10, 14, 14, positive=False) is None
    assert "accepted and locked" in bench.errors[-1] and node.GetNthControlPointLocked(0)
    bench.drag(point, bench.ras(20, 12, 14))
    bench.drop(point)
    bench.settle()
    np.testing.assert_allclose(bench.place(0), bench.ras(10, 12, 14), atol=1e-4)
    np.testing.assert_array_equal(bench.full(segmentId), before)
    node.RemoveNthControlPoint(0)
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), before, "its mask is what was accepted")
    session.undo()
    bench.assertMeasured()
    assert len(bench.points()) == 1 and session.promptsNode.GetNthControlPointLocked(0)
    session.review.unreview(segmentId)
    assert not session.promptsNode.GetNthControlPointLocked(0)
    assert bench.click(10, 12, 18) == segmentId and bench.full(segmentId).sum() > before.sum()
    session.undo()
    session.undo()
    assert bench.row(segmentId).status == "reviewed" and session.promptsNode.GetNthControlPointLocked(0)
    assert session.click(bench.ras(10, 12, 18), True, segmentId) == segmentId, "a script names it"


def test_with_an_accepted_one_selected_every_click_can_still_be_new(bench):
    first = bench.click(10, 12, 14)
    bench.session.review.accept(first)
    bench.session.options.everyClickIsNew = True
    assert bench.click(25, 22, 14) not in (None, first)


def test_a_click_inside_another_nodule_selects_it(bench):
    session = bench.session
    session.options.selectsInside = True
    first = bench.click(10, 12, 14)
    session.select(None)
    second = bench.click(24, 20, 20)
    before = bench.full(first)
    assert bench.click(11, 12, 14) is None and session.selectedId == first
    assert "is selected" in bench.heard["message"][-1][0] and not bench.errors
    np.testing.assert_array_equal(bench.full(first), before)
    assert bench.click(12, 12, 14) == first, "the selected one is corrected"
    session.select(None)
    assert bench.click(11, 12, 14) is None and session.selectedId == first, "no second nodule of the same"
    session.review.accept(first)
    session.select(second)
    assert bench.click(11, 12, 14) is None and "locked" in bench.heard["message"][-1][0]
    session.options.selectsInside = False
    session.select(None)
    assert bench.click(11, 12, 14) not in (None, first, second)


def test_several_are_accepted_and_deleted_in_one_step(bench):
    session = bench.session
    ids = []
    for k in (8, 16, 24):
        session.select(None)
        ids.append(bench.click(k, 12, 14))
    masks = [bench.full(one) for one in ids]
    session.review.accept(*ids[:2])
    assert [row.status for row in session.review.rows()] == ["reviewed", "reviewed", "AI"]
    session.review.delete(ids[0], ids[2])
    assert [row.segmentId for row in session.review.rows()] == [ids[1]]
    assert session.history.undoText == "Delete 2 nodules"
    session.undo()
    assert [row.segmentId for row in session.review.rows()] == ids
    for one, mask in zip(ids, masks, strict=True):
        np.testing.assert_array_equal(bench.full(one), mask)
    assert len(bench.points()) == 3
    session.undo()
    assert [row.status for row in session.review.rows()] == ["AI"] * 3


def test_walking_prepares_this_nodule_and_the_next(bench):
    session, places = bench.session, [(8, 12, 14), (16, 12, 14), (24, 12, 14)]
    ids = []
    for place in places:
        session.select(None)
        ids.append(bench.click(*place))
    bench.engine.asked.clear()
    session.select(ids[0])
    session.review.acceptSelectedAndNext()
    bench.settle()
    prepared = [one.point for one in bench.engine.asked if isinstance(one, Prefetch)]
    np.testing.assert_allclose(prepared, [VolumeGeometry(bench.volume).worldToLocal(bench.ras(*p)) for p in places[1:]])


def test_the_axes_of_the_selected_nodule_are_drawn_where_they_were_measured(bench):
    session, scene = bench.session, bench.scene.scene
    first = bench.click(10, 12, 14)
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsLineNode") == 0, "nothing is known of its axes"
    world = np.array([[bench.ras(10, 12, 10), bench.ras(10, 12, 18)], [bench.ras(10, 10, 14), bench.ras(10, 14, 14)]])
    ends = VolumeGeometry(bench.volume).worldToLocal(world).tolist()
    volume, block = session.volume, session.volume.writer.read(first)
    known = {"volume_mm3": 125.04, "long_axis_mm": 5.62, "short_axis_mm": 2.8, AXES: ends}
    volume.setMeasurements(first, block, known)
    session.noduleChanged(first)
    lines = slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode")
    assert [line.GetDisplayVisibility() for line in lines] == [1, 1]
    assert lines[0].GetName() == "125.0 mm³, 5.6 × 2.8 mm" and lines[0].GetDisplayNode().GetPropertiesLabelVisibility()
    drawn = [[line.GetNthControlPointPositionWorld(end) for end in range(2)] for line in lines]
    np.testing.assert_allclose(drawn, world, atol=1e-6)
    assert not any(line.GetSaveWithScene() for line in lines) and all(line.GetHideFromEditors() for line in lines)
    matrix = np.eye(4)
    matrix[:3, 3] = 3.0
    bench.volume.SetAndObserveTransformNodeID(bench.scene.add_transform(matrix).GetID())
    session.showMeasure()
    np.testing.assert_allclose(lines[0].GetNthControlPointPositionWorld(0), world[0, 0] + 3.0, atol=1e-6)
    session.select(None)
    assert [line.GetDisplayVisibility() for line in lines] == [0, 0]
    session.select(first)
    session.options.showsMeasure = False
    session.showMeasure()
    assert [line.GetDisplayVisibility() for line in lines] == [0, 0]
    session.close()
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsLineNode") == 0


class Measured:
    """A nodule with known axes, and a mouse that drags them.

    Attributes:
        ends: (2, 2, 3) world RAS of both ends of the long and the short axis, in the slice k = 10.
    """

    def __init__(self, bench) -> None:
        self.bench, self.session = bench, bench.session
        self.id = bench.click(10, 12, 14)
        across = slice_normal(IJK_TO_RAS)
        self.ends = np.array(
            [[bench.ras(10, 12, 10), bench.ras(10, 12, 18)], [bench.ras(10, 10, 14), bench.ras(10, 14, 14)]]
        )
        assert np.ptp(self.ends @ across) < 1e-9
        volume = self.session.volume
        known = {
            "volume_mm3": 125.0,
            "long_axis_mm": 5.6,
            "short_axis_mm": 2.8,
            "mean_diameter_mm": 4.2,
            "slice_index": 10,
            AXES: VolumeGeometry(bench.volume).worldToLocal(self.ends).tolist(),
        }
        volume.setMeasurements(self.id, volume.writer.read(self.id), known)
        self.session.noduleChanged(self.id)
        self.lines = slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode")

    def drag(self, axis: int, end: int, *places) -> None:
        line = self.lines[axis]
        line.InvokeEvent(line.PointStartInteractionEvent)
        for place in places:
            line.SetNthControlPointPositionWorld(end, *place)
        line.InvokeEvent(line.PointEndInteractionEvent)

    @property
    def row(self):
        return self.bench.row(self.id)

    @property
    def drawn(self) -> np.ndarray:
        return np.array([[line.GetNthControlPointPositionWorld(end) for end in range(2)] for line in self.lines])


def test_an_axis_that_is_dragged_gives_the_diameters_by_hand(bench):
    it = Measured(bench)
    session, heard = bench.session, bench.heard["noduleChanged"]
    heard.clear()
    it.drag(0, 1, bench.ras(10, 12, 19), bench.ras(10, 12, 20))
    assert len(heard) >= 3, "the row follows the mouse"
    assert it.row.isByHand
    assert it.row.measurements["long_axis_mm"] == pytest.approx(7.0)
    assert it.row.measurements["short_axis_mm"] == pytest.approx(2.8, abs=0.05)
    assert it.row.measurements["mean_diameter_mm"] == pytest.approx(4.9, abs=0.05)
    assert it.lines[0].GetName() == "125.0 mm³, 7.0 × 2.8 mm, by hand"
    assert tableText([it.row]).splitlines()[1].endswith("by hand")
    np.testing.assert_allclose(it.drawn[0, 1], bench.ras(10, 12, 20), atol=2e-3)
    assert it.row.volumeMm3 == 125.0 and session.volume.isMeasured(it.id), "of the same voxels"
    assert session.history.undoText == "Move axis"
    session.undo()
    np.testing.assert_allclose(it.drawn, it.ends, atol=2e-3)
    assert not it.row.isByHand and it.row.measurements["long_axis_mm"] == 5.6
    assert it.lines[0].GetName() == "125.0 mm³, 5.6 × 2.8 mm" and session.history.undoText == "New nodule"
    session.redo()
    assert it.row.isByHand and it.row.measurements["long_axis_mm"] == pytest.approx(7.0)


def test_dragged_axes_stay_in_the_slice_and_the_longer_one_is_the_long_one(bench):
    it = Measured(bench)
    away = np.array(bench.ras(10, 17, 14)) + 4.0 * slice_normal(IJK_TO_RAS)
    it.drag(1, 1, away)
    expected = np.linalg.norm(np.array(bench.ras(10, 17, 14)) - bench.ras(10, 10, 14))
    assert it.row.measurements["short_axis_mm"] == pytest.approx(expected, abs=1e-3)
    np.testing.assert_allclose(it.drawn[1, 1], bench.ras(10, 17, 14), atol=2e-3)
    it.drag(1, 1, bench.ras(10, 22, 14))
    longer = np.linalg.norm(np.array(bench.ras(10, 22, 14)) - bench.ras(10, 10, 14))
    assert it.row.measurements["long_axis_mm"] == pytest.approx(longer, abs=1e-3)
    assert it.row.measurements["short_axis_mm"] == pytest.approx(5.6, abs=1e-3)
    np.testing.assert_allclose(it.drawn, [[bench.ras(10, 10, 14), bench.ras(10, 22, 14)], it.ends[0]], atol=2e-3)


def test_axes_by_hand_end_with_the_voxels_that_they_were_drawn_on(bench):
    it = Measured(bench)
    it.drag(0, 1, bench.ras(10, 12, 20))
    bench.click(10, 12, 14)
    assert it.row.isByHand and it.row.measurements["long_axis_mm"] == pytest.approx(7.0), "the click changed nothing"
    bench.click(10, 12, 17)
    assert not it.row.isByHand and "diameters" not in it.row.measurements
    bench.session.undo()
    assert it.row.isByHand and it.row.measurements["long_axis_mm"] == pytest.approx(7.0)
    bench.edit(it.id, bench.cubes([(10, 12, 20)]))
    bench.settle()
    assert not it.row.isByHand
    bench.assertMeasured()


def test_axes_of_an_accepted_nodule_are_locked_and_nothing_moves_without_a_drag(bench):
    it = Measured(bench)
    assert [line.GetLocked() for line in it.lines] == [0, 0]
    it.drag(0, 1)
    assert bench.session.history.undoText == "New nodule", "a click on an end changes nothing"
    it.lines[0].SetNthControlPointPositionWorld(1, *bench.ras(10, 12, 20))
    assert not it.row.isByHand, "nobody drags"
    bench.session.review.accept(it.id)
    assert [line.GetLocked() for line in it.lines] == [1, 1]
    bench.session.review.unreview(it.id)
    assert [line.GetLocked() for line in it.lines] == [0, 0]


def test_a_line_of_the_user_is_never_taken_for_ours(bench):
    session, scene = bench.session, bench.scene.scene
    first = bench.click(10, 12, 14)
    block = session.volume.writer.read(first)
    session.volume.setMeasurements(first, block, {AXES: [[[0, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 1, 0]]]})
    session.noduleChanged(first)
    ids = [line.GetID() for line in slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode")]
    scene.Clear(0)
    theirs = [scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode") for _number in ids]
    assert [line.GetID() for line in theirs] == ids, "names are given again"
    for line in theirs:
        line.AddControlPointWorld(7.0, 7.0, 7.0)
    session.setVolume(bench.addVolume("after"))
    second = bench.click(10, 12, 14)
    session.volume.setMeasurements(
        second, session.volume.writer.read(second), {AXES: [[[0, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 1, 0]]]}
    )
    session.noduleChanged(second)
    assert [tuple(line.GetNthControlPointPositionWorld(0)) for line in theirs] == [(7.0, 7.0, 7.0)] * len(theirs)


def test_how_nodules_are_drawn(bench):
    bench.session.setLook(3.0, 0.6)
    bench.click(10, 12, 14)
    display = bench.session.segmentationNode.GetDisplayNode()
    assert (display.GetSliceIntersectionThickness(), display.GetOpacity2DFill()) == (3, 0.6)
    bench.session.setLook(1.0, 0.0)
    assert (display.GetSliceIntersectionThickness(), display.GetOpacity2DFill()) == (1, 0.0)


def test_a_click_on_a_surface_selects_the_nodule_and_leaves_the_3d_view(bench):
    session, scene = bench.session, bench.scene.scene
    view, camera = scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red"), scene.AddNewNodeByClass("vtkMRMLCameraNode")
    first, second = bench.click(10, 12, 14), session.click(bench.ras(24, 12, 14), segmentId=session.NEW)
    bench.settle()
    assert session.selectedId == second
    session.review.pick(bench.ras(13, 12, 14))  # a voxel outside of its cube
    assert session.selectedId == first
    center = [view.GetSliceToRAS().GetElement(n, 3) for n in range(3)]
    np.testing.assert_allclose(center, bench.ras(10, 12, 14), atol=1e-6)
    assert camera.GetFocalPoint() == (0.0, 0.0, 0.0)
    session.review.pick(bench.ras(24, 29, 31))
    assert session.selectedId == first, "nothing there"
    session.review.setVisible(second, False)
    session.review.pick(bench.ras(24, 12, 14))
    assert session.selectedId == first, "hidden"


def test_jumping_moves_all_slice_views(bench):
    session = bench.session
    view = bench.scene.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    segmentId = bench.click(10, 12, 14)
    session.review.jumpTo(segmentId)
    matrix = view.GetSliceToRAS()
    np.testing.assert_allclose([matrix.GetElement(n, 3) for n in range(3)], bench.ras(10, 12, 14), atol=1e-6)
    ends = np.array([[bench.ras(11, 12, 13), bench.ras(11, 12, 16)], [bench.ras(11, 11, 14), bench.ras(11, 13, 14)]])
    block = session.volume.writer.read(segmentId)
    known = {AXES: session.volume.geometry.worldToLocal(ends).tolist()}
    session.volume.setMeasurements(segmentId, block, known)
    session.review.jumpTo(segmentId)
    middle = np.array(bench.ras(10, 12, 14))
    across = np.cross(middle - bench.ras(10, 12, 15), middle - bench.ras(10, 13, 14))
    moved = np.array([matrix.GetElement(n, 3) for n in range(3)]) - middle
    np.testing.assert_allclose(np.cross(moved, across), 0.0, atol=1e-6)  # straight into the slice of the axes
    np.testing.assert_allclose(moved @ across, (ends[0, 0] - middle) @ across)
    assert np.linalg.norm(moved) > 0.5
    session.options.showsMeasure = False
    session.review.jumpTo(segmentId)
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
