"""Figures of merit of one nodule and of many: surface Dice, clicks needed, volume errors, intervals by patient."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

NSD_TOLERANCES_MM = (0.5, 1.0, 2.0)
NOC_TARGETS = (0.80, 0.85, 0.90)
AUC_CLICKS = 5
_BOOTSTRAPS = 2000
#: Of a cube, as (k, j, i) from 0 to 1.
_CORNERS = tuple(itertools.product((0, 1), repeat=3))


def surface_dice(
    truth: NDArray,
    prediction: NDArray,
    spacing: Sequence[float] | NDArray,
    tolerances_mm: Sequence[float] = NSD_TOLERANCES_MM,
) -> tuple[float, ...]:
    """Normalized surface Dice (NSD): the share of both surfaces that lies within a tolerance of the other one.

    After Nikolov et al., J Med Internet Res 2021;23:e26151, as their package surface-distance computes it. A surface
    consists of the corners between voxels at which inside and outside meet; each counts with the area of the marching
    cubes' surface in the 2 x 2 x 2 voxels around it. Distances are exact, between corners: below the voxel size a
    tolerance counts only surface that coincides. Other than there, a distance may exceed a tolerance by 1e-6 mm, and
    two empty masks are equal (there: NaN).

    Args:
        truth, prediction: (K, J, I), non-zero inside; what lies beyond the arrays is outside.
        spacing: voxel size along k, j, i in mm.
        tolerances_mm: one result each.

    Returns:
        values in [0, 1]; 1 where both masks are empty, 0 where one is.

    Raises:
        ValueError: shapes differ, or they are not 3D.
    """
    first, second = np.asarray(truth) != 0, np.asarray(prediction) != 0
    if first.shape != second.shape or first.ndim != 3:
        raise ValueError(f"surfaces are compared of 3D masks of one shape, not {first.shape} and {second.shape}")
    if not first.any() or not second.any():
        return (float(first.any() == second.any()),) * len(tolerances_mm)
    step = np.asarray(spacing, dtype=np.float64)
    box = ndimage.find_objects((first | second).astype(np.uint8))[0]
    areas = [_corner_areas(np.pad(mask[box], 1), step) for mask in (first, second)]
    distances = [ndimage.distance_transform_edt(~(area > 0), sampling=step) for area in areas]
    total = areas[0].sum() + areas[1].sum()
    missed = [
        sum(area[distance > tolerance + 1e-6].sum() for area, distance in zip(areas, reversed(distances), strict=True))
        for tolerance in tolerances_mm
    ]
    return tuple(float(1.0 - area / total) for area in missed)


def _corner_areas(mask: NDArray[np.bool_], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of the surface at each corner between 2 x 2 x 2 voxels, (K-1, J-1, I-1); 0 off the surface."""
    code = np.zeros([n - 1 for n in mask.shape], np.uint8)
    for bit, corner in enumerate(_CORNERS):
        part = tuple(slice(start, n - 1 + start) for start, n in zip(corner, mask.shape, strict=True))
        code |= mask[part].astype(np.uint8) << bit
    # A face's vector of area grows with the two spacings across it.
    scale = np.prod(step) / step
    areas = [float(np.linalg.norm(vectors * scale, axis=1).sum()) for vectors in _surface_elements()]
    return np.array(areas)[code]


@functools.cache
def _surface_elements() -> tuple[NDArray[np.float64], ...]:
    """Tabulates, for the 256 codes of 2 x 2 x 2 voxels (bit n: corner n is inside), the triangles' area vectors (n, 3).

    Marching cubes of the original 15 cases: vertices lie in the middles of edges, where a face leaves a choice the
    fewer corners are cut off, and of a polygon's divisions into triangles the largest counts. That is the table of
    surface-distance, found again from its areas.
    """
    found = []
    for code in range(256):
        inside = code if code.bit_count() <= 4 else 255 - code
        vectors = [vector for loop in _surface_loops(inside) for vector in _largest_division(np.array(loop))]
        found.append(np.array(vectors).reshape(-1, 3))
    return tuple(found)


