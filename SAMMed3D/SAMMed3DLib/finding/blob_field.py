"""The image in which blobs are searched: a volume resampled to cubes, its densities compressed, its lung walls painted
over.

It is read slab by slab, so that a thousand thin slices need no more memory than a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..inference.geometry import box_corners, transform_points, world_to_ijk
from ..inference.sampling import sample_grid
from .coarse_grid import pool_factors, pool_volume, pooled_affine
from .lungs import LungMask, extent_around

#: Pairs of HU and brightness: faint structures become brighter than their contrast alone would make them.
_TONES_HU = ((-950.0, 0.0), (-600.0, 0.55), (-200.0, 0.9), (50.0, 1.0))
_LUNG_HU = -860.0
#: A volume whose darkest percent is brighter than this is no CT; its own range is used as the scale.
_NO_CT_ABOVE = -300.0
#: Lowest brightness that may remain once the brightness of the bare wall is subtracted.
_DARKEST = -0.1
_RIM_SAMPLES, _RIM_BINS = 100_000, 21
_MARGIN_MM = 6.0
_SLAB_CELLS = 3_000_000
#: Larger fields get larger cells.
_MOST_CELLS = 60_000_000


@dataclass(frozen=True)
class Slab:
    """A piece of the field along k, with a halo.

    Attributes:
        planes: how many there are, the halo included.
        core: slices [k, j, i] of the piece without its halo.
        grid_to_ras: (4, 4) of the piece.
    """

    planes: int
    core: tuple[slice, slice, slice]
    grid_to_ras: NDArray[np.float64]


class BlobField:
    """Brightness 0..1 on a grid of cubes with axes R, A, S around the lungs, or around the whole volume.

    Args:
        array_kji: (K, J, I).
        ijk_to_ras: (4, 4).
        lungs: what lies outside is shown as lung; None shows everything.
        cell_mm: edge of a cell.

    Attributes:
        shape: (k, j, i) of the whole grid.
        grid_to_ras: (4, 4).
        cell_mm: edge of a cell, larger than asked for in very large volumes.
        background: brightness of lung.
    """

    def __init__(self, array_kji: NDArray, ijk_to_ras: NDArray, lungs: LungMask | None, cell_mm: float) -> None:
        self._array, self._affine, self._lungs = array_kji, ijk_to_ras, lungs
        low, high = extent_around(array_kji.shape, ijk_to_ras, lungs, _MARGIN_MM)
        self.cell_mm = max(cell_mm, float(np.cbrt(np.prod(high - low) / _MOST_CELLS)))
        size = np.maximum(np.ceil((high - low) / self.cell_mm), 1).astype(int)
        self.grid_to_ras = np.diag([self.cell_mm] * 3 + [1.0])
        self.grid_to_ras[:3, 3] = (low + high) / 2 - self.cell_mm * (size - 1) / 2
        self.shape = tuple(int(n) for n in size[::-1])
        self._tones = np.array(_TONES_HU)
        self.background = np.float32(np.interp(_LUNG_HU, *self._tones.T))
        self._rim = None
        if lungs is not None:
            self._rim = self._brightness_of_rim(lungs)
            self.background = self._rim[-1]
        else:
            self._adapt_tones()

    def _adapt_tones(self) -> None:
        """Without lungs the volume may be no CT at all: an MR is shown from its darkest to its brightest percent."""
        step = [max(1, n // 64) for n in self._array.shape]
        low, high = np.percentile(self._array[:: step[0], :: step[1], :: step[2]], (1.0, 99.0))
        if low > _NO_CT_ABOVE:
            self._tones = np.array(((low, 0.0), (max(high, low + 1.0), 1.0)))
            self.background = np.float32(0.0)

    def _brightness_of_rim(self, lungs: LungMask) -> NDArray[np.float32]:
        """Median brightness where the share of lung is 0, 0.05, ... 1: what the bare pleura looks like in this scan."""
        rng = np.random.default_rng(0)
        deep = ndimage.binary_erosion(lungs.mask, iterations=2, border_value=1)
        rim = np.argwhere(ndimage.binary_dilation(lungs.mask, iterations=2) & ~deep)
        if not len(rim):
            rim = np.argwhere(lungs.mask)
        cells = rim[rng.integers(len(rim), size=_RIM_SAMPLES)] + rng.uniform(-0.5, 0.5, (_RIM_SAMPLES, 3))
        points = transform_points(lungs.grid_to_ras, cells[:, ::-1])
        tone = self.brightness_at(points)
        bins = np.round(lungs.share_at(points) * (_RIM_BINS - 1)).astype(int)
        medians = np.full(_RIM_BINS, np.nan, np.float32)
        present = np.unique(bins)
        medians[present] = ndimage.median(tone, bins, present)
        known = np.isfinite(medians)
        return np.interp(np.arange(_RIM_BINS), np.flatnonzero(known), medians[known]).astype(np.float32)

    def brightness_of(self, hu: float) -> float:
        """Returns the brightness of a density; 0 in volumes that are no CT."""
        return float(np.interp(hu, *self._tones.T))

    def brightness_at(self, points_ras: NDArray) -> NDArray[np.float64]:
        """Returns the brightness of the volume itself at points (..., 3) mm: trilinear, walls not painted over."""
        index = world_to_ijk(self._affine, points_ras.reshape(-1, 3))[:, ::-1]
        values = ndimage.map_coordinates(self._array, index.T, output=np.float32, order=1, mode="nearest")
        return np.interp(values, *self._tones.T).reshape(points_ras.shape[:-1])

    def slabs(self, halo: int) -> list[Slab]:
        """Pieces along k, of an even number of planes each (but for the last)."""
        planes = self.shape[0]
        step = max(4 * halo, 8, _SLAB_CELLS // (self.shape[1] * self.shape[2]))
        step += step % 2
        found = []
        for first in range(0, planes, step):
            last = min(first + step, planes)
            start, stop = max(first - halo, 0), min(last + halo, planes)
            to_ras = np.array(self.grid_to_ras)
            to_ras[:3, 3] += to_ras[:3, 2] * start
            core = (slice(first - start, last - start), slice(0, self.shape[1]), slice(0, self.shape[2]))
            found.append(Slab(stop - start, core, to_ras))
        return found

    def read(self, slab: Slab) -> NDArray[np.float32]:
        """The brightness of a slab, float32 [k, j, i]."""
        shape = (self.shape[2], self.shape[1], slab.planes)
        values = self._sampled(slab.grid_to_ras, shape)
        tone = np.interp(values, *self._tones.T).astype(np.float32)
        tone[~np.isfinite(values)] = self.background
        if self._lungs is None or self._rim is None:
            return tone
        to_mask = np.linalg.inv(self._lungs.grid_to_ras) @ slab.grid_to_ras
        share = sample_grid(self._lungs.cells.transpose(2, 1, 0), to_mask, shape, 0.0).transpose(2, 1, 0)
        tone -= np.interp(share, np.linspace(0, 1, _RIM_BINS), self._rim).astype(np.float32)
        np.maximum(tone, _DARKEST, out=tone)
        tone *= np.clip(2 * share, 0, 1)
        tone += self.background
        return tone

    def _sampled(self, grid_to_ras: NDArray, shape: tuple[int, int, int]) -> NDArray[np.float32]:
        """The volume's values on a grid; voxels much smaller than its cells are averaged before."""
        array, affine = self._array, self._affine
        factors = pool_factors(affine, array.shape, self.cell_mm * 0.9)
        if factors.max() > 1:
            # whole groups of voxels around the slab
            last = np.array(shape) - 0.5
            corners = world_to_ijk(affine, transform_points(grid_to_ras, box_corners((-0.5,) * 3, last)))[:, ::-1]
            size = np.array(array.shape)
            low = np.clip(np.floor(corners.min(axis=0)).astype(int) // factors * factors, 0, size - 1)
            high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1 + factors, low + 1, size)
            affine = np.array(affine)
            affine[:3, 3] = transform_points(affine, low[::-1])
            array = pool_volume(array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], factors)
            affine = pooled_affine(affine, factors)
        values = sample_grid(array.transpose(2, 1, 0), np.linalg.inv(affine) @ grid_to_ras, shape, np.nan)
        return np.ascontiguousarray(values.transpose(2, 1, 0))
