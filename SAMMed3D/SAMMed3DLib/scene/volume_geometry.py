"""Geometry of volume nodes: the only module that reads coordinates and voxels from them.

The engine works in the volume's *local* RAS (the node's IJK-to-RAS matrix, parent transforms left out), so that moving
a volume changes nothing that was computed. The scene, scripts and measurements use the world.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import vtk
from numpy.typing import ArrayLike, NDArray
from vtk.util import numpy_support

from ..inference.geometry import length_scale

Affine = NDArray[np.float64]

#: Unit axes spanning less than this (1 = right angles) cannot be inverted.
_SMALLEST_DETERMINANT = 1e-6


class SceneError(ValueError):
    """A node cannot be used as it is; the message names what to do."""


class VolumeGeometry:
    """Shape, matrices and voxels of a scalar volume node; cheap enough to be made anew whenever it is needed.

    Attributes:
        volumeNode: the vtkMRMLScalarVolumeNode.
        shapeKji: number of voxels along k, j, i.
        ijkToRas: (4, 4) voxel index (i, j, k, 1) to local RAS mm, without parent transforms.
        ijkToWorld: (4, 4) the same to world RAS mm.

    Raises:
        SceneError: no volume, no image, a label map, several components per voxel, a non-linear parent transform or a
            matrix without inverse.
    """

    def __init__(self, volumeNode: Any) -> None:
        _check(volumeNode)
        self.volumeNode = volumeNode
        image = volumeNode.GetImageData()
        self.shapeKji: tuple[int, int, int] = tuple(reversed(image.GetDimensions()))
        matrix = vtk.vtkMatrix4x4()
        volumeNode.GetIJKToRASMatrix(matrix)
        self.ijkToRas: Affine = toArray(matrix)
        rasToWorld = toWorld(volumeNode)
        if rasToWorld is None:
            raise SceneError(
                f"Volume '{volumeNode.GetName()}' is under a non-linear transform. Harden the transform "
                "(Transforms module) and try again."
            )
        self._rasToWorld = rasToWorld
        self.ijkToWorld: Affine = rasToWorld @ self.ijkToRas
        if _isSingular(self.ijkToRas) or _isSingular(self.ijkToWorld):
            raise SceneError(
                f"Volume '{volumeNode.GetName()}' has a spacing of 0 or two equal axes. Correct its spacing and "
                "directions (Volumes module) or its transform."
            )

    def array(self) -> NDArray:
        """The voxels [k, j, i]: a view of the node's memory, to be copied before it goes to another thread."""
        scalars = self.volumeNode.GetImageData().GetPointData().GetScalars()
        return numpy_support.vtk_to_numpy(scalars).reshape(self.shapeKji)

    def identity(self) -> tuple[str, int, bytes]:
        """Hashable key that changes with voxels or local geometry, not when the volume is moved by a transform."""
        return self.volumeNode.GetID(), self.volumeNode.GetImageData().GetMTime(), self.ijkToRas.tobytes()

    def scale(self) -> str:
        """Returns the :func:`.geometry.length_scale` in the world, of which measurements are told."""
        return length_scale(self.ijkToWorld)

    def worldToLocal(self, points: ArrayLike) -> NDArray[np.float64]:
        """World RAS points (..., 3) in the volume's local RAS."""
        return transformPoints(_inverse(self._rasToWorld), points)

    def localToWorld(self, points: ArrayLike) -> NDArray[np.float64]:
        """Local RAS points (..., 3) in the world."""
        return transformPoints(self._rasToWorld, points)

    def worldToIjk(self, points: ArrayLike) -> NDArray[np.float64]:
        """Continuous voxel indices (i, j, k) of world points (..., 3); whole numbers are voxel centers."""
        return transformPoints(_inverse(self.ijkToWorld), points)

    def contains(self, pointWorld: ArrayLike) -> bool:
        """Whether a world point (3,) lies inside the outer faces of the voxels."""
        ijk = self.worldToIjk(pointWorld)
        upper = np.array(self.shapeKji[::-1]) - 0.5
        return bool(np.all(ijk >= -0.5) and np.all(ijk <= upper))


def _check(node: Any) -> None:
    if node is None:
        raise SceneError("No volume is selected. Load a CT and select it.")
    if not node.IsA("vtkMRMLScalarVolumeNode") or node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise SceneError(f"'{node.GetName()}' is not a scalar volume. Select a CT volume, not a label map.")
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or 0 in image.GetDimensions():
        raise SceneError(f"Volume '{node.GetName()}' has no voxels. Load its image first.")
    components = image.GetNumberOfScalarComponents()
    if components != 1:
        raise SceneError(
            f"Volume '{node.GetName()}' has {components} values in each voxel. Extract one component "
            "(Vector to Scalar Volume module)."
        )


def _inverse(matrix: Affine) -> Affine:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _isSingular(matrix: Affine) -> bool:
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.isfinite(matrix).all() or lengths.min() <= 0.0:
        return True
    return abs(np.linalg.det(matrix[:3, :3] / lengths)) < _SMALLEST_DETERMINANT


# -- matrices ----------------------------------------------------------------------------------------------------------


def toArray(matrix: vtk.vtkMatrix4x4) -> Affine:
    """A vtkMatrix4x4 as array (4, 4)."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def toVtk(matrix: ArrayLike) -> vtk.vtkMatrix4x4:
    """An array (4, 4) as vtkMatrix4x4."""
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=np.float64).ravel().tolist())
    return result


def transformPoints(matrix: Affine, points: ArrayLike) -> NDArray[np.float64]:
    """Points (..., 3) through an affine matrix."""
    return np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def toWorld(node: Any) -> Affine | None:
    """The matrix from a transformable node's own coordinates to the world; None where a parent is not linear."""
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        return None
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return toArray(matrix)
