"""Marks from other nodes and files become nodules where they lie; nodules become nodes for other modules."""

from __future__ import annotations

import numpy as np
import pytest

PLACES = [(10, 12, 14), (25, 12, 14)]


@pytest.fixture(params=("here", "moved"))
def scan(bench, request):
    """The CT where it was scanned, or under a transform."""
    if request.param == "moved":
        matrix = np.array([[0.0, -1.0, 0.0, 20.0], [1.0, 0.0, 0.0, -7.0], [0.0, 0.0, 1.0, 33.0], [0.0, 0.0, 0.0, 1.0]])
        bench.volume.SetAndObserveTransformNodeID(bench.scene.add_transform(matrix).GetID())
    return bench


def masks(bench):
    bench.settle()
    return [bench.full(row.segmentId) for row in bench.session.review.rows()]


def assertNodulesAt(bench, places):
    found = masks(bench)
    assert len(found) == len(places)
    for mask, place in zip(found, places, strict=True):
        np.testing.assert_array_equal(mask, bench.cubes([place]))


def test_a_point_list_of_the_scene(scan):
    node = scan.scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "theirs")
    for kji in PLACES:
        node.AddControlPointWorld(*scan.ras(*kji))
    node.AddControlPointWorld(900, 0, 0)
    scan.session.importMarks(node)
    assertNodulesAt(scan, PLACES)
    assert scan.session.promptsNode is not node and node.GetNumberOfControlPoints() == 3, "the list stays as it was"
    assert "2 new nodules from 3 marks; 0 lie in nodules that are there, 1 outside" in scan.heard["message"][-1][0]
    scan.session.importMarks(node)
    assert len(masks(scan)) == 2, "what is there already is not made twice"


def test_a_label_map_of_the_scene(scan):
    labels = np.zeros((36, 30, 32), np.uint8)
    for label, (k, j, i) in enumerate(PLACES, start=3):
        labels[k - 2 : k + 3, j - 2 : j + 3, i - 2 : i + 3] = label
    node = scan.scene.add_volume(labels, class_name="vtkMRMLLabelMapVolumeNode", name="labels")
    node.CopyOrientation(scan.volume)
    node.SetAndObserveTransformNodeID(scan.volume.GetTransformNodeID())
    scan.session.importMarks(node)
    assertNodulesAt(scan, PLACES)
    scan.session.importMarks(node)
    assert len(scan.session.review.rows()) == len(PLACES)
    said, is_error = scan.heard["message"][-1]
    assert said.startswith("0 new nodules") and not is_error, "all of them are there already"


def test_a_segmentation_of_the_scene(scan):
    for kji in PLACES:
        scan.session.select(None)
        scan.click(*kji)
    theirs = scan.session.segmentationNode
    scan.session.setSegmentation(scan.scene.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine"))
    assert not scan.session.review.rows()
    scan.session.importMarks(theirs)
    assertNodulesAt(scan, PLACES)
    assert scan.session.segmentationNode is not theirs


def test_a_file_counts_millimeters_of_the_scan_as_it_was_stored(scan, tmp_path):
    from SAMMed3DLib.scene.volume_geometry import VolumeGeometry

    geometry = VolumeGeometry(scan.volume)
    places = [(geometry.ijkToRas @ [*kji[::-1], 1.0])[:3] for kji in PLACES]
    path = tmp_path / "marks.csv"
    path.write_text("r,a,s\n" + "".join(",".join(map(repr, place.tolist())) + "\n" for place in places))
    scan.session.importMarks(path)
    assertNodulesAt(scan, PLACES)


def test_what_cannot_be_imported_is_said(bench, tmp_path):
    for source, cure in ((None, "Choose a point list"), (tmp_path / "no.csv", "choose another file")):
        bench.session.importMarks(source)
        assert cure in bench.errors[-1]
    empty = bench.scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "nothing")
    bench.session.importMarks(empty)
    assert "nothing holds no marks" in bench.errors[-1] and not bench.session.review.rows()


def test_points_of_one_nodule_stay_together_and_negative_ones_take_away(bench):
    node = bench.scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "theirs")
    for kji, text in zip([*PLACES, (10, 12, 18)], ("segment=a;label=1", "", "segment=a;label=1"), strict=True):
        index = node.AddControlPointWorld(*bench.ras(*kji))
        node.SetNthControlPointDescription(index, text)
    node.SetNthControlPointSelected(node.AddControlPointWorld(*bench.ras(25, 12, 17)), False)
    bench.session.importMarks(node)
    first, second = masks(bench)
    np.testing.assert_array_equal(first, bench.cubes([(10, 12, 14), (10, 12, 18)]))
    assert second.sum() and not second[25, 12, 17]


def test_nodules_become_a_point_list_and_a_label_map_that_give_them_back(scan):
    assert scan.session.exportPoints() is None and "no nodules" in scan.errors[-1]
    for kji in PLACES:
        scan.session.select(None)
        scan.click(*kji)
    points, labels = scan.session.exportPoints(), scan.session.exportLabelMap()
    assert [points.GetNthControlPointLabel(n) for n in range(2)] == ["Nodule 1", "Nodule 2"]
    for n, kji in enumerate(PLACES):
        np.testing.assert_allclose(points.GetNthControlPointPositionWorld(n), scan.ras(*kji), atol=1e-6)
    import slicer.util

    array = slicer.util.arrayFromVolume(labels)
    for label, kji in enumerate(PLACES, start=1):
        np.testing.assert_array_equal(array == label, scan.cubes([kji]) != 0)
    assert labels.GetTransformNodeID() == scan.volume.GetTransformNodeID()
    for node in (points, labels):
        scan.session.review.delete(*(row.segmentId for row in scan.session.review.rows()))
        scan.session.importMarks(node)
        assertNodulesAt(scan, PLACES)


def test_each_volume_has_its_own_nodules_and_gets_them_back(bench):
    bench.click(*PLACES[0])
    first = bench.session.segmentationNode, bench.session.promptsNode
    other = bench.addVolume("other")
    bench.session.setVolume(other)
    assert not bench.session.review.rows() and bench.session.promptsNode is None
    bench.click(*PLACES[1])
    assert bench.session.segmentationNode not in first and bench.session.promptsNode not in first
    bench.session.setVolume(bench.volume)
    assert (bench.session.segmentationNode, bench.session.promptsNode) == first
    assertNodulesAt(bench, PLACES[:1])
    bench.session.setVolume(other)
    assertNodulesAt(bench, PLACES[1:])
