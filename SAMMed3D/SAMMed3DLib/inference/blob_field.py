"""The image that blobs are searched in: a volume resampled to cubes, its densities compressed, its lung walls painted over.

It is read slab by slab, so that a thousand thin slices need no more memory than a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .geometry import extent_ras, transform_points
from .lungs import LungMask
from .sampling import sample_grid

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
        lung = np.float32(np.interp(_LUNG_HU, *zip(*_TONES, strict=True)))
        tone = np.interp(hu, *zip(*_TONES, strict=True)).astype(np.float32)
        tone[~np.isfinite(hu)] = lung
        if self._lungs is not None:
            to_mask = np.linalg.inv(self._lungs.grid_to_ras) @ slab.grid_to_ras
            share = sample_grid(self._lungs.mask.astype(np.float32).transpose(2, 1, 0), to_mask, shape, 0.0)
            tone -= lung
            tone *= share.transpose(2, 1, 0)
            tone += lung
        return tone
