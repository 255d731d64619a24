"""The image that blobs are searched in: a volume resampled to cubes, its densities compressed, its lung walls painted over.

It is read slab by slab, so that a thousand thin slices need no more memory than a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .geometry import extent_ras, transform_points, world_to_ijk
from .lungs import LungMask
from .sampling import sample_grid

_RIM_SAMPLES, _RIM_BINS = 100_000, 21
_SLAB_CELLS = 3_000_000
_MARGIN_MM = 6.0
#: HU and the brightness they are shown as: what is faint counts more than its contrast.
_TONES = ((-950.0, 0.0), (-600.0, 0.55), (-200.0, 0.9), (50.0, 1.0))
_LUNG_HU = -860.0
_MOST_CELLS = 60_000_000


@dataclass(frozen=True)
class Slab:
    """A piece of the field: ``start``..``stop`` along k with a halo, of which ``core`` is its own.

    Attributes:
        start, stop: first and last + 1 plane of the grid, halo included.
        core: slices [k, j, i] of the piece without the halo.
        grid_to_ras: (4, 4) of the piece.
    """

    start: int
    stop: int
    core: tuple[slice, slice, slice]
    grid_to_ras: NDArray[np.float64]


class BlobField:
    """Brightness 0..1 on a grid of cubes with axes R, A, S around the lungs.

    Attributes:
        shape: (k, j, i) of the whole grid.
        grid_to_ras: (4, 4).
        cell_mm: edge of a cell.
    """

    def __init__(self, array_kji: NDArray, ijk_to_ras: NDArray, lungs: LungMask | None, cell_mm: float) -> None:
        self._array, self._affine, self._lungs = array_kji, ijk_to_ras, lungs
        low, high = extent_ras(array_kji.shape, ijk_to_ras)
        if lungs is not None:
            inside = np.argwhere(lungs.mask)[:, ::-1]
            corners = transform_points(lungs.grid_to_ras, np.array([inside.min(axis=0), inside.max(axis=0)]))
            low = np.maximum(low, corners.min(axis=0) - _MARGIN_MM)
            high = np.minimum(high, corners.max(axis=0) + _MARGIN_MM)
        self.cell_mm = max(cell_mm, float(np.cbrt(np.prod(high - low) / _MOST_CELLS)))
        size = np.maximum(np.ceil((high - low) / self.cell_mm), 1).astype(int)
        self.grid_to_ras = np.diag([self.cell_mm] * 3 + [1.0])
        self.grid_to_ras[:3, 3] = (low + high) / 2 - self.cell_mm * (size - 1) / 2
        self.shape = tuple(int(n) for n in size[::-1])
        self._rim = None if lungs is None else self._brightness_of_rim(lungs)

    def _brightness_of_rim(self, lungs: LungMask) -> NDArray[np.float32]:
        """Median brightness where the share of lung is 0, 0.05, ... 1: what the bare pleura looks like in this scan."""
        rng = np.random.default_rng(0)
        rim = np.argwhere(ndimage.binary_dilation(lungs.mask, iterations=2) & (ndimage.uniform_filter(lungs.cells, 3) < 0.999))
        cells = rim[rng.integers(len(rim), size=_RIM_SAMPLES)] + rng.uniform(-0.5, 0.5, (_RIM_SAMPLES, 3))
        points = transform_points(lungs.grid_to_ras, cells[:, ::-1])
        index = world_to_ijk(self._affine, points)[:, ::-1]
        hu = ndimage.map_coordinates(self._array, index.T, output=np.float32, order=1, mode="nearest")
        tone = np.interp(hu, *zip(*_TONES, strict=True))
        bins = np.round(lungs.share_at(points) * (_RIM_BINS - 1)).astype(int)
        medians = ndimage.median(tone, bins, np.arange(_RIM_BINS))
        return np.nan_to_num(np.asarray(medians), nan=1.0).astype(np.float32)

    def slabs(self, halo: int) -> list[Slab]:
        """Pieces along k, of an even number of planes each."""
        planes = self.shape[0]
        step = max(2 * halo, 8, _SLAB_CELLS // (self.shape[1] * self.shape[2]) // 2 * 2)
        step += step % 2
        found = []
        for first in range(0, planes, step):
            last = min(first + step, planes)
            start, stop = max(first - halo, 0), min(last + halo, planes)
            to_ras = np.array(self.grid_to_ras)
            to_ras[:3, 3] += to_ras[:3, 2] * start
            core = (slice(first - start, last - start), slice(0, self.shape[1]), slice(0, self.shape[2]))
            found.append(Slab(start, stop, core, to_ras))
        return found

    def read(self, slab: Slab) -> NDArray[np.float32]:
        """The brightness of a slab, float32 [k, j, i]."""
        shape = (self.shape[2], self.shape[1], slab.stop - slab.start)
        hu = sample_grid(self._array.transpose(2, 1, 0), np.linalg.inv(self._affine) @ slab.grid_to_ras, shape, np.nan)
        hu = np.ascontiguousarray(hu.transpose(2, 1, 0))
        lung = np.float32(np.interp(_LUNG_HU, *zip(*_TONES, strict=True))) if self._rim is None else self._rim[-1]
        tone = np.interp(hu, *zip(*_TONES, strict=True)).astype(np.float32)
        tone[~np.isfinite(hu)] = lung
        if self._lungs is not None:
            to_mask = np.linalg.inv(self._lungs.grid_to_ras) @ slab.grid_to_ras
            share = sample_grid(self._lungs.cells.transpose(2, 1, 0), to_mask, shape, 0.0)
            share = share.transpose(2, 1, 0)
            bare = np.interp(share, np.linspace(0, 1, _RIM_BINS), self._rim).astype(np.float32)
            tone = lung + np.maximum(tone - bare, -0.1) * np.clip(2 * share, 0, 1)
        return tone
