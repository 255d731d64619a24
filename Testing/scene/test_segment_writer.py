"""Masks into segments: the partial write against Slicer's own whole-volume write, neighbors, edits by hand."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from numpy.testing import assert_allclose
from vtk.util.numpy_support import vtk_to_numpy

from inference.volumes import ORIENTATIONS, grid, rotation
from SAMMed3DLib.scene.mask_block import MaskBlock
from SAMMed3DLib.scene.segment_writer import SegmentWriter
from SAMMed3DLib.scene.volume_geometry import SceneError
from scene.masks import add_segment, blob, full, ijk_to_world, labelmap, mask_positions, new_segmentation, voxels
from scene.masks import world_positions as world_of_segment
from scene.transforms import rigid

SHAPE = (24, 30, 36)
OFFSET = (5, 8, 12)
MOVED = rigid(25.0, (0.2, 0.5, 1.0), (15.0, -40.0, 7.0))


def ct(scene, ijk_to_ras=None, shape=SHAPE):
    return scene.add_volume(np.zeros(shape, np.int16), ijk_to_ras)


def reference(scene, volume, mask):
    """The same mask written by Slicer's whole-volume function."""
    node = new_segmentation(scene, volume, name="reference")
    segment_id = node.GetSegmentation().AddEmptySegment("", "reference")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment_id, volume)
    return node, segment_id


@pytest.mark.parametrize("transformed", [False, True])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_partial_write_is_bit_identical_to_slicers_whole_volume_write(slicer_scene, name, transformed) -> None:
    shape, spacing, directions = ORIENTATIONS[name]
    volume = ct(slicer_scene, grid(shape, spacing, directions, (10.0, -30.0, 80.0)), shape)
    if transformed:
        volume.SetAndObserveTransformNodeID(slicer_scene.add_transform(MOVED).GetID())
    node = new_segmentation(slicer_scene, volume)
    segment_id = add_segment(node, "nodule")
    block = MaskBlock(blob(), (20, 30, 40))

    SegmentWriter(node, volume).write(segment_id, block)

    expected = full(block, shape)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume), expected)
    whole, whole_id = reference(slicer_scene, volume, expected)
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(whole, whole_id, volume), expected)
    assert_allclose(world_of_segment(node, segment_id), world_of_segment(whole, whole_id), atol=1e-6)
    assert voxels(node, segment_id).shape == block.mask.shape, "only the block is stored"


@pytest.mark.parametrize("volume_moves", [False, True])
@pytest.mark.parametrize("segmentation_moves", [False, True])
def test_each_may_be_under_a_transform_of_its_own(slicer_scene, volume_moves, segmentation_moves) -> None:
    volume = ct(slicer_scene, grid(SHAPE, (0.7, 0.8, 1.5), rotation(12.0, (1.0, 0.2, 0.1))))
    node = new_segmentation(slicer_scene, volume, share=False)
    if volume_moves:
        volume.SetAndObserveTransformNodeID(slicer_scene.add_transform(MOVED).GetID())
    if segmentation_moves:
        stretched = rigid(-70.0, (0.2, 0.5, 1.0), (15.0, -40.0, 7.0)) @ np.diag([1.3, -0.8, 1.1, 1.0])
        node.SetAndObserveTransformNodeID(slicer_scene.add_transform(stretched).GetID())
    segment_id = add_segment(node, "nodule")
    block = MaskBlock(blob(), OFFSET)
    writer = SegmentWriter(node, volume)

    writer.write(segment_id, block)

    assert_allclose(
        world_of_segment(node, segment_id), mask_positions(block.mask, OFFSET, ijk_to_world(volume)), atol=1e-4
    )
    again = writer.read(segment_id)
    assert again.offset_kji == OFFSET and np.array_equal(again.mask, block.mask)
    assert not writer.wasEdited(segment_id)


def test_a_transform_set_later_moves_volume_and_segment_alike(slicer_scene) -> None:
    volume = ct(slicer_scene)
    node = new_segmentation(slicer_scene, volume)
    segment_id = add_segment(node, "nodule")
    writer = SegmentWriter(node, volume)
    block = MaskBlock(blob(), OFFSET)
    writer.write(segment_id, block)
    transform = slicer_scene.add_transform(MOVED)
    for moved in (volume, node):
        moved.SetAndObserveTransformNodeID(transform.GetID())
    assert not writer.wasEdited(segment_id)
    assert np.array_equal(full(writer.read(segment_id), SHAPE), full(block, SHAPE))


