"""Between VTK's 4x4 matrices and numpy's, and points through them."""

from __future__ import annotations

from typing import Any

import numpy as np
import vtk
from numpy.typing import ArrayLike, NDArray

Affine = NDArray[np.float64]


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
