"""Blobs of every size: local maxima of scale-normalized Laplacians of Gaussians, with the curvatures that tell balls
from tubes and sheets.

A bright ball of radius r answers most at sigma = r / sqrt(3) (Lindeberg, IJCV 1998). Small balls are looked for on the
field's own cells, large ones on cells of twice the edge, and once more after a median filter, which takes thin vessels
away and leaves the faint haze of ground glass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..inference.geometry import transform_points
from .blob_field import BlobField, Slab
from .coarse_grid import Progress, in_threads, report

FINE, COARSE, MEDIAN = 0, 1, 2
"""Channels: the field's own cells, cells of twice the edge, and those after the median filter."""

_RADII_MM = tuple(1.5 * 2 ** (n / 3) for n in range(11))
#: In cells of the fine grid: the largest radius there, and the smallest after halving and after the median filter.
_FINE_UP_TO, _COARSE_FROM, _MEDIAN_FROM = 4.0, 3.5, 2.9
#: Radii up to this factor beyond the wanted sizes are searched, since a peak's scale is only roughly its size.
_TOLERANCE = 1.3
_TRUNCATE = 3.5
#: Weakest filter response that is kept; a solid ball in the lung gives about 0.5.
_WEAKEST = 0.04


@dataclass(frozen=True)
class Peaks:
    """Local maxima of all levels; every array has n rows.

    Attributes:
        ras: (n, 3) mm.
        radius: mm, of the ball that the level looks for.
        channel: FINE, COARSE or MEDIAN.
        blob: the scale-normalized Laplacian, positive.
        brightness: of the smoothed field.
        curvatures: (n, 3) scale-normalized, the strongest first; positive where it gets darker.
    """

    ras: NDArray[np.float64]
    radius: NDArray[np.float64]
    channel: NDArray[np.int8]
    blob: NDArray[np.float64]
    brightness: NDArray[np.float64]
    curvatures: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.radius)

    @classmethod
    def joined(cls, parts: Sequence[Peaks]) -> Peaks:
        """All peaks of several levels."""
        return cls(*(np.concatenate([getattr(part, name.name) for part in parts]) for name in fields(cls)))


def find_peaks(
    field: BlobField, min_diameter_mm: float, max_diameter_mm: float, progress: Progress | None = None
) -> Peaks | None:
    """Finds the peaks of a field at all sizes between the two diameters; None if there are none.

    Raises:
        PredictionCancelled: ``progress`` returned False.
    """
    cell = field.cell_mm
    wanted = [r for r in _RADII_MM if min_diameter_mm / 2 <= r * _TOLERANCE and r <= max_diameter_mm / 2 * _TOLERANCE]
    fine = [r for r in wanted if r <= _FINE_UP_TO * cell]
    coarse = [r for r in wanted if r >= _COARSE_FROM * cell]
    median = [r for r in wanted if r >= _MEDIAN_FROM * cell]
    halo = int(np.ceil(_TRUNCATE * max(fine, default=0.0) / np.sqrt(3) / cell)) + 3
    slabs = field.slabs(halo)
    first = len(slabs) * (len(fine) + 1)
    total = first + len(coarse) + len(median) + 1

    def search_slab(slab: Slab, tick: Callable[[], None]) -> tuple[NDArray[np.float32], list[Peaks]]:
        block = field.read(slab)
        half, peaks = _halved(block[slab.core]), []
        tick()
        for radius, smooth in _levels(block, fine, cell):
            peaks.append(_peaks_of_level(smooth, FINE, radius, cell, slab.grid_to_ras, slab.core))
            tick()
        return half, peaks

    searched = in_threads(search_slab, slabs, lambda done: report(progress, done, total))
    found = [part for _, parts in searched for part in parts]
    half = np.concatenate([part for part, _ in searched])
    del searched
    half_to_ras = np.array(field.grid_to_ras)
    half_to_ras[:3, 3] += half_to_ras[:3, :3] @ (0.5, 0.5, 0.5)
    half_to_ras[:3, :3] *= 2
    everything = (slice(0, half.shape[0]), slice(0, half.shape[1]), slice(0, half.shape[2]))

    def search_half(levels: tuple[int, list[float]], tick: Callable[[], None]) -> list[Peaks]:
        channel, radii = levels
        block, peaks = ndimage.median_filter(half, 3) if channel == MEDIAN and radii else half, []
        for radius, smooth in _levels(block, radii, 2 * cell):
            peaks.append(_peaks_of_level(smooth, channel, radius, 2 * cell, half_to_ras, everything))
            tick()
        return peaks

    channels = ((COARSE, coarse), (MEDIAN, median))
    for parts in in_threads(search_half, channels, lambda done: report(progress, first + done, total)):
        found += parts
    report(progress, total, total)
    return Peaks.joined(found) if any(len(part) for part in found) else None


