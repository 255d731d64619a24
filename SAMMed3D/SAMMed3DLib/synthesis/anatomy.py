"""Building blocks of a synthetic CT: branching tubes, smooth random fields, soft edges and tissue layers.

Coordinates here are millimeters along the axes of the array, [k, j, i], from the center of voxel (0, 0, 0).
What the scanner's point spread would blur is painted already blurred: a plane's edge by the Gaussian's integral, a
vessel by the exact profile of a blurred cylinder, so that no supersampling and no filter over the block is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage, special


@dataclass(frozen=True)
class Tubes:
    """Straight tube segments: starts (n, 3) and ends (n, 3) in mm, radii (n,) in mm."""

    starts: np.ndarray
    ends: np.ndarray
    radii: np.ndarray

    def resized(self, scale: float = 1.0, extra_mm: float = 0.0, shift_mm: np.ndarray | float = 0.0) -> Tubes:
        """The same course with radii scaled and enlarged, moved by ``shift_mm`` ((n, 3) or one for all)."""
        return Tubes(self.starts + shift_mm, self.ends + shift_mm, self.radii * scale + extra_mm)

    def select(self, keep: np.ndarray) -> Tubes:
        """The segments that the boolean or index array ``keep`` names."""
        return Tubes(self.starts[keep], self.ends[keep], self.radii[keep])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) scaled to length 1 (the zero vector stays)."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def grow_tree(
    rng: np.random.Generator,
    starts: np.ndarray,
    directions: np.ndarray,
    radii: np.ndarray,
    inside: Callable[[np.ndarray], np.ndarray],
    *,
    minimum_radius: float = 0.4,
    maximum_segments: int = 200,
    pull: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Tubes:
    """Grows vessels that wander, taper and fork, all tips one step at a time.

    A vessel forks after about five of its diameters and shares its radius
    between the children by Murray's law r0^3 = r1^3 + r2^3; the thinner child turns away more.

    Args:
        starts, directions, radii: (n, 3) mm, (n, 3), (n,) mm of the trunks.
        inside: (m, 3) mm -> (m,) bool, where a vessel may go on.
        minimum_radius: a branch that would be thinner ends, in mm.
        maximum_segments: no growth beyond that many segments.
        pull: (m, 3) mm -> (m, 3), a direction that the tips lean to (outwards from the hilum, say).
    """
    tips, radii = np.asarray(starts, dtype=float), np.asarray(radii, dtype=float)
    directions = unit(np.asarray(directions, dtype=float))
    pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    grown = 0
    while len(tips) and grown < maximum_segments:
        count = len(tips)
        lengths = np.maximum(2.0 * radii, 1.5) * rng.uniform(0.7, 1.3, count)
        directions = unit(directions + rng.normal(0.0, 0.1, (count, 3)))
        if pull is not None:
            directions = unit(directions + 0.2 * pull(tips))
        ends = tips + directions * lengths[:, None]
        pieces.append((tips, ends, radii))
        grown += count
        alive = inside(ends)
        tips, directions, radii = ends[alive], directions[alive], radii[alive] * 0.99
        forks = rng.random(len(tips)) < lengths[alive] / np.maximum(10.0 * radii, 5.0)
        share = rng.uniform(0.15, 0.5, int(forks.sum()))
        axis = unit(np.cross(directions[forks], rng.normal(size=(len(share), 3))))
        main = radii.copy()
        main[forks] *= np.cbrt(1 - share)
        turned = directions.copy()
        turned[forks] += 0.35 * share[:, None] * axis
        tips = np.concatenate((tips, tips[forks]))
        directions = unit(np.concatenate((turned, directions[forks] - rng.uniform(0.6, 1.3, (len(share), 1)) * axis)))
        radii = np.concatenate((main, radii[forks] * np.cbrt(share)))
        thick = radii >= minimum_radius
        tips, directions, radii = tips[thick], directions[thick], radii[thick]
    if not pieces:
        return Tubes(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
    return Tubes(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))


_STEPS = 16  # table entries per standard deviation
_THICK = 5.0  # radius in standard deviations from which a cylinder's edge is as good as a plane's


@lru_cache(maxsize=1)
def _cylinder_table() -> np.ndarray:
    """Blurred cylinder: rows radius, columns distance from its axis, both in standard deviations / _STEPS.

    The probability that a 2D Gaussian at that distance falls into the disk: a non-central chi-squared distribution.
    """
    radius = np.arange(int(_THICK * _STEPS) + 1)[:, None] / _STEPS
    distance = np.arange(int((_THICK + 4) * _STEPS) + 1)[None, :] / _STEPS
    return special.chndtr(radius**2, 2.0, distance**2).astype(np.float32)


def tube_occupancy(
    tubes: Tubes,
    shape: Sequence[int],
    spacing: Sequence[float] | np.ndarray,
    sigma_mm: float,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Computes the share of each voxel that tubes fill, seen through a Gaussian point spread.

    Args:
        tubes: segments in mm along [k, j, i].
        shape, spacing: of the array [k, j, i], spacing in mm.
        sigma_mm: standard deviation of the point spread.
        out: array to take the maximum with, in place.

    Returns:
        float32 [k, j, i] in 0..1.
    """
    occupancy = np.zeros(tuple(shape), dtype=np.float32) if out is None else out
    if not len(tubes.radii):
        return occupancy
    table = _cylinder_table()
    scale = np.float32(_STEPS / sigma_mm)
    step = np.asarray(spacing, dtype=float)
    reach = (tubes.radii + 3.0 * sigma_mm)[:, None]
    first = np.ceil((np.minimum(tubes.starts, tubes.ends) - reach) / step).astype(int).clip(min=0)
    stop = (np.floor((np.maximum(tubes.starts, tubes.ends) + reach) / step).astype(int) + 1).clip(max=shape)
    axes = [(np.arange(count) * step[axis]).astype(np.float32) for axis, count in enumerate(shape)]
    courses = tubes.ends - tubes.starts
    lengths = np.maximum(np.linalg.norm(courses, axis=1), 1e-6)
    directions = (courses / lengths[:, None]).astype(np.float32)
    starts = tubes.starts.astype(np.float32)
    radii = tubes.radii / sigma_mm
    rows = np.minimum((radii * _STEPS + 0.5).astype(int), len(table) - 1)
    beyond_table = (np.maximum(radii - _THICK, 0) * sigma_mm).astype(np.float32)
    for segment in np.flatnonzero(np.all(first < stop, axis=1)).tolist():
        (k0, j0, i0), (k1, j1, i1) = first[segment].tolist(), stop[segment].tolist()
        start, direction = starts[segment], directions[segment]
        k, j, i = axes[0][k0:k1] - start[0], axes[1][j0:j1] - start[1], axes[2][i0:i1] - start[2]
        along = (k * direction[0])[:, None, None] + (j * direction[1])[:, None] + i * direction[2]
        squared = (k * k)[:, None, None] + (j * j)[:, None] + i * i
        nearest = np.minimum(np.maximum(along, 0), np.float32(lengths[segment]))
        squared -= nearest * (along + along - nearest)
        distance = np.sqrt(np.maximum(squared, 0, out=squared), out=squared)
        distance -= beyond_table[segment]
        distance *= scale
        row = table[rows[segment]]
        column = np.minimum(np.maximum(distance, 0, out=distance), len(row) - 1).astype(np.int32)
        target = occupancy[k0:k1, j0:j1, i0:i1]
        np.maximum(target, row[column], out=target)
    return occupancy