def test_non_linear_transforms_are_refused(slicer_scene) -> None:
    volume = ct(slicer_scene)
    node = new_segmentation(slicer_scene, volume)
    segment_id = add_segment(node, "nodule")
    writer = SegmentWriter(node, volume)
    writer.write(segment_id, MaskBlock(blob(), OFFSET))
    node.SetAndObserveTransformNodeID(slicer_scene.add_warp().GetID())
    with pytest.raises(SceneError, match="'Segmentation' is under a non-linear transform. Harden"):
        writer.write(segment_id, MaskBlock(blob(), OFFSET))
    with pytest.raises(SceneError, match="non-linear"):
        writer.read(segment_id)
    node.SetAndObserveTransformNodeID(None)
    volume.SetAndObserveTransformNodeID(slicer_scene.add_warp().GetID())
    with pytest.raises(SceneError, match="Volume 'CT' is under a non-linear transform"):
        writer.write(segment_id, MaskBlock(blob(), OFFSET))


def test_write_replaces_the_whole_segment(slicer_scene) -> None:
    volume = ct(slicer_scene)
    node = new_segmentation(slicer_scene, volume)
    segment_id = add_segment(node, "nodule")
    writer = SegmentWriter(node, volume)
    writer.write(segment_id, MaskBlock(blob(), OFFSET))
    small = MaskBlock(np.pad(blob((3, 4, 5)), 2), (1, 2, 3))
    writer.write(segment_id, small)
    assert np.array_equal(full(writer.read(segment_id), SHAPE), full(small, SHAPE))
    assert voxels(node, segment_id).shape == (3, 4, 5), "the rim of zeros is not stored"


def test_an_empty_block_clears(slicer_scene, capfd) -> None:
    volume = ct(slicer_scene)
    node = new_segmentation(slicer_scene, volume)
    segment_id, neighbor = add_segment(node, "nodule"), add_segment(node, "neighbor")
    writer = SegmentWriter(node, volume)
    nothing = MaskBlock(np.zeros((1, 1, 1), np.uint8), (3, 3, 3))
    writer.write(segment_id, nothing)
    assert writer.read(segment_id).isEmpty and not writer.wasEdited(segment_id)
    for surfaces in (False, True):
        writer.showSurfaces(surfaces)
        writer.write(neighbor, MaskBlock(blob(), OFFSET))
        writer.write(segment_id, MaskBlock(blob(), OFFSET))
        writer.write(segment_id, nothing)
        assert writer.read(segment_id).isEmpty and not writer.wasEdited(segment_id)
        assert not slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume).any()
        assert not writer.read(neighbor).isEmpty
    assert "ERR" not in capfd.readouterr().err, "VTK has nothing to complain about"


def test_what_lies_outside_the_volume_is_cut_off(slicer_scene) -> None:
    volume = ct(slicer_scene)
    node = new_segmentation(slicer_scene, volume)
    segment_id = add_segment(node, "nodule")
    writer = SegmentWriter(node, volume)
    writer.write(segment_id, MaskBlock(np.ones((8, 8, 8), np.uint8), (-3, 26, 30)))
    expected = np.zeros(SHAPE, np.uint8)
    expected[:5, 26:, 30:] = 1
    assert np.array_equal(full(writer.read(segment_id), SHAPE), expected)
    assert not writer.wasEdited(segment_id)
    writer.write(segment_id, MaskBlock(np.ones((2, 2, 2), np.uint8), (50, 50, 50)))
    assert writer.read(segment_id).isEmpty


def test_neighbors_are_never_erased(slicer_scene) -> None:
    volume = ct(slicer_scene)
    node = new_segmentation(slicer_scene, volume)
    # As the Segment Editor and reopened scenes have it: everybody in one layer.
    first, second, third = (add_segment(node, name, own_layer=False) for name in "abc")
    whole = {first: (slice(2, 8), slice(2, 12), slice(2, 12)), second: (slice(8, 15), slice(2, 12), slice(2, 12))}
    for segment_id, box in whole.items():
        mask = np.zeros(SHAPE, np.uint8)
        mask[box] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment_id, volume)
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    before = {segment_id: slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume) for segment_id in whole}
    assert labelmap(node, first) is labelmap(node, second), "a shared layer to begin with"

    writer = SegmentWriter(node, volume)
    writer.write(third, MaskBlock(np.ones((10, 10, 10), np.uint8), (4, 4, 4)))
    writer.write(first, MaskBlock(np.ones((9, 6, 6), np.uint8), (5, 3, 3)))

    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, second, volume), before[second])
    assert full(writer.read(third), SHAPE).sum() == 1000
    assert full(writer.read(first), SHAPE).sum() == 324
    layers = [labelmap(node, segment_id) for segment_id in (first, second, third)]
    assert len(set(layers)) == 3
    assert set(np.unique(voxels(node, second))) == {0, node.GetSegmentation().GetSegment(second).GetLabelValue()}, (
        "nothing of the segments that left is in the layer any more"
    )
    assert {node.GetSegmentation().GetSegment(segment_id).GetLabelValue() for segment_id in (first, third)} == {1}


