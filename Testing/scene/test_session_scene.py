"""The session among other people's nodes: moved, deleted, closed, saved and reopened."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest
import slicer

from SAMMed3DLib.inference.geometry import length_scale
from SAMMed3DLib.scene.nodule_state import SegmentRecord, digest
from SAMMed3DLib.scene.states import State
from SAMMed3DLib.scene.volume_geometry import toVtk
from SAMMed3DLib.worker.requests import SCALE, Measure, Predict, SetVolume
from scene.session_bench import IJK_TO_RAS, SHAPE, Bench
from scene.session_fakes import found


def asked(bench, kind):
    return [request for request in bench.engine.asked if isinstance(request, kind)]


# -- states -----------------------------------------------------------------------------------------------------------


def test_another_segmentation_has_its_own_nodules_and_points(bench):
    first = bench.click(10, 12, 14)
    own = bench.session.segmentationNode
    other = bench.scene.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "second reader")
    bench.session.setSegmentation(other)
    assert bench.session.review.rows() == [] and bench.session.segmentationNode is other
    second = bench.click(20, 12, 14)
    assert [row.segmentId for row in bench.session.review.rows()] == [second]
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


def test_a_transform_that_changes_lengths_has_nodules_measured_anew(bench):
    segmentId = bench.click(10, 12, 14)
    before = len(asked(bench, Measure))
    node = bench.scene.add_transform(TURN)
    bench.volume.SetAndObserveTransformNodeID(node.GetID())
    bench.settle()
    assert len(asked(bench, Measure)) == before, "a rigid one leaves all lengths"
    wide = TURN @ np.diag([2.0, 1.0, 1.0, 1.0])
    node.SetMatrixTransformToParent(toVtk(wide))
    bench.settle()
    (request,) = asked(bench, Measure)[before:]
    assert list(request.blocks) == [segmentId]
    np.testing.assert_allclose(request.ijk_to_world, wide @ IJK_TO_RAS)
    record = bench.session.volume.record(segmentId)
    block, scale = bench.session.volume.writer.read(segmentId), bench.session.volume.geometry.scale()
    assert record.isOf(block, scale) and not record.isOf(block, "another")
    assert SegmentRecord({"volume_mm3": 1.0}, digest(block)).isOf(block, "another"), "older versions do not tell"


@pytest.mark.parametrize("kind", [Measure, Predict])
def test_figures_that_were_asked_for_in_another_scale_are_not_taken(bench, kind):
    segmentId = bench.click(10, 12, 14)
    if kind is Measure:
        bench.session._editor.measure(segmentId)
    else:
        bench.session.click(bench.ras(10, 12, 18))
    node = bench.scene.add_transform(np.diag([1.0, 3.0, 1.0, 1.0]))
    bench.volume.SetAndObserveTransformNodeID(node.GetID())
    bench.settle()
    assert bench.session.volume.isMeasured(segmentId)
    scale = bench.session.volume.geometry.scale()
    assert bench.row(segmentId).measurements[SCALE] == scale == length_scale(asked(bench, Measure)[-1].ijk_to_world)


def test_candidates_of_a_search_in_another_scale_are_measured_anew(bench):
    where = (10, 12, 14)
    one = found(where, 0.9)
    told = one.measurements | {SCALE: bench.session.volume.geometry.scale()}
    bench.engine.found = [dataclasses.replace(one, measurements=told)]
    node = bench.scene.add_transform(np.diag([1.0, 3.0, 1.0, 1.0]))
    bench.volume.SetAndObserveTransformNodeID(node.GetID())
    bench.session.segmentAll()
    bench.settle()
    (row,) = bench.session.review.rows()
    assert row.measurements[SCALE] == bench.session.volume.geometry.scale()


# -- nodes deleted by the user ----------------------------------------------------------------------------------------


def test_the_volume_is_deleted_while_predicting(bench):
    bench.session.click(bench.ras(10, 12, 14))
    bench.scene.scene.RemoveNode(bench.volume)
    assert bench.session.volumeNode is None and bench.session.state is State.NO_VOLUME
    bench.settle()
    assert bench.session.review.rows() == [] and bench.session.click((0.0, 0.0, 0.0)) is None
    bench.volume = bench.addVolume("next")
    bench.session.setVolume(bench.volume)
    assert bench.click(10, 12, 14)


def test_the_segmentation_is_deleted_while_predicting(bench):
    bench.session.click(bench.ras(10, 12, 14))
    bench.scene.scene.RemoveNode(bench.session.segmentationNode)
    bench.settle()
    assert bench.session.segmentationNode is None and bench.session.review.rows() == []
    assert bench.points() == [] and bench.session.selectedId is None and not bench.session.history.canUndo
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
    assert session.review.rows() == [] and bench.points() == [] and session.selectedId is None
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
    assert len(bench.session.review.rows()) == 1 and bench.session.segmentationNode is not None


# -- closing and reopening --------------------------------------------------------------------------------------------


def test_the_scene_is_closed_while_predicting(bench):
    bench.session.preload()
    bench.session.click(bench.ras(10, 12, 14))
    while bench.worker.queued:
        bench.worker.runOne()
    bench.scene.scene.Clear(0)
    assert bench.session.volumeNode is None and bench.session.review.rows() == []
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
    bench.session.review.rename(first, "Hilar")
    bench.session.select(None)
    second = bench.click(25, 12, 14)
    bench.session.review.accept(second)
    masks, rows = {one: bench.full(one) for one in (first, second)}, bench.session.review.rows()
    again = reopen(bench, tmp_path)
    assert again.session.review.rows() == rows
    again.session.preload()
    again.settle()
    assert again.session.review.rows() == rows and not again.engine.predictions
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


def test_the_toolbar_goes_on_placing_into_the_users_list(bench):
    scene = bench.scene.scene
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    curve = scene.AddNewNodeByClass("vtkMRMLMarkupsCurveNode", "airway")
    chosen = (curve.GetID(), "vtkMRMLMarkupsCurveNode")
    selection.SetReferenceActivePlaceNodeClassName(chosen[1])
    selection.SetActivePlaceNodeID(chosen[0])
    bench.click(10, 12, 14)
    assert (selection.GetActivePlaceNodeID(), selection.GetActivePlaceNodeClassName()) == chosen
    assert bench.session.exportPoints() is not None
    assert (selection.GetActivePlaceNodeID(), selection.GetActivePlaceNodeClassName()) == chosen


def test_without_a_list_of_the_user_the_toolbar_places_prompts(bench):
    bench.click(10, 12, 14)
    selection = bench.scene.scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    assert selection.GetActivePlaceNodeID() == bench.session.promptsNode.GetID()
    assert bench.session.exportPoints() is not None
    bench.session._measure.close()
    bench.session._measure.prepare()
    assert selection.GetActivePlaceNodeID() == bench.session.promptsNode.GetID()


def test_the_lines_of_the_measure_are_never_placed_into(bench):
    selection = bench.scene.scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    before = (selection.GetActivePlaceNodeID(), selection.GetActivePlaceNodeClassName())
    bench.session.preload()
    bench.settle()
    assert bench.scene.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsLineNode") == 2
    assert (selection.GetActivePlaceNodeID(), selection.GetActivePlaceNodeClassName()) == before


def test_nothing_else_in_the_scene_changes(bench):
    scene = bench.scene.scene
    before = {scene.GetNthNode(n).GetID(): scene.GetNthNode(n).GetMTime() for n in range(scene.GetNumberOfNodes())}
    bench.click(10, 12, 14)
    bench.session.undo()
    after = {scene.GetNthNode(n).GetID(): scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())}
    new = {node.GetClassName() for key, node in after.items() if key not in before}
    assert new == {
        "vtkMRMLSegmentationNode",
        "vtkMRMLSegmentationDisplayNode",
        "vtkMRMLMarkupsFiducialNode",
        "vtkMRMLMarkupsFiducialDisplayNode",
    }
    changed = [after[key].GetName() for key, time in before.items() if after[key].GetMTime() != time]
    # Slicer itself makes a new point list the one that its toolbar places into
    assert set(changed) <= {"SubjectHierarchy", "Selection", "CT"}
    assert bench.volume.GetImageData().GetScalarRange() == (-800.0, -800.0) and SHAPE[0] == 36


# -- which CT is on screen --------------------------------------------------------------------------------------------


def addView(scene, name, background=None):
    """A slice view's nodes, as the layout makes them."""
    view, layers = slicer.vtkMRMLSliceNode(), slicer.vtkMRMLSliceCompositeNode()
    for node in (view, layers):
        node.SetSingletonTag(name)
        node.SetLayoutName(name)
        scene.scene.AddNode(node)
    layers.SetBackgroundVolumeID(None if background is None else background.GetID())
    return view, layers


