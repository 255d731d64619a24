"""Coordinates: volume indices (i, j, k), world RAS in mm, and the affines between them.

A volume is an array ``[k, j, i]`` with a 4x4 matrix ``ijk_to_ras`` that takes (i, j, k, 1) to RAS mm; whole numbers are
voxel centers, so that a voxel reaches half an index to each side. Points are rows: (n, 3) or (3,).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

Affine = NDArray[np.float64]

#: Volumes whose unit axes span less than this (1 = right angles) are taken for singular.
_SMALLEST_DETERMINANT = 1e-6


class PlacedMask(Protocol):
    """A mask and its place in a volume: a :class:`.prediction.Prediction`, a :class:`Block`, or the scene's MaskBlock.

    ``mask`` is [k, j, i], not 0 inside; ``offset_kji`` is the volume index of its first voxel.
    """

    @property
    def mask(self) -> NDArray: ...

    @property
    def offset_kji(self) -> tuple[int, int, int]: ...


@dataclass(frozen=True, eq=False)
class Block:
    """Part of a volume's mask: uint8 [k, j, i], and the index (k, j, i) of the voxel at which it begins."""

    mask: NDArray
    offset_kji: tuple[int, int, int]


def block_slices(block: PlacedMask) -> tuple[slice, slice, slice]:
    """Returns the place of a mask: ``volume[block_slices(block)]`` has the shape of ``block.mask``."""
    k, j, i = (slice(start, start + n) for start, n in zip(block.offset_kji, block.mask.shape, strict=True))
    return k, j, i


def label_map(blocks: Mapping[int, PlacedMask], shape_kji: tuple[int, ...]) -> NDArray:
    """Draws masks, by their labels, into one label map (K, J, I); where two overlap, the later one wins."""
    labels = np.zeros(shape_kji, np.uint8 if max(blocks, default=0) < 256 else np.uint16)
    for label, block in blocks.items():
        labels[block_slices(block)][np.asarray(block.mask) != 0] = label
    return labels


def as_affine(matrix: ArrayLike, name: str = "ijk_to_ras") -> Affine:
    """Returns a read-only float64 copy of a 4x4 affine. Raises InputError if it is not one or has no inverse."""
    try:
        affine = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a 4x4 matrix of numbers: {error}") from error
    if affine.shape != (4, 4):
        raise InputError(f"{name} must be a 4x4 matrix, not of shape {affine.shape}")
    if not np.isfinite(affine).all():
        raise InputError(f"{name} holds NaN or infinite numbers; check the volume's origin, spacing and directions")
    if not np.allclose(affine[3], (0.0, 0.0, 0.0, 1.0)):
        raise InputError(f"the last row of {name} must be 0 0 0 1; perspective matrices cannot be used")
    if is_singular(affine):
        raise InputError(
            f"{name} is singular: two axes of the volume coincide or a spacing is 0. "
            "Correct the volume's spacing and direction matrix"
        )
    affine.setflags(write=False)
    return affine


def is_singular(affine: NDArray) -> bool:
    """Whether an axis has no length or the axes do not span space (whatever the units)."""
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.isfinite(lengths).all() or lengths.min() <= 0.0:
        return True
    return abs(np.linalg.det(columns / lengths)) < _SMALLEST_DETERMINANT


def transform_points(affine: NDArray, points: ArrayLike) -> NDArray[np.float64]:
    """Applies ``affine`` to points (..., 3)."""
    return np.asarray(points, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]


def world_to_ijk(ijk_to_ras: NDArray, points_ras: ArrayLike) -> NDArray[np.float64]:
    """Converts RAS points (..., 3) to continuous voxel indices (i, j, k)."""
    return transform_points(np.linalg.inv(ijk_to_ras), points_ras)


def voxel_index(coordinates: ArrayLike) -> NDArray[np.int64]:
    """Returns the voxel that holds a continuous index: floor(x + 0.5), so that ties always go up."""
    shifted = np.asarray(coordinates, dtype=np.float64) + 0.5
    nearest = np.round(shifted)
    return np.where(np.abs(shifted - nearest) < 1e-6, nearest, np.floor(shifted)).astype(np.int64)


def voxel_spacing(affine: NDArray) -> NDArray[np.float64]:
    """Length in mm of one step along each index axis, (3,)."""
    return np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)


def voxel_volume(affine: NDArray) -> float:
    """Volume of one voxel in mm^3, right for sheared (gantry tilt) volumes too."""
    return float(abs(np.linalg.det(np.asarray(affine)[:3, :3])))


def closest_ras_axes(ijk_to_ras: NDArray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Finds the index axes (0=i, 1=j, 2=k) that run closest to R, A and S, and their signs.

    Returns:
        (axes, signs): ``axes[r]`` is the index axis nearest to world axis r, ``signs[r]`` -1 where it runs backwards.
    """
    directions = ijk_to_ras[:3, :3] / voxel_spacing(ijk_to_ras)
    axes = max(itertools.permutations(range(3)), key=lambda order: sum(abs(directions[r, order[r]]) for r in range(3)))
    signs = tuple(-1 if directions[r, axes[r]] < 0 else 1 for r in range(3))
    return (axes[0], axes[1], axes[2]), (signs[0], signs[1], signs[2])


def inside_volume(points_ras: NDArray, shape_kji: Sequence[int], ijk_to_ras: NDArray) -> NDArray[np.bool_]:
    """Tells which points (n, 3) RAS mm lie in a volume's box, outer voxel faces included."""
    ijk = world_to_ijk(ijk_to_ras, points_ras)
    return ~np.any((ijk < -0.5 - 1e-6) | (ijk > np.array(shape_kji[::-1]) - 0.5 + 1e-6), axis=1)


def length_scale(ijk_to_ras: NDArray) -> str:
    """Makes a short hash of what lengths depend on: spacings, angles, and which axis is axial; not of the place."""
    columns = np.asarray(ijk_to_ras, dtype=np.float64)[:3, :3]
    metric = np.round(columns.T @ columns, 5) + 0.0  # -0 is 0
    return hashlib.blake2b(metric.tobytes() + bytes([closest_ras_axes(ijk_to_ras)[0][2]]), digest_size=4).hexdigest()


def slice_step(ijk_to_ras: NDArray) -> float:
    """Distance in mm of a volume's most axial slices: its spacing along the index axis nearest to superior."""
    return float(voxel_spacing(ijk_to_ras)[closest_ras_axes(ijk_to_ras)[0][2]])


def slice_normal(ijk_to_ras: NDArray) -> NDArray[np.float64]:
    """Unit vector (3,) across a volume's most axial slices, in RAS."""
    axis = closest_ras_axes(ijk_to_ras)[0][2]
    first, second = (ijk_to_ras[:3, other] for other in range(3) if other != axis)
    normal = np.cross(first, second)
    return normal / np.linalg.norm(normal)


def extent_ras(shape_kji: tuple[int, ...], ijk_to_ras: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest R, A, S (mm) of the volume's box, outer voxel faces included."""
    upper = np.array(shape_kji[::-1], dtype=np.float64) - 0.5
    corners = np.array(list(itertools.product(*((-0.5, high) for high in upper))))
    world = transform_points(ijk_to_ras, corners)
    return world.min(axis=0), world.max(axis=0)


def box_corners(low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """The eight corners (8, 3) of an axis-aligned box."""
    return np.array(list(itertools.product(*zip(np.asarray(low), np.asarray(high), strict=True))), dtype=np.float64)
