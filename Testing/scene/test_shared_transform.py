"""Segments and prompts stay on their volume while it is moved, hardened or freed."""

from __future__ import annotations

import numpy as np
import pytest
import vtk
from numpy.testing import assert_allclose

from inference.volumes import grid, rotation
from SAMMed3DLib.scene import nodule_segmentation as nodules
from SAMMed3DLib.scene.beside_volume import SharedTransform
from SAMMed3DLib.scene.mask_block import MaskBlock
from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation
from SAMMed3DLib.scene.prompt_store import PromptStore, createPrompts
from SAMMed3DLib.scene.segment_writer import SegmentWriter
from SAMMed3DLib.scene.volume_geometry import VolumeGeometry
from scene.masks import blob, mask_positions, world_positions
from scene.transforms import rigid

SHAPE = (20, 22, 24)
OFFSET = (4, 5, 6)


class Bench:
    """A volume with a segment and a prompt on the same voxel."""

    def __init__(self, scene) -> None:
        self.scene = scene
        self.volume = scene.add_volume(np.zeros(SHAPE, np.int16), grid(SHAPE, (0.7, 0.8, 1.5), rotation(10.0)))
        self.segmentation = nodules.createSegmentation(self.volume)
        self.store = PromptStore(createPrompts(self.volume))
        self.segment = NoduleSegmentation(self.segmentation).addNodule()
        self.writer = SegmentWriter(self.segmentation, self.volume)
        self.writer.write(self.segment, MaskBlock(blob(), OFFSET))
        self.point = self.store.add(self._voxel(), True, self.segment)
        self.shared = SharedTransform(self.volume, [self.segmentation, self.store.node])

    def _voxel(self) -> np.ndarray:
        return (VolumeGeometry(self.volume).ijkToWorld @ (6.0, 5.0, 4.0, 1.0))[:3]

    def assert_on_volume(self) -> None:
        geometry = VolumeGeometry(self.volume)
        expected = mask_positions(blob(), OFFSET, geometry.ijkToWorld)
        assert_allclose(world_positions(self.segmentation, self.segment), expected, atol=1e-4)
        assert_allclose(self.store.prompt(self.point).ras, self._voxel(), atol=1e-6)
        assert not self.writer.wasEdited(self.segment)


@pytest.fixture
def bench(slicer_scene):
    bench = Bench(slicer_scene)
    yield bench
    bench.shared.close()
    bench.store.close()


def test_they_follow_into_and_out_of_transforms(slicer_scene, bench) -> None:
    transform = slicer_scene.add_transform(rigid())
    for transform_id in (transform.GetID(), slicer_scene.add_transform(np.diag([1, 1, -1, 1])).GetID(), None):
        bench.volume.SetAndObserveTransformNodeID(transform_id)
        bench.assert_on_volume()


def test_an_identity_transform_that_is_moved_later(slicer_scene, bench) -> None:
    transform = slicer_scene.add_transform(np.eye(4))
    bench.volume.SetAndObserveTransformNodeID(transform.GetID())
    bench.assert_on_volume()
    assert bench.segmentation.GetTransformNodeID() == transform.GetID()
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 25.0)
    transform.SetMatrixTransformToParent(matrix)
    bench.assert_on_volume()


def test_hardening_the_volume_alone_leaves_them_in_place(slicer_scene, bench) -> None:
    bench.volume.SetAndObserveTransformNodeID(slicer_scene.add_transform(rigid()).GetID())
    bench.volume.HardenTransform()
    assert bench.volume.GetTransformNodeID() is None
    bench.assert_on_volume()
    bench.writer.write(bench.segment, MaskBlock(blob(seed=2), OFFSET))
    expected = mask_positions(blob(seed=2), OFFSET, VolumeGeometry(bench.volume).ijkToWorld)
    assert_allclose(world_positions(bench.segmentation, bench.segment), expected, atol=1e-4)


def test_hardening_all_of_them(slicer_scene, bench) -> None:
    bench.volume.SetAndObserveTransformNodeID(slicer_scene.add_transform(rigid()).GetID())
    for node in (bench.volume, bench.segmentation, bench.store.node):
        node.HardenTransform()
    bench.assert_on_volume()


def test_what_the_user_put_elsewhere_stays_there(slicer_scene, bench) -> None:
    own = slicer_scene.add_transform(np.diag([1.0, -1.0, 1.0, 1.0]))
    bench.segmentation.SetAndObserveTransformNodeID(own.GetID())
    bench.volume.SetAndObserveTransformNodeID(slicer_scene.add_transform(rigid()).GetID())
    assert bench.segmentation.GetTransformNodeID() == own.GetID()
    assert bench.store.node.GetTransformNodeID() == bench.volume.GetTransformNodeID()


def test_deleted_transforms_and_followers(slicer_scene, bench) -> None:
    transform = slicer_scene.add_transform(rigid())
    bench.volume.SetAndObserveTransformNodeID(transform.GetID())
    slicer_scene.scene.RemoveNode(bench.store.node)
    slicer_scene.scene.RemoveNode(transform)
    assert bench.segmentation.GetTransformNodeID() is None
    expected = mask_positions(blob(), OFFSET, VolumeGeometry(bench.volume).ijkToWorld)
    assert_allclose(world_positions(bench.segmentation, bench.segment), expected, atol=1e-4)


def test_non_linear_transforms_are_followed_too(slicer_scene, bench) -> None:
    """The writer refuses to work there, but what is shown stays on the volume."""
    warp = slicer_scene.add_warp()
    bench.volume.SetAndObserveTransformNodeID(warp.GetID())
    assert bench.segmentation.GetTransformNodeID() == warp.GetID()
    bench.volume.SetAndObserveTransformNodeID(None)
    bench.assert_on_volume()


def test_closed_it_follows_no_more(slicer_scene, bench) -> None:
    bench.shared.close()
    bench.volume.SetAndObserveTransformNodeID(slicer_scene.add_transform(rigid()).GetID())
    assert bench.segmentation.GetTransformNodeID() is None
