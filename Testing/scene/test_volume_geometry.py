"""Coordinates of volume nodes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from inference.volumes import ORIENTATIONS, grid, rotation
from SAMMed3DLib.scene.volume_geometry import SceneError, VolumeGeometry
from scene.transforms import rigid

SHAPE = (6, 8, 10)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_matrix_shape_and_voxels_are_the_nodes(slicer_scene, name) -> None:
    shape, spacing, directions = ORIENTATIONS[name]
    ijk_to_ras = grid(shape, spacing, directions, (5.0, -20.0, 100.0))
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    geometry = VolumeGeometry(slicer_scene.add_volume(array, ijk_to_ras))
    assert geometry.shapeKji == shape
    assert_allclose(geometry.ijkToRas, ijk_to_ras, atol=1e-9)
    assert_allclose(geometry.ijkToWorld, ijk_to_ras, atol=1e-9)
    assert np.array_equal(geometry.array(), array)


def test_array_is_a_view(slicer_scene) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16))
    VolumeGeometry(volume).array()[1, 2, 3] = 77
    assert volume.GetImageData().GetScalarComponentAsDouble(3, 2, 1, 0) == 77


def test_chain_of_transforms(slicer_scene) -> None:
    ijk_to_ras = grid(SHAPE, (0.7, 0.8, 2.5), rotation(20.0))
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), ijk_to_ras)
    inner = slicer_scene.add_transform(rigid(30.0))
    outer = slicer_scene.add_transform(np.diag([1.0, -1.2, 0.9, 1.0]))
    inner.SetAndObserveTransformNodeID(outer.GetID())
    volume.SetAndObserveTransformNodeID(inner.GetID())
    geometry = VolumeGeometry(volume)
    to_world = np.diag([1.0, -1.2, 0.9, 1.0]) @ rigid(30.0)
    assert_allclose(geometry.ijkToRas, ijk_to_ras, atol=1e-9)
    assert_allclose(geometry.ijkToWorld, to_world @ ijk_to_ras, atol=1e-9)
    points = np.array([[1.0, 2.0, 3.0], [-4.0, 5.0, 6.0]])
    assert_allclose(geometry.localToWorld(points), points @ to_world[:3, :3].T + to_world[:3, 3], atol=1e-9)
    assert_allclose(geometry.worldToLocal(geometry.localToWorld(points)), points, atol=1e-9)
    assert_allclose(geometry.localToWorld(points[0]), geometry.localToWorld(points)[0])


def test_contains_reaches_to_the_voxels_faces(slicer_scene) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), grid(SHAPE, (0.7, 0.8, 2.5), rotation(20.0)))
    volume.SetAndObserveTransformNodeID(slicer_scene.add_transform(rigid()).GetID())
    geometry = VolumeGeometry(volume)

    def inside(i: float, j: float, k: float) -> bool:
        return geometry.contains((geometry.ijkToWorld @ (i, j, k, 1.0))[:3])

    assert inside(0, 0, 0) and inside(9, 7, 5) and inside(-0.49, 7.49, 5.49)
    assert not inside(-0.51, 0, 0) and not inside(0, 7.51, 0) and not inside(0, 0, 5.51)


def test_identity_follows_voxels_and_local_geometry_only(slicer_scene) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16))
    first = VolumeGeometry(volume).identity()
    assert first == VolumeGeometry(volume).identity() and hash(first) == hash(VolumeGeometry(volume).identity())

    volume.SetAndObserveTransformNodeID(slicer_scene.add_transform(rigid()).GetID())
    volume.SetName("renamed")
    assert VolumeGeometry(volume).identity() == first

    VolumeGeometry(volume).array()[:] = 5
    volume.GetImageData().GetPointData().GetScalars().Modified()
    second = VolumeGeometry(volume).identity()
    assert second != first
    volume.SetSpacing(1.0, 1.0, 3.0)
    assert VolumeGeometry(volume).identity() not in (first, second)
    other = slicer_scene.add_volume(np.zeros(SHAPE, np.int16))
    assert VolumeGeometry(other).identity() != first


def test_what_cannot_be_used_is_named(slicer_scene) -> None:
    with pytest.raises(SceneError, match="No volume is selected"):
        VolumeGeometry(None)
    empty = slicer_scene.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    with pytest.raises(SceneError, match="'empty' has no voxels"):
        VolumeGeometry(empty)
    labels = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), name="labels", class_name="vtkMRMLLabelMapVolumeNode")
    with pytest.raises(SceneError, match="not a scalar volume"):
        VolumeGeometry(labels)
    model = slicer_scene.scene.AddNewNodeByClass("vtkMRMLModelNode", "a model")
    with pytest.raises(SceneError, match="'a model' is not a scalar volume"):
        VolumeGeometry(model)
    color = slicer_scene.add_volume(np.zeros(SHAPE, np.uint8), name="color", class_name="vtkMRMLVectorVolumeNode")
    color.GetImageData().AllocateScalars(3, 3)
    with pytest.raises(SceneError, match="3 values in each voxel"):
        VolumeGeometry(color)

    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), name="CT")
    volume.SetAndObserveTransformNodeID(slicer_scene.add_warp().GetID())
    with pytest.raises(SceneError, match=r"'CT' is under a non-linear transform. Harden"):
        VolumeGeometry(volume)
    volume.SetAndObserveTransformNodeID(slicer_scene.add_transform(np.diag([1.0, 1.0, 0.0, 1.0])).GetID())
    with pytest.raises(SceneError, match="spacing of 0"):
        VolumeGeometry(volume)


def test_linear_transform_under_a_warp_is_refused_too(slicer_scene) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16))
    inner = slicer_scene.add_transform(rigid())
    inner.SetAndObserveTransformNodeID(slicer_scene.add_warp().GetID())
    volume.SetAndObserveTransformNodeID(inner.GetID())
    with pytest.raises(SceneError, match="non-linear"):
        VolumeGeometry(volume)
