"""Nodules into one label map: overlaps, pieces, what is left out and how it is told."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk

from SAMMed3DLib.scene.mask_block import tightBlock
from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation
from SAMMed3DLib.scene.volume_geometry import SceneError
from SAMMed3DTrainingLib.scene.nodule_labels import NoduleMask, arrange, nodulesDigest, readNodules
from scene.masks import new_segmentation

from .chests import SHAPE, add_chest, nodules


def box(name: str, *edges: tuple[int, int], accepted: bool = False) -> NoduleMask:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*edge) for edge in edges)] = True
    return NoduleMask(name, name, accepted, tightBlock(mask, (0, 0, 0)), int(mask.sum()))


@pytest.mark.parametrize("order", [("large", "small"), ("small", "large")])
def test_the_smaller_of_two_that_overlap_keeps_its_voxels(order):
    masks = {"large": box("large", (0, 6), (0, 6), (0, 6)), "small": box("small", (4, 8), (4, 8), (4, 8))}
    result = arrange([masks[name] for name in order])
    values = {name: value for value, name in result.names.items()}
    assert values == {order[0]: 1, order[1]: 2}
    assert np.count_nonzero(result.labels(SHAPE) == values["small"]) == 64
    assert np.count_nonzero(result.labels(SHAPE) == values["large"]) == 216 - 8
    assert result.notes() == ("overlap with a smaller one, which keeps the voxels: large",)


def test_a_nodule_inside_another_stays():
    result = arrange([box("large", (0, 6), (0, 6), (0, 6)), box("inside", (2, 4), (2, 4), (2, 4))])
    assert np.count_nonzero(result.labels(SHAPE) == 2) == 8


def test_a_nodule_that_is_there_twice_leaves_no_gap_in_the_numbers():
    twice = [
        box("a", (0, 3), (0, 3), (0, 3)),
        box("a again", (0, 3), (0, 3), (0, 3)),
        box("b", (5, 8), (5, 8), (5, 8)),
        box("c", (9, 12), (9, 12), (9, 12)),
    ]
    result = arrange(twice)
    assert list(result.names) == [1, 2, 3] and set(result.names.values()) >= {"b", "c"}
    assert np.unique(result.labels(SHAPE)).tolist() == [0, 1, 2, 3]
    (hidden,) = [note for note in result.notes() if "covered" in note]
    assert hidden.endswith(": a") or hidden.endswith(": a again")
    for value, name in result.names.items():
        start = {"a": 0, "a again": 0, "b": 5, "c": 9}[name]
        assert result.labels(SHAPE)[start + 1, start + 1, start + 1] == value


def test_pieces_are_told():
    mask = np.zeros(SHAPE, bool)
    mask[1, 1, 1] = mask[2, 2, 2] = mask[9, 9, 9] = True
    result = arrange([NoduleMask("x", "x", False, tightBlock(mask, (0, 0, 0)), 3)])
    assert result.notes() == ("in several pieces, each counts as a nodule in training: x: 2",), "corners touch"


def test_what_is_no_nodule_is_left_out_and_told(slicer_scene):
    matrix = np.diag([5.0, 5.0, 5.0, 1.0])
    lung = np.ones(SHAPE, bool)
    volume, segmentation = add_chest(slicer_scene, masks=[*nodules(), lung], matrix=matrix)
    NoduleSegmentation(segmentation).addNodule("empty one")
    reading = readNodules(segmentation, volume)
    assert [nodule.name for nodule in reading.nodules] == ["Nodule 1", "Nodule 2"]
    assert [nodule.voxels for nodule in reading.nodules] == [int(mask.sum()) for mask in nodules()]
    assert reading.notes == (
        "left out, no voxel in the volume: empty one",
        "left out, too large for a nodule: Nodule 3: 110 mm",
    )


def test_accepted_ones(slicer_scene):
    volume, segmentation = add_chest(slicer_scene, accepted=(2,))
    reading = readNodules(segmentation, volume)
    assert [nodule.isAccepted for nodule in reading.nodules] == [False, True]
    assert [nodule.name for nodule in reading.chosen(True)] == ["Nodule 2"] and len(reading.chosen(False)) == 2


def test_segments_that_are_surfaces_are_refused(slicer_scene):
    volume, _segmentation = add_chest(slicer_scene)
    node = new_segmentation(slicer_scene, volume, name="RTSTRUCT")
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    sphere = vtk.vtkSphereSource()
    sphere.Update()
    segment = slicer.vtkSegment()
    segment.AddRepresentation("Closed surface", sphere.GetOutput())
    node.GetSegmentation().AddSegment(segment, "Segment_1")
    with pytest.raises(SceneError, match="'RTSTRUCT' is stored as Closed surface. Make 'Binary labelmap'"):
        readNodules(node, volume)


def test_the_digest_sees_names_places_and_voxels():
    one = box("a", (0, 3), (0, 3), (0, 3))
    others = [box("b", (0, 3), (0, 3), (0, 3)), box("a", (0, 3), (0, 3), (1, 4)), box("a", (0, 3), (0, 3), (0, 4))]
    digests = {nodulesDigest([nodule]) for nodule in (one, *others)} | {nodulesDigest([one, others[1]])}
    assert len(digests) == 5 and nodulesDigest([box("a", (0, 3), (0, 3), (0, 3))]) in digests


def test_the_lungs_are_no_nodule_to_train_on(slicer_scene):
    from SAMMed3DLib.scene.nodule_segmentation import createLungs
    from SAMMed3DLib.scene.segment_writer import SegmentWriter
    from SAMMed3DTrainingLib.scene.export_table import volumePairs

    volume, own = add_chest(slicer_scene)
    node, segmentId = createLungs(volume)
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5, 2:5, 2:5] = 1
    SegmentWriter(node, volume).write(segmentId, tightBlock(mask, (0, 0, 0)))
    assert readNodules(node, volume).nodules == ()
    assert [segmentation for _, segmentation in volumePairs(slicer_scene.scene)] == [own]
