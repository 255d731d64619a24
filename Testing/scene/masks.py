"""Masks and segments that the tests of the scene share, read without the code under test."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from SAMMed3DLib.scene.mask_block import MaskBlock
from slicer_scene import SlicerScene


def blob(shape: tuple[int, int, int] = (7, 9, 11), seed: int = 0) -> NDArray[np.uint8]:
    """A lopsided blob that touches every face of its block and has a hole."""
    k, j, i = (np.linspace(-1, 1, n) for n in shape)
    field = k[:, None, None] ** 2 + j[:, None] ** 2 + i**2 + 0.3 * k[:, None, None] * i
    noise = np.random.default_rng(seed).normal(0, 0.1, shape)
    mask = (field + noise < 1.05).astype(np.uint8)
    mask[shape[0] // 2, shape[1] // 2, shape[2] // 2] = 0
    mask[:, shape[1] // 2, shape[2] // 2 + 1] = 1
    mask[shape[0] // 2, :, shape[2] // 2 + 1] = 1
    mask[shape[0] // 2, shape[1] // 2 + 1, :] = 1
    return mask


def full(block: MaskBlock, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A block as whole-volume mask."""
    volume = np.zeros(shape, np.uint8)
    k, j, i = block.offset_kji
    nk, nj, ni = block.mask.shape
    volume[k : k + nk, j : j + nj, i : i + ni] = block.mask
    return volume


def new_segmentation(scene: SlicerScene, volume: Any, share: bool = True, name: str = "Segmentation") -> Any:
    """A segmentation as the Segment Editor makes one, by Slicer's own calls."""
    node = scene.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    if share:
        node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    return node


def add_segment(node: Any, name: str, own_layer: bool = True) -> str:
    """An empty segment; without a layer of its own it goes into the first one, as in the Segment Editor."""
    segment_id = node.GetSegmentation().AddEmptySegment("", name)
    if own_layer:
        node.GetSegmentation().SeparateSegmentLabelmap(segment_id)
    return segment_id


def labelmap(node: Any, segment_id: str) -> Any:
    """The segment's vtkOrientedImageData."""
    return node.GetSegmentation().GetSegment(segment_id).GetRepresentation("Binary labelmap")


def voxels(node: Any, segment_id: str) -> NDArray:
    """The labelmap's own array [k, j, i]: a view."""
    image = labelmap(node, segment_id)
    shape = tuple(reversed(image.GetDimensions()))
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)


def world_positions(node: Any, segment_id: str) -> NDArray[np.float64]:
    """World RAS (n, 3) of the segment's voxels, sorted: what is shown in the views."""
    image = labelmap(node, segment_id)
    label = node.GetSegmentation().GetSegment(segment_id).GetLabelValue()
    k, j, i = np.nonzero(voxels(node, segment_id) == label)
    start = image.GetExtent()[::2]
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    parent = node.GetParentTransformNode()
    if parent is not None:
        to_world = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformToWorld(to_world)
        vtk.vtkMatrix4x4.Multiply4x4(to_world, matrix, matrix)
    array = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
    points = np.stack([i + start[0], j + start[1], k + start[2]], axis=1) @ array[:3, :3].T + array[:3, 3]
    return by_position(points)


def mask_positions(mask: NDArray, offset: tuple[int, int, int], ijk_to_world: NDArray) -> NDArray[np.float64]:
    """World RAS (n, 3) of a mask's voxels, sorted the same way."""
    k, j, i = np.nonzero(mask)
    points = np.stack([i + offset[2], j + offset[1], k + offset[0]], axis=1)
    return by_position(points @ ijk_to_world[:3, :3].T + ijk_to_world[:3, 3])


def by_position(points: NDArray) -> NDArray:
    """Points in an order that rounding does not change."""
    rounded = np.round(points, 3) + 0.0
    return points[np.lexsort(rounded.T)]


def ijk_to_world(volume: Any) -> NDArray[np.float64]:
    """Voxel to world by Slicer's own transform (4, 4), from four points."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(volume.GetParentTransformNode(), None, transform)

    def world(*ijk: float) -> NDArray[np.float64]:
        return np.array(transform.TransformPoint(matrix.MultiplyPoint((*ijk, 1.0))[:3]))

    origin = world(0, 0, 0)
    result = np.eye(4)
    result[:3] = np.stack([world(1, 0, 0) - origin, world(0, 1, 0) - origin, world(0, 0, 1) - origin, origin], axis=1)
    return result