def test_a_click_in_a_view_of_another_volume_is_refused_until_the_ct_is_shown(bench):
    other = bench.addVolume("Other patient")
    red, layers = addView(bench.scene, "Red", other)
    point = bench.ras(10, 12, 14)
    assert bench.session.click(point, sliceNode=red) is None
    assert bench.session.review.rows() == [] and bench.points() == [] and bench.session.unseen
    assert "shows Other patient" in bench.errors[-1] and "measured in CT" in bench.errors[-1]
    bench.session.showVolume()
    assert layers.GetBackgroundVolumeID() == bench.volume.GetID() and not bench.session.unseen
    segmentId = bench.session.click(point, sliceNode=red)
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))


def test_a_click_in_a_view_of_the_ct_or_with_the_ct_in_front_is_taken(bench):
    other = bench.addVolume("PET")
    yellow, layers = addView(bench.scene, "Yellow", other)
    layers.SetForegroundVolumeID(bench.volume.GetID())
    layers.SetForegroundOpacity(0.0)
    assert bench.session.click(bench.ras(10, 12, 14), sliceNode=yellow) is None
    layers.SetForegroundOpacity(0.5)
    assert bench.session.click(bench.ras(10, 12, 14), sliceNode=yellow)
    green, _layers = addView(bench.scene, "Green", bench.volume)
    assert bench.session.click(bench.ras(10, 12, 18), sliceNode=green)


