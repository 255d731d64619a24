"""Volumes and grids shared by the tests of the inference package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rotation(degrees: float, axis: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> NDArray[np.float64]:
    """3x3 rotation about an axis (Rodrigues)."""
    x, y, z = np.array(axis, dtype=np.float64) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross


def grid(
    shape_kji: tuple[int, int, int],
    spacing_ijk: tuple[float, float, float],
    directions: NDArray[np.float64] | None = None,
    center_ras: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> NDArray[np.float64]:
    """ijk_to_ras of a volume whose middle voxel lies at ``center_ras``."""
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if directions is None else directions) * np.array(spacing_ijk)
    matrix[:3, 3] = np.array(center_ras) - matrix[:3, :3] @ (np.array(shape_kji[::-1]) // 2)
    return matrix


def world_of(shape_kji: tuple[int, int, int], ijk_to_ras: NDArray) -> NDArray[np.float64]:
    """RAS of every voxel center, (K, J, I, 3)."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in shape_kji), indexing="ij")
    return np.stack([i, j, k], axis=-1) @ ijk_to_ras[:3, :3].T + ijk_to_ras[:3, 3]


#: Grids of one physical region: (shape [k, j, i], spacing (i, j, k), direction cosines).
ORIENTATIONS = {
    "axial RAS": ((60, 80, 80), (1.0, 1.0, 1.25), np.eye(3)),
    "axial LPS": ((60, 80, 80), (1.0, 1.0, 1.25), np.diag([-1.0, -1.0, 1.0])),
    "left-handed": ((60, 80, 80), (1.0, 1.0, 1.25), np.diag([-1.0, 1.0, 1.0])),
    "head first down": ((60, 80, 80), (1.0, 1.0, 1.25), np.diag([-1.0, -1.0, -1.0])),
    "sagittal": ((80, 60, 80), (1.0, 1.25, 1.0), np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])),
    "coronal": ((80, 60, 80), (1.0, 1.25, 1.0), np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])),
    "oblique": ((75, 90, 90), (1.0, 1.0, 1.25), rotation(27.0, (1.0, 0.4, -0.3))),
    "oblique left-handed": (
        (75, 90, 90),
        (1.0, 1.0, 1.25),
        rotation(-15.0, (0.2, 1.0, 0.7)) @ np.diag([-1.0, 1.0, 1.0]),
    ),
    "gantry tilt": ((75, 90, 90), (1.0, 1.0, 1.25), np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.25], [0.0, 0.0, 0.97]])),
}