def test_without_others_takes_their_voxels_off(slicer_scene) -> None:
    volume = ct(slicer_scene, grid(SHAPE, (0.7, 0.8, 1.5)))
    node = new_segmentation(slicer_scene, volume)
    mine, other, third = (add_segment(node, name) for name in "abc")
    writer = SegmentWriter(node, volume)
    writer.write(other, MaskBlock(np.ones((10, 10, 10), np.uint8), (0, 0, 0)))
    block = MaskBlock(np.ones((6, 6, 6), np.uint8), (7, 7, 7))
    left = full(writer.withoutOthers(mine, block), SHAPE)
    expected = full(block, SHAPE)
    expected[:10, :10, :10] = 0
    assert np.array_equal(left, expected) and left.sum() == 216 - 27
    writer.write(mine, block)
    assert full(writer.withoutOthers(mine, block), SHAPE).sum() == 216 - 27, "the segment itself is no other"
    writer.write(third, MaskBlock(np.ones((8, 8, 8), np.uint8), (6, 6, 6)))
    assert writer.withoutOthers(mine, block).isEmpty


def test_own_writes_and_cosmetics_are_no_edit(slicer_scene) -> None:
    volume = ct(slicer_scene)
    node = new_segmentation(slicer_scene, volume)
    segment_id, neighbor = add_segment(node, "nodule"), add_segment(node, "neighbor")
    writer = SegmentWriter(node, volume)
    assert not writer.wasEdited(segment_id), "new and empty"
    for offset in (OFFSET, (2, 3, 4)):
        writer.write(segment_id, MaskBlock(blob(), offset))
        assert not writer.wasEdited(segment_id)
    segment = node.GetSegmentation().GetSegment(segment_id)
    segment.SetName("other name")
    segment.SetColor(0.1, 0.2, 0.3)
    segment.SetTag("a", "b")
    writer.write(neighbor, MaskBlock(blob(seed=3), OFFSET))
    writer.showSurfaces(True)
    writer.showSurfaces(False)
    node.GetDisplayNode().SetSegmentVisibility(segment_id, False)
    assert not writer.wasEdited(segment_id) and not writer.wasEdited(neighbor)


def test_a_layer_shared_afterwards_is_no_edit(slicer_scene) -> None:
    volume = ct(slicer_scene)
    node = new_segmentation(slicer_scene, volume)
    first, second = add_segment(node, "a"), add_segment(node, "b")
    writer = SegmentWriter(node, volume)
    writer.write(first, MaskBlock(blob(), (1, 1, 1)))
    writer.write(second, MaskBlock(blob(), (15, 15, 15)))
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    assert labelmap(node, first) is labelmap(node, second)
    assert not writer.wasEdited(first) and not writer.wasEdited(second)
    voxels(node, second)[voxels(node, second) == node.GetSegmentation().GetSegment(second).GetLabelValue()] = 0
    labelmap(node, second).Modified()
    assert writer.wasEdited(second) and not writer.wasEdited(first), "the neighbor's edit is the neighbor's"


def test_edits_by_hand_are_seen_and_read(slicer_scene) -> None:
    volume = ct(slicer_scene, grid(SHAPE, (0.7, 0.8, 1.5), rotation(8.0)))
    node = new_segmentation(slicer_scene, volume)
    segment_id, neighbor = add_segment(node, "nodule"), add_segment(node, "neighbor")
    writer = SegmentWriter(node, volume)
    block = MaskBlock(blob(), OFFSET)
    writer.write(segment_id, block)
    writer.write(neighbor, block)

    # Painting, as the Segment Editor's effects do it: a modifier of the whole volume's extent is merged in.
    painted = np.zeros(SHAPE, np.uint8)
    painted[1:4, 2:5, 20:30] = 1
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*SHAPE[::-1])
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = painted.ravel()
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.SetBinaryLabelmapToSegment(image, node, segment_id, logic.MODE_MERGE_MAX)

    assert writer.wasEdited(segment_id) and not writer.wasEdited(neighbor)
    assert np.array_equal(full(writer.read(segment_id), SHAPE), full(block, SHAPE) | painted)
    writer.write(segment_id, writer.read(segment_id))
    assert not writer.wasEdited(segment_id), "the edit has been taken over"

    voxels(node, segment_id)[0, 0, 0] ^= 1
    labelmap(node, segment_id).Modified()
    assert writer.wasEdited(segment_id), "a single voxel"
    voxels(node, segment_id)[0, 0, 0] ^= 1
    labelmap(node, segment_id).Modified()
    assert not writer.wasEdited(segment_id), "undone by hand"