def _surface_loops(inside: int) -> list[list[tuple[float, ...]]]:
    """The polygons that cut the corners of a code off the rest of the unit cube, each as its vertices in order."""
    neighbors: dict[tuple[float, ...], list[tuple[float, ...]]] = {}
    for axis, side in itertools.product(range(3), (0, 1)):
        face = [np.insert(corner, axis, side) for corner in ((0, 0), (0, 1), (1, 1), (1, 0))]
        within = [bool(inside >> int(corner @ (4, 2, 1)) & 1) for corner in face]
        middles = [tuple((face[n] + face[n - 1]) / 2) for n in range(4)]  # before corner n
        for n in range(4):
            if within[n] and not within[n - 1]:  # a row of corners inside begins here
                end = next(n + m for m in range(1, 4) if not within[(n + m) % 4])
                first, last = middles[n], middles[end % 4]
                neighbors.setdefault(first, []).append(last)
                neighbors.setdefault(last, []).append(first)
    loops = []
    while neighbors:
        loop = [next(iter(neighbors))]
        while following := [each for each in neighbors.pop(loop[-1]) if each in neighbors]:
            loop.append(following[0])
        loops.append(loop)
    return loops


def _largest_division(loop: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The vectors of area of the triangles of a polygon (n, 3), divided so that their areas' sum is largest."""
    if len(loop) < 3:
        return []
    divisions = []
    for n in range(1, len(loop) - 1):
        triangle = np.cross(loop[n] - loop[0], loop[-1] - loop[0]) / 2
        divisions.append([triangle, *_largest_division(loop[: n + 1]), *_largest_division(loop[n:])])
    # Equal sums must not be told apart by their rounding.
    return max(divisions, key=lambda vectors: round(sum(float(np.linalg.norm(each)) for each in vectors), 9))


def area_under_curve(values: Sequence[float]) -> float | None:
    """Area under a curve over the first clicks, trapezoids of width 1 (of 5 clicks at most 4, as in the challenge).

    None where the curve has fewer clicks: such areas cannot be compared.
    """
    if len(values) < AUC_CLICKS:
        return None
    curve = np.asarray(values[:AUC_CLICKS], dtype=np.float64)
    return float(((curve[1:] + curve[:-1]) / 2).sum())


def clicks_to(curve: Sequence[float], target: float) -> int | None:
    """Number of clicks after which a curve first reached a target (NoC@target); None where it never did."""
    return next((click for click, value in enumerate(curve, start=1) if value >= target), None)


def clicks_needed(counts: Sequence[int | None], cap: int) -> tuple[float, float]:
    """Mean number of clicks to a target over many nodules, and the share of nodules that never reached it.

    Args:
        counts: clicks of each nodule, None where it failed; a failure counts as ``cap``.
        cap: most clicks that were given.

    Returns:
        (mean number of clicks, failures in [0, 1]).
    """
    return float(np.mean([cap if c is None else c for c in counts])), float(np.mean([c is None for c in counts]))


def relative_error(value: float, truth: float) -> float:
    """(value - truth) / truth."""
    return (value - truth) / truth


def variation(values: Sequence[float]) -> float | None:
    """Coefficient of variation: sample standard deviation / mean; None of fewer than two values or of a mean of 0."""
    if len(values) < 2 or not np.mean(values) > 0:
        return None
    return float(np.std(values, ddof=1) / np.mean(values))


def bootstrap_interval(
    values: Sequence[float] | NDArray, patients: Sequence[Hashable], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Interval of the mean over nodules when patients are drawn with replacement (nodules of a patient are alike).

    Returns:
        (low, high), or None with fewer than two patients: nothing can be said then.
    """
    names = sorted(set(patients), key=str)
    if len(names) < 2:
        return None
    index = {name: number for number, name in enumerate(names)}
    owner = np.array([index[patient] for patient in patients])
    sums = np.bincount(owner, weights=np.asarray(values, dtype=np.float64), minlength=len(names))
    counts = np.bincount(owner, minlength=len(names))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_BOOTSTRAPS)
    means = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
