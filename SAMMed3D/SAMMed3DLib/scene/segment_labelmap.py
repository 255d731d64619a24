"""One segment's labelmap, wherever it lies, seen through the voxels of a volume.

Labelmaps need not match the volume: the Segment Editor changes their extent and may put several segments into one
layer, an imported segmentation has spacings of its own, and the segmentation may be under another transform.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from .errors import SceneError
from .mask_block import EMPTY_BLOCK, MaskBlock, labeledBlock, tightBlock
from .matrices import Affine, toArray, toWorld, transformPoints
from .volume_geometry import VolumeGeometry

BINARY_LABELMAP = "Binary labelmap"
#: Two lattices whose voxels lie within this part of a voxel of each other are the same.
_SAME_LATTICE = 0.01

Index = tuple[int, int, int]


def segmentationToWorld(segmentationNode: Any) -> Affine:
    """The matrix from a segmentation's coordinates to the world. Raises SceneError for a non-linear transform."""
    matrix = toWorld(segmentationNode)
    if matrix is None:
        raise SceneError(
            f"Segmentation '{segmentationNode.GetName()}' is under a non-linear transform. Harden the transform "
            "(Transforms module) and try again."
        )
    return matrix


class SegmentLabelmap:
    """The voxels of one segment, to be read on the lattice of a volume.

    Raises:
        SceneError: the segmentation is under a non-linear transform.
    """

    def __init__(self, segmentationNode: Any, segmentId: str, geometry: VolumeGeometry) -> None:
        segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
        image = segment.GetRepresentation(BINARY_LABELMAP) if segment is not None else None
        self._geometry = geometry
        self._array = labelmapVoxels(image)
        self.isEmpty = self._array is None
        if self._array is None:
            return
        self._label = segment.GetLabelValue()
        self._start: Index = tuple(image.GetExtent()[::2][::-1])
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        self._toVolume: Affine = (
            np.linalg.inv(geometry.ijkToWorld) @ segmentationToWorld(segmentationNode) @ toArray(matrix)
        )
        self._shift = self._latticeShift()

    def block(self) -> MaskBlock:
        """The whole segment as tight block in the volume's voxels; what lies outside the volume is left out."""
        if self._array is None:
            return EMPTY_BLOCK
        own = labeledBlock(self._array, self._label, self._start)
        if own.isEmpty:
            return EMPTY_BLOCK
        low = np.array(own.offset_kji[::-1], dtype=np.float64) - 0.5
        corners = np.array(np.meshgrid(*zip(low, low + own.mask.shape[::-1], strict=True))).reshape(3, -1).T
        reached = transformPoints(self._toVolume, corners)
        first = np.maximum(np.floor(reached.min(axis=0) + 0.5 - _SAME_LATTICE).astype(int), 0)
        last = np.minimum(np.floor(reached.max(axis=0) + 0.5).astype(int), np.array(self._geometry.shapeKji[::-1]) - 1)
        if np.any(last < first):
            return EMPTY_BLOCK
        offset: Index = tuple(int(x) for x in first[::-1])
        return tightBlock(self.region(offset, tuple(int(x) for x in (last - first + 1)[::-1])), offset)

    def region(self, offsetKji: Index, shapeKji: Index) -> NDArray[np.bool_]:
        """Which of the volume's voxels in a box belong to the segment: bool ``shapeKji``."""
        if self._array is None:
            return np.zeros(shapeKji, dtype=bool)
        if self._shift is not None:
            return self._cut(tuple(o - s for o, s in zip(offsetKji, self._shift, strict=True)), shapeKji)
        return self._sample(offsetKji, shapeKji)

    def _latticeShift(self) -> Index | None:
        """(k, j, i) from the labelmap's index to the volume's where both have the same lattice, else None."""
        low = np.array(self._start[::-1], dtype=np.float64)
        corners = np.array([low, low + np.array(self._array.shape[::-1]) - 1.0])
        steps = transformPoints(self._toVolume, corners) - corners
        shift = np.round(steps[0])
        close = np.abs(self._toVolume[:3, :3] - np.eye(3)).max() < 1e-3
        if not close or np.abs(steps - shift).max() > _SAME_LATTICE:
            return None
        return tuple(int(x) for x in shift[::-1])

    def _cut(self, offsetKji: Index, shapeKji: Index) -> NDArray[np.bool_]:
        """A box of the labelmap's own voxels; outside its extent there is nothing."""
        result = np.zeros(shapeKji, dtype=bool)
        source, target = [], []
        for offset, count, start, size in zip(offsetKji, shapeKji, self._start, self._array.shape, strict=True):
            low, high = max(offset, start), min(offset + count, start + size)
            if low >= high:
                return result
            source.append(slice(low - start, high - start))
            target.append(slice(low - offset, high - offset))
        result[tuple(target)] = self._array[tuple(source)] == self._label
        return result

    def _sample(self, offsetKji: Index, shapeKji: Index) -> NDArray[np.bool_]:
        """Nearest voxel of the labelmap at each of the volume's voxel centers, slice by slice."""
        back = np.linalg.inv(self._toVolume)
        result = np.zeros(shapeKji, dtype=bool)
        j, i = np.ogrid[offsetKji[1] : offsetKji[1] + shapeKji[1], offsetKji[2] : offsetKji[2] + shapeKji[2]]
        sizes, start = self._array.shape[::-1], self._start[::-1]
        for row in range(shapeKji[0]):
            k = offsetKji[0] + row
            index = [
                np.floor(back[a, 0] * i + back[a, 1] * j + (back[a, 2] * k + back[a, 3] + 0.5)).astype(np.int64)
                - start[a]
                for a in range(3)
            ]
            valid = np.logical_and.reduce([(index[a] >= 0) & (index[a] < sizes[a]) for a in range(3)])
            result[row][valid] = self._array[tuple(x[valid] for x in index[::-1])] == self._label
        return result


def labelmapVoxels(image: Any) -> NDArray | None:
    """A labelmap's array [k, j, i], a view; None where it holds no voxels."""
    if image is None or image.GetPointData().GetScalars() is None:
        return None
    low, high = image.GetExtent()[::2], image.GetExtent()[1::2]
    if any(last < first for first, last in zip(low, high, strict=True)):
        return None
    shape = tuple(last - first + 1 for first, last in zip(low, high, strict=True))[::-1]
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