def test_segments_that_were_there_before_count_as_edited(slicer_scene) -> None:
    volume = ct(slicer_scene)
    node = new_segmentation(slicer_scene, volume)
    segment_id = add_segment(node, "by hand")
    SegmentWriter(node, volume).write(segment_id, MaskBlock(blob(), OFFSET))
    assert SegmentWriter(node, volume).wasEdited(segment_id)


def test_surfaces_follow_their_segment(slicer_scene) -> None:
    volume = ct(slicer_scene)
    node = new_segmentation(slicer_scene, volume)
    first = add_segment(node, "a")
    writer = SegmentWriter(node, volume)
    writer.showSurfaces(True)
    writer.showSurfaces(False)

    def center(segment_id: str) -> np.ndarray | None:
        surface = node.GetSegmentation().GetSegment(segment_id).GetRepresentation("Closed surface")
        return None if surface is None or not surface.GetNumberOfPoints() else np.array(surface.GetCenter())

    writer.write(first, MaskBlock(np.ones((5, 5, 5), np.uint8), (2, 2, 2)))
    assert center(first) is None, "none unless asked for"
    writer.showSurfaces(True)
    assert_allclose(center(first), (4, 4, 4), atol=0.2)
    assert node.GetDisplayNode().GetVisibility3D()
    writer.write(first, MaskBlock(np.ones((5, 5, 5), np.uint8), (12, 12, 12)))
    assert_allclose(center(first), (14, 14, 14), atol=0.2)
    second = add_segment(node, "added while surfaces are shown")
    writer.write(second, MaskBlock(np.ones((5, 5, 5), np.uint8), (4, 12, 12)))
    assert_allclose(center(second), (14, 14, 6), atol=0.2)
    assert_allclose(center(first), (14, 14, 14), atol=0.2)
    writer.showSurfaces(False)
    assert center(first) is None and not writer.wasEdited(first)


def test_what_cannot_be_written_is_named(slicer_scene) -> None:
    volume = ct(slicer_scene)
    node = new_segmentation(slicer_scene, volume)
    with pytest.raises(SceneError, match="No segmentation"):
        SegmentWriter(None, volume)
    with pytest.raises(SceneError, match="No segmentation"):
        SegmentWriter(volume, volume)
    with pytest.raises(SceneError, match="No volume"):
        SegmentWriter(node, None)
    writer = SegmentWriter(node, volume)
    for call in (writer.read, writer.wasEdited, lambda segment_id: writer.write(segment_id, MaskBlock(blob(), OFFSET))):
        with pytest.raises(SceneError, match="not there any more"):
            call("gone")

    sphere = vtk.vtkSphereSource()
    sphere.Update()
    surfaces = slicer_scene.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "from STL")
    surfaces.SetSourceRepresentationToClosedSurface()
    surfaces.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "sphere")
    with pytest.raises(SceneError, match="'from STL' is stored as Closed surface"):
        SegmentWriter(surfaces, volume)


def test_leaving_a_shared_layer_keeps_the_surfaces_of_the_others(slicer_scene) -> None:
    volume = ct(slicer_scene)
    node = new_segmentation(slicer_scene, volume)
    first, second = add_segment(node, "a"), add_segment(node, "b")
    writer = SegmentWriter(node, volume)
    writer.write(first, MaskBlock(np.ones((5, 5, 5), np.uint8), (2, 2, 2)))
    writer.write(second, MaskBlock(np.ones((5, 5, 5), np.uint8), (12, 12, 12)))
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    writer = SegmentWriter(node, volume)
    writer.showSurfaces(True)
    writer.write(first, MaskBlock(np.ones((5, 5, 5), np.uint8), (4, 2, 2)))

    def center(segment_id: str) -> tuple[float, ...]:
        return node.GetSegmentation().GetSegment(segment_id).GetRepresentation("Closed surface").GetCenter()

    assert_allclose(center(first), (4, 4, 6), atol=0.2)
    assert_allclose(center(second), (14, 14, 14), atol=0.2)
    assert full(writer.read(second), SHAPE).sum() == 125