def paint_tubes(
    hu: np.ndarray, tubes: Tubes, spacing: Sequence[float] | np.ndarray, sigma_mm: float, value: float
) -> None:
    """Paints tubes of ``value`` HU over ``hu`` [k, j, i] in place, touching only the block that they cross."""
    if not len(tubes.radii):
        return
    step = np.asarray(spacing, dtype=float)
    reach = (tubes.radii + 3.0 * sigma_mm)[:, None]
    low = np.floor((np.minimum(tubes.starts, tubes.ends) - reach).min(axis=0) / step).astype(int).clip(min=0)
    high = np.ceil((np.maximum(tubes.starts, tubes.ends) + reach).max(axis=0) / step).astype(int).clip(max=hu.shape)
    if np.all(low < high):
        block = hu[tuple(slice(first, stop) for first, stop in zip(low, high, strict=True))]
        blend(block, tube_occupancy(tubes.resized(shift_mm=-low * step), block.shape, spacing, sigma_mm), value)


def soft_edge(depth_mm: np.ndarray, sigma_mm: float) -> np.ndarray:
    """A plane's edge through a Gaussian point spread: 1 deep inside, 1/2 on the edge (logistic approximation)."""
    return (np.tanh(depth_mm * (0.8 / sigma_mm)) + 1) * 0.5


def smooth_field(
    rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float] | np.ndarray, correlation_mm: float
) -> np.ndarray:
    """Gaussian random field with zero mean and unit variance at every voxel; white below the voxel size.

    White noise on a grid of ``correlation_mm``, carried to the voxels by one small matrix per axis.
    """
    matrices: list[np.ndarray | None] = []
    for count, step in zip(shape, spacing, strict=True):
        if correlation_mm <= step:
            matrices.append(None)
            continue
        nodes = int(np.ceil(count * step / correlation_mm)) + 3
        offset = np.arange(count)[:, None] * (step / correlation_mm) + 1 - np.arange(nodes)
        weights = np.exp(-0.5 * (offset / 0.6) ** 2)
        matrices.append((weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32))
    grid = [count if matrix is None else matrix.shape[1] for count, matrix in zip(shape, matrices, strict=True)]
    field = rng.standard_normal(grid, dtype=np.float32)
    for axis, matrix in enumerate(matrices):
        if matrix is not None:
            field = np.moveaxis(np.tensordot(field, matrix, axes=(axis, 1)), -1, axis)
    return np.ascontiguousarray(field)


def blend(hu: np.ndarray, occupancy: np.ndarray, value: float) -> None:
    """Paints a tissue of ``value`` HU over ``hu`` in place where ``occupancy`` says, 0..1."""
    hu += occupancy * (np.float32(value) - hu)


def layered_tissue(
    depth_mm: np.ndarray, layers: Sequence[tuple[float, float]], sigma_mm: float, step_mm: float = 0.1
) -> np.ndarray:
    """HU of tissue layers at a depth, edges blurred.

    Args:
        depth_mm: signed depth of each voxel.
        layers: (depth at which the layer begins, its HU), the first one reaching to minus infinity.
    """
    starts = np.array([start for start, _ in layers[1:]])
    low, high = starts.min() - 5 * sigma_mm - 1, starts.max() + 5 * sigma_mm + 1
    grid = np.arange(low, high, step_mm)
    table = np.array([value for _, value in layers])[np.searchsorted(starts, grid, side="right")]
    table = ndimage.gaussian_filter1d(table, sigma_mm / step_mm, mode="nearest").astype(np.float32)
    return table[np.clip((depth_mm - low) * (1 / step_mm), 0, len(table) - 1).astype(np.int32)]