def test_the_volume_is_shown_where_no_view_shows_it_and_views_are_left_alone_else(bench):
    other = bench.addVolume("Prior")
    _red, first = addView(bench.scene, "Red", bench.volume)
    _green, second = addView(bench.scene, "Green", other)
    bench.session.showVolume(everywhere=False)
    assert [one.GetBackgroundVolumeID() for one in (first, second)] == [bench.volume.GetID(), other.GetID()]
    first.SetBackgroundVolumeID(other.GetID())
    bench.session.showVolume(everywhere=False)
    assert {one.GetBackgroundVolumeID() for one in (first, second)} == {bench.volume.GetID()}


def test_another_volumes_nodules_and_points_are_hidden_and_brought_back(bench):
    session = bench.session
    bench.click(10, 12, 14)
    first = (session.segmentationNode, session.promptsNode)
    other = bench.addVolume("Other patient")
    session.setVolume(other)
    session.showVolume()
    bench.click(20, 12, 14)
    second = (session.segmentationNode, session.promptsNode)
    assert second[0] is not first[0] and second[1] is not first[1]
    session.showVolume()
    assert [bool(node.GetDisplayVisibility()) for node in (*first, *second)] == [False, False, True, True]
    session.setVolume(bench.volume)
    session.showVolume()
    assert [bool(node.GetDisplayVisibility()) for node in (*first, *second)] == [True, True, False, False]
    # what the user hid stays hidden
    first[0].SetDisplayVisibility(False)
    session.setVolume(other)
    session.showVolume()
    session.setVolume(bench.volume)
    session.showVolume()
    assert not first[0].GetDisplayVisibility() and first[1].GetDisplayVisibility()


def test_a_script_on_another_volume_changes_no_view(bench):
    bench.click(10, 12, 14)
    _red, layers = addView(bench.scene, "Red", bench.volume)
    other = bench.addVolume("Other patient")
    bench.session.setVolume(other)
    assert layers.GetBackgroundVolumeID() == bench.volume.GetID()


def test_what_is_odd_about_a_volume_is_known_when_it_is_chosen(bench, tmp_path):
    session = bench.session
    assert "it is -800 everywhere" in session.oddities.grave[0]
    rng = np.random.default_rng(0)
    good = rng.integers(-1000, 200, SHAPE).astype(np.int16)
    plain = bench.scene.add_volume(good, np.diag([0.7, 0.7, 1.0, 1.0]), name="plain")
    session.setVolume(plain)
    assert session.oddities.grave == () and "contrast" in session.oddities.details
    thick = bench.scene.add_volume(good, np.diag([0.7, 0.7, 5.0, 1.0]), name="thick")
    session.setVolume(thick)
    assert "5.0 mm" in session.oddities.grave[0] and len(session.oddities.grave) == 1
    tilted = np.diag([0.7, 0.7, 1.0, 1.0])
    tilted[1, 2] = 0.3
    session.setVolume(bench.scene.add_volume(good, tilted, name="tilted"))
    assert "tilted by 17 degrees" in session.oddities.grave[0]
    session.setVolume(None)
    assert session.oddities.details == ""


def test_the_header_of_a_series_in_the_database_is_asked(bench, tmp_path, monkeypatch):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID, header.Modality = CTImageStorage, generate_uid(), "MR"
    header.SliceThickness, header.Rows, header.Columns = "2.0", SHAPE[1], SHAPE[2]
    header.save_as(tmp_path / "slice.dcm", enforce_file_format=True)
    database = types.SimpleNamespace(fileForInstance=lambda uid: str(tmp_path / "slice.dcm") if uid == "1.2" else "")
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    good = np.random.default_rng(0).integers(-1000, 200, SHAPE).astype(np.int16)
    node = bench.scene.add_volume(good, np.diag([0.7, 0.7, 2.4, 1.0]), name="series")
    node.SetAttribute("DICOM.instanceUIDs", "1.2 1.3")
    bench.session.setVolume(node)
    assert "modality MR" in bench.session.oddities.grave[0] and "gaps" in bench.session.oddities.grave[1]
