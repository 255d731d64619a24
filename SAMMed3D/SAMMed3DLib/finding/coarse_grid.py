"""Resamples a volume to a coarse grid with axes R, A, S, on which whole scans are searched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..inference.errors import PredictionCancelled
from ..inference.geometry import extent_ras, voxel_spacing
from ..inference.sampling import sample_grid

#: (done, total) -> False cancels.
Progress = Callable[[int, int], object]

#: Voxels averaged at once; small enough that a progress callback is never late.
_CHUNK_VOXELS = 8 * 2**20
#: More threads would only wait for memory.
_MOST_THREADS = 4
_PATIENCE_S = 0.1
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class CoarseVolume:
    """A volume averaged over cubes.

    Attributes:
        values: float32 [k, j, i] (S, A, R upwards).
        known: bool of the same shape, where the volume is.
        grid_to_ras: (4, 4), (i, j, k) to RAS mm, axes parallel to R, A, S.
        cell_mm: edge of a cell.
    """

    values: NDArray[np.float32]
    known: NDArray[np.bool_]
    grid_to_ras: NDArray[np.float64]
    cell_mm: float


def report(progress: Progress | None, done: int, total: int) -> None:
    """Calls ``progress``; raises PredictionCancelled if it returns False."""
    if progress is not None and progress(done, total) is False:
        raise PredictionCancelled("the search for nodules was cancelled")


def in_threads(
    work: Callable[[_Item, Callable[[], None]], _Result],
    items: Sequence[_Item],
    told: Callable[[int], object] | None = None,
) -> list[_Result]:
    """Results of ``work`` for all items, in their order, on as many threads as torch may use.

    Args:
        work: called with an item and a function to call after every step; NumPy and SciPy must do most of it.
        items: for each of which it is called.
        told: called in the caller's own thread with how many steps all have done. What it raises is raised here, and
            the others stop at their next step.
    """
    threads = min(torch.get_num_threads(), _MOST_THREADS, len(items))
    steps, stopped, lock = 0, threading.Event(), threading.Lock()

    def step() -> None:
        nonlocal steps
        if stopped.is_set():
            raise PredictionCancelled("the search for nodules was cancelled")
        with lock:
            steps += 1
        if threads < 2 and told is not None:
            told(steps)

    if threads < 2:
        return [work(item, step) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, item, step) for item in items]
        running = set(futures)
        try:
            while running:
                done, running = wait(running, timeout=_PATIENCE_S, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                if told is not None:
                    told(steps)
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


def pool_volume(
    array_kji: NDArray,
    factors_kji: NDArray,
    low: float = -np.inf,
    high: float = np.inf,
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.float32]:
    """Averages blocks of ``factors_kji`` voxels, their values clipped to low..high; an incomplete last block is
    dropped.

    Args:
        array_kji: (K, J, I), any numeric dtype and memory order.
        factors_kji: (3,) whole numbers; 1 keeps an axis.
        low, high: values beyond are clipped first, so that padding of -3024 does not darken its neighbors.
        progress: called with the share that is done, 0..1.
    """
    factors = [int(f) for f in factors_kji]
    count = [max(n // f, 1) for n, f in zip(array_kji.shape, factors, strict=True)]
    factors = [min(f, n) for n, f in zip(array_kji.shape, factors, strict=True)]
    used = array_kji[tuple(slice(0, n * f) for n, f in zip(count, factors, strict=True))]
    out = np.empty(count, np.float32)
    step = max(1, int(_CHUNK_VOXELS // max(used[0].size * factors[0], 1)))

    def pool(start: int, tick: Callable[[], None]) -> None:
        stop = min(start + step, count[0])
        block = used[start * factors[0] : stop * factors[0]].astype(np.float32)
        np.clip(block, low, high, out=block)
        # slices first: whole planes are added, then the sums shrink
        block = block.reshape(stop - start, factors[0], *block.shape[1:]).sum(axis=1)
        block = np.add.reduceat(block, np.arange(0, block.shape[1], factors[1]), axis=1)
        block = np.add.reduceat(block, np.arange(0, block.shape[2], factors[2]), axis=2)
        out[start:stop] = block
        tick()

    starts = range(0, count[0], step)
    in_threads(pool, starts, None if progress is None else lambda done: progress(done / len(starts)))
    out /= np.float32(np.prod(factors))
    return out


def pooled_affine(ijk_to_ras: NDArray, factors_kji: NDArray) -> NDArray[np.float64]:
    """The matrix of a volume pooled by ``factors_kji``."""
    factors = np.asarray(factors_kji, np.float64)[::-1]
    affine = np.array(ijk_to_ras, np.float64)
    affine[:3, 3] += affine[:3, :3] @ ((factors - 1) / 2)
    affine[:3, :3] *= factors
    return affine


def pool_factors(ijk_to_ras: NDArray, shape_kji: tuple[int, ...], cell_mm: float) -> NDArray[np.int64]:
    """Returns how many voxels along [k, j, i] fit into a cell, at least 1."""
    fitting = np.floor(cell_mm / voxel_spacing(ijk_to_ras)[::-1] + 0.2).astype(np.int64)
    return np.clip(fitting, 1, shape_kji)


def coarse_volume(
    array_kji: NDArray,
    ijk_to_ras: NDArray,
    cell_mm: float,
    most_cells: int,
    low: float,
    high: float,
    progress: Callable[[float], None] | None = None,
) -> CoarseVolume:
    """Averages the whole volume over cells of ``cell_mm``, or larger ones to stay within ``most_cells``."""
    first, last = extent_ras(array_kji.shape, ijk_to_ras)
    cell = max(cell_mm, float(np.cbrt(np.prod(last - first) / most_cells)))
    factors = pool_factors(ijk_to_ras, array_kji.shape, cell)
    pooled = pool_volume(array_kji, factors, low, high, progress)
    shape = np.maximum(np.round((last - first) / cell), 1).astype(int)
    grid_to_ras = np.diag([cell, cell, cell, 1.0])
    grid_to_ras[:3, 3] = (first + last) / 2 - cell * (shape - 1) / 2
    to_pooled = np.linalg.inv(pooled_affine(ijk_to_ras, factors)) @ grid_to_ras
    values = sample_grid(pooled.transpose(2, 1, 0), to_pooled, tuple(int(n) for n in shape), np.nan)
    values = np.ascontiguousarray(values.transpose(2, 1, 0))
    known = np.isfinite(values)
    values[~known] = low
    return CoarseVolume(values, known, grid_to_ras, cell)