def _halved(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 2 x 2 x 2 cells; an odd one out at the end is repeated."""
    block = np.pad(block, [(0, n % 2) for n in block.shape], mode="edge")
    total = np.zeros([n // 2 for n in block.shape], np.float32)
    for k, j, i in itertools.product(range(2), repeat=3):
        total += block[k::2, j::2, i::2]
    total *= np.float32(0.125)
    return total


def _levels(
    block: NDArray[np.float32], radii_mm: Sequence[float], cell_mm: float
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """(radius, the block smoothed for it), the smallest first: each level is made from the one before."""
    before = 0.0
    for radius in radii_mm:
        sigma = radius / np.sqrt(3) / cell_mm
        block = ndimage.gaussian_filter(block, np.sqrt(sigma**2 - before**2), mode="nearest", truncate=_TRUNCATE)
        before = sigma
        yield radius, block


def _peaks_of_level(
    smooth: NDArray[np.float32],
    channel: int,
    radius: float,
    cell_mm: float,
    grid_to_ras: NDArray,
    core: tuple[slice, ...],
) -> Peaks:
    """Local maxima of the Laplacian of one level inside ``core``."""
    # a border, so that peaks at the face of a cropped scan have neighbors
    smooth = np.pad(smooth, 2, mode="edge")
    variance = (radius / cell_mm) ** 2 / 3
    answer = _darkening(smooth)
    answer *= np.float32(variance)
    _lower_border(answer, 2)
    inside = np.zeros(smooth.shape, bool)
    inside[tuple(slice(s.start + 2, s.stop + 2) for s in core)] = True
    strides = [stride // smooth.itemsize for stride in smooth.strides]
    flat, bright = answer.ravel(), smooth.ravel()
    at = np.flatnonzero((answer > _WEAKEST) & inside)
    steps = [int(np.dot(step, strides)) for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
    for step in sorted(steps, key=abs):
        neighbor = flat[at + step]
        at = at[flat[at] > neighbor if step > 0 else flat[at] >= neighbor]
    curvatures = -np.linalg.eigvalsh(_hessians(bright, at, strides)) * variance
    index = np.stack(np.unravel_index(at, smooth.shape), axis=1) - 2.0 + _subcell(flat, at, strides)
    count = len(at)
    return Peaks(
        transform_points(grid_to_ras, index[:, ::-1]),
        np.full(count, radius),
        np.full(count, channel, np.int8),
        flat[at].astype(np.float64),
        bright[at].astype(np.float64),
        curvatures,
    )


def _darkening(smooth: NDArray[np.float32]) -> NDArray[np.float32]:
    """The negative Laplacian in cells, 0 on the outermost planes."""
    out = np.zeros_like(smooth)
    inner = (slice(1, -1),) * 3
    target = out[inner]
    np.multiply(smooth[inner], 6, out=target)
    for axis in range(3):
        for shift in (slice(0, -2), slice(2, None)):
            index = list(inner)
            index[axis] = shift
            target -= smooth[tuple(index)]
    return out


def _lower_border(answer: NDArray[np.float32], width: int) -> None:
    """Lowers the border so that it loses ties: the planes of a one-slice scan are alike, and one must be the peak."""
    for axis in range(3):
        for side in (slice(0, width), slice(-width, None)):
            index = [slice(None)] * 3
            index[axis] = side
            answer[tuple(index)] = np.nextafter(answer[tuple(index)], np.float32(-np.inf))


def _hessians(flat: NDArray, at: NDArray, strides: Sequence[int]) -> NDArray[np.float64]:
    """Second differences at flat indices, (n, 3, 3)."""
    out = np.empty((len(at), 3, 3))
    middle = flat[at].astype(np.float64)
    for a in range(3):
        out[:, a, a] = flat[at + strides[a]] + flat[at - strides[a]] - 2 * middle
        for b in range(a):
            along, across = strides[a] + strides[b], strides[a] - strides[b]
            mixed = flat[at + along] + flat[at - along] - flat[at + across] - flat[at - across]
            out[:, a, b] = out[:, b, a] = mixed / 4.0
    return out


def _subcell(flat: NDArray, at: NDArray, strides: Sequence[int]) -> NDArray[np.float64]:
    """Offset of a maximum from its cell by a parabola along each axis, (n, 3), at most half a cell."""
    out = np.zeros((len(at), 3))
    for axis, stride in enumerate(strides):
        low, middle, high = (flat[at + step].astype(np.float64) for step in (-stride, 0, stride))
        out[:, axis] = 0.5 * (high - low) / np.maximum(2 * middle - low - high, 1e-9)
    return np.clip(out, -0.5, 0.5)
