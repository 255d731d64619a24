"""Labelmaps that do not lie on the volume's voxels, against the geometry of what they show."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util

from inference.volumes import grid, rotation
from SAMMed3DLib.scene.mask_block import MaskBlock
from SAMMed3DLib.scene.segment_writer import SegmentWriter
from scene.masks import add_segment, full, new_segmentation, voxels

SHAPE = (24, 30, 36)
CENTER, RADIUS = np.array([3.0, -2.0, 5.0]), 9.0


def ball(scene, shape, ijk_to_ras):
    """A segmentation on a lattice of its own that holds a ball, written by Slicer's own functions."""
    own = scene.add_volume(np.zeros(shape, np.int16), ijk_to_ras, name="other volume")
    node = new_segmentation(scene, own, name="on another lattice")
    segment_id = node.GetSegmentation().AddEmptySegment("", "ball")
    slicer.util.updateSegmentBinaryLabelmapFromArray(inside(shape, ijk_to_ras), node, segment_id, own)
    return node, segment_id


def inside(shape, ijk_to_world, radius: float = RADIUS) -> np.ndarray:
    k, j, i = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    world = np.stack([i, j, k], axis=-1) @ ijk_to_world[:3, :3].T + ijk_to_world[:3, 3]
    return (np.linalg.norm(world - CENTER, axis=-1) < radius).astype(np.uint8)


VOLUME = grid(SHAPE, (1.0, 1.1, 1.4), rotation(10.0, (0.2, 0.4, 1.0)))
LATTICES = {
    "finer": ((70, 80, 90), grid((70, 80, 90), (0.4, 0.4, 0.5), rotation(10.0, (0.2, 0.4, 1.0)))),
    "rotated": ((60, 60, 60), grid((60, 60, 60), (0.6, 0.6, 0.6), rotation(-35.0, (1.0, 0.4, 0.1)))),
    "left-handed": ((60, 60, 60), grid((60, 60, 60), (0.7, 0.7, 0.6), np.diag([-1.0, 1.0, 1.0]))),
}


@pytest.mark.parametrize("name", LATTICES)
def test_a_segment_on_another_lattice_is_read_where_it_lies(slicer_scene, name) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), VOLUME)
    node, segment_id = ball(slicer_scene, *LATTICES[name])
    mask = full(SegmentWriter(node, volume).read(segment_id), SHAPE)
    # The labelmap's steps are up to half the diagonal of its voxels away from the ball's surface.
    assert np.all(mask[inside(SHAPE, VOLUME, RADIUS - 0.7) == 1] == 1)
    assert np.all(mask[inside(SHAPE, VOLUME, RADIUS + 0.7) == 0] == 0)


def test_reading_another_lattice_agrees_with_slicers_resampling(slicer_scene) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), VOLUME)
    node, segment_id = ball(slicer_scene, *LATTICES["rotated"])
    ours = full(SegmentWriter(node, volume).read(segment_id), SHAPE)
    theirs = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume)
    assert np.count_nonzero(ours != theirs) <= 0.002 * theirs.sum(), "ties of nearest neighbors aside"


def test_transforms_count_while_reading(slicer_scene) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), VOLUME)
    node, segment_id = ball(slicer_scene, *LATTICES["finer"])
    shift = np.eye(4)
    shift[:3, 3] = (4.0, 0.0, -3.0)
    node.SetAndObserveTransformNodeID(slicer_scene.add_transform(shift).GetID())
    mask = full(SegmentWriter(node, volume).read(segment_id), SHAPE)
    back = VOLUME.copy()
    back[:3, 3] -= shift[:3, 3]
    assert np.all(mask[inside(SHAPE, back, RADIUS - 0.7) == 1] == 1)
    assert np.all(mask[inside(SHAPE, back, RADIUS + 0.7) == 0] == 0)


def test_writing_to_a_foreign_segment_gives_it_the_volumes_voxels(slicer_scene) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), VOLUME)
    node, segment_id = ball(slicer_scene, *LATTICES["rotated"])
    writer = SegmentWriter(node, volume)
    first = writer.read(segment_id)
    assert writer.wasEdited(segment_id)
    writer.write(segment_id, first)
    assert not writer.wasEdited(segment_id)
    assert voxels(node, segment_id).shape == first.mask.shape
    assert np.array_equal(writer.read(segment_id).mask, first.mask)


def test_parts_outside_the_volume_are_left_out(slicer_scene) -> None:
    small = grid((8, 8, 8), (1.0, 1.0, 1.0), center_ras=tuple(CENTER + (RADIUS, 0.0, 0.0)))
    volume = slicer_scene.add_volume(np.zeros((8, 8, 8), np.int16), small)
    node, segment_id = ball(slicer_scene, *LATTICES["finer"])
    mask = full(SegmentWriter(node, volume).read(segment_id), (8, 8, 8))
    assert 0 < mask.sum() < mask.size
    assert np.all(mask[inside((8, 8, 8), small, RADIUS - 0.5) == 1] == 1)
    assert np.all(mask[inside((8, 8, 8), small, RADIUS + 0.5) == 0] == 0)

    far = grid((8, 8, 8), (1.0, 1.0, 1.0), center_ras=(500.0, 0.0, 0.0))
    assert SegmentWriter(node, slicer_scene.add_volume(np.zeros((8, 8, 8), np.int16), far)).read(segment_id).isEmpty


def test_without_others_sees_segments_on_other_lattices(slicer_scene) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), VOLUME)
    node, other = ball(slicer_scene, *LATTICES["finer"])
    mine = add_segment(node, "mine")
    everything = MaskBlock(np.ones(SHAPE, np.uint8), (0, 0, 0))
    writer = SegmentWriter(node, volume)
    left = full(writer.withoutOthers(mine, everything), SHAPE)
    assert np.array_equal(left, 1 - full(writer.read(other), SHAPE))


def test_large_extents_with_little_inside(slicer_scene) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), VOLUME)
    node = new_segmentation(slicer_scene, volume)
    segment_id = node.GetSegmentation().AddEmptySegment("", "nodule")
    mask = np.zeros(SHAPE, np.uint8)
    mask[20:22, 3:5, 30:36] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment_id, volume)
    block = SegmentWriter(node, volume).read(segment_id)
    assert block.offset_kji == (20, 3, 30) and block.mask.shape == (2, 2, 6) and block.mask.all()
