"""Trilinear sampling of one array on the grid of another: the only interpolation in the engine.

Everything here speaks of a ``source`` indexed by its own axes (0, 1, 2) and of an affine from the indices of the
wanted grid to continuous source indices. Images go through it into crops, logits through it back into voxels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

#: Coordinates this close (in source voxels) to a whole number or to an axis are taken to lie on it.
_EXACT = 1e-6
#: A tilt that moves a sample by less than this (in source voxels) over the whole grid counts as axis-aligned.
_STRAIGHT = 1e-4
#: The largest block of the source that is converted to float32 at once when sampling obliquely.
_LARGEST_BLOCK = 32 * 2**20
#: The most oblique samples that are taken at once: each needs some 40 bytes on the way.
_MOST_SAMPLES = 2 * 2**20


def sample_grid(
    source: NDArray, grid_to_source: NDArray, shape: Sequence[int], cval: float | None
) -> NDArray[np.float32]:
    """Trilinear samples of ``source`` at every point of a grid, float32 of ``shape``.

    Points in the box of the source (half an index beyond the outer centers, where the border repeats) are interpolated;
    all others are ``cval``, or the border's nearest value.

    Args:
        source: (A, B, C), any numeric dtype and memory order.
        grid_to_source: (4, 4), grid index to continuous source index.
        shape: of the grid.
        cval: value outside; None goes on with the border.
    """
    out = np.full(shape, 0.0 if cval is None else cval, dtype=np.float32)
    axes = _axis_of_each_grid_axis(grid_to_source, out.shape)
    if axes is None:
        # read memory in the order in which it is laid out
        order = sorted(range(3), key=lambda axis: -abs(source.strides[axis]))
        affine = np.array(grid_to_source, dtype=np.float64)
        _sample_oblique(source.transpose(order), affine[[*order, 3]], out, cval is None)
    else:
        affine = np.asarray(grid_to_source, dtype=np.float64)
        _sample_aligned(source.transpose(axes), axes, affine, out, cval is None)
    return out


def _axis_of_each_grid_axis(affine: NDArray, shape: Sequence[int]) -> tuple[int, int, int] | None:
    """The source axis along which each grid axis runs, or None if the grid lies obliquely."""
    matrix = np.abs(affine[:3, :3])
    axes = tuple(int(axis) for axis in matrix.argmax(axis=0))
    if sorted(axes) != [0, 1, 2]:
        return None
    drift = matrix.copy()
    drift[list(axes), [0, 1, 2]] = 0.0
    if (drift * (np.array(shape) - 1)).sum(axis=1).max() > _STRAIGHT:
        return None
    return axes[0], axes[1], axes[2]


def _sample_aligned(
    source: NDArray, axes: tuple[int, int, int], affine: NDArray, out: NDArray[np.float32], everywhere: bool
) -> None:
    """Separable interpolation; ``source`` has its axes in the grid's order already.

    Plane by plane along the axis of the largest stride: planes are blended, rows, and columns. Each plane
    stays in the processor's cache, and memory is read in order. (Matrix products would do the same, but BLAS
    threads that wait for a busy processor cost more than they bring here.)
    """
    lerps = []
    for grid_axis, axis in enumerate(axes):
        # the drift of an almost straight grid is taken at its middle
        middle = (np.array(out.shape) - 1) / 2.0
        middle[grid_axis] = 0.0
        start = affine[axis, :3] @ middle + affine[axis, 3]
        length = source.shape[grid_axis]
        lerps.append(_Lerp(start, affine[axis, grid_axis], out.shape[grid_axis], length, everywhere))
    if any(lerp.low.size == 0 for lerp in lerps):
        return
    block = source[tuple(lerp.span for lerp in lerps)]
    finer = np.prod([lerp.low.size for lerp in lerps]) > block.size
    if finer:  # there are more samples than source voxels: then the order of the samples' memory counts
        block = np.ascontiguousarray(block)
    order = tuple(sorted(range(3), key=lambda axis: -abs(block.strides[axis])))
    block = block.transpose(order)
    planes, rows, columns = (lerps[axis] for axis in order)
    target = out[tuple(lerp.inside for lerp in lerps)].transpose(order)

    low_planes, high_planes = planes.low - planes.span.start, planes.high - planes.span.start
    low_rows, high_rows = rows.low - rows.span.start, rows.high - rows.span.start
    row_weight = rows.weight[:, None]
    low_columns, high_columns = columns.low - columns.span.start, columns.high - columns.span.start

    def in_plane(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        lower, upper = plane.take(low_rows, axis=0), plane.take(high_rows, axis=0)
        upper -= lower
        upper *= row_weight
        lower += upper
        left = lower.take(low_columns, axis=1)
        right = lower.take(high_columns, axis=1)
        right -= left
        right *= columns.weight
        right += left
        return right

    if finer:
        # every source plane is stretched once, and the stretched ones are blended
        stretched: dict[int, NDArray[np.float32]] = {}
        for index, (low, high) in enumerate(zip(low_planes.tolist(), high_planes.tolist(), strict=True)):
            stretched = {
                number: stretched[number] if number in stretched else in_plane(block[number].astype(np.float32))
                for number in (low, high)
            }
            blended = stretched[high] - stretched[low]
            blended *= planes.weight[index]
            blended += stretched[low]
            target[index] = blended
        return
    for index, (low, high) in enumerate(zip(low_planes, high_planes, strict=True)):
        plane = block[low].astype(np.float32)
        if planes.weight[index] > 0.0:
            plane += planes.weight[index] * (block[high] - plane)
        target[index] = in_plane(plane)


class _Lerp:
    """Linear interpolation along one axis: sample n lies at ``start + step * n``.

    Attributes:
        inside: slice of the samples that lie in the source's box, or of all of them where the border goes on.
        low, high, weight: of those samples; value = (1 - weight) * source[low] + weight * source[high].
        span: slice of the source that they touch.
    """

    def __init__(self, start: float, step: float, count: int, length: int, everywhere: bool) -> None:
        position = start + step * np.arange(count)
        in_box = (position >= -0.5 - _EXACT) & (position <= length - 0.5 + _EXACT)
        valid = np.flatnonzero(in_box | everywhere)
        self.inside = slice(int(valid[0]), int(valid[-1]) + 1) if valid.size else slice(0, 0)
        position = np.clip(position[self.inside], 0.0, length - 1.0)
        nearest = np.round(position)
        position = np.where(np.abs(position - nearest) < _EXACT, nearest, position)
        self.low = np.floor(position).astype(np.intp)
        self.high = np.minimum(self.low + 1, length - 1)
        self.weight = (position - self.low).astype(np.float32)
        self.span = slice(int(self.low.min()), int(self.high.max()) + 1) if valid.size else slice(0, 0)


def _sample_oblique(source: NDArray, affine: NDArray, out: NDArray[np.float32], everywhere: bool) -> None:
    """Samples through any affine, by torch's grid_sample on the block of the source under the grid; large in parts."""
    last = np.array(out.shape) - 1
    corners = np.array(list(itertools.product(*((0, n) for n in last)))) @ affine[:3, :3].T + affine[:3, 3]
    size = np.array(source.shape)
    low = np.clip(np.floor(corners.min(axis=0)).astype(np.int64), 0, size - 1)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(np.int64), 0, size - 1) + 1
    beside = (corners.max(axis=0) < -0.5 - _EXACT).any() or (corners.min(axis=0) > size - 0.5 + _EXACT).any()
    if beside and not everywhere:
        return
    if (np.prod(high - low) > _LARGEST_BLOCK or out.size > _MOST_SAMPLES) and max(out.shape) > 1:
        axis = int(np.argmax(out.shape))
        half = out.shape[axis] // 2
        shifted = affine.copy()
        shifted[:3, 3] += affine[:3, axis] * half
        index: list[slice] = [slice(None)] * 3
        index[axis] = slice(0, half)
        _sample_oblique(source, affine, out[tuple(index)], everywhere)
        index[axis] = slice(half, None)
        _sample_oblique(source, shifted, out[tuple(index)], everywhere)
        return

    block = source[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    values = torch.from_numpy(np.array(block, dtype=np.float32, order="C"))
    steps = [np.arange(n, dtype=np.float64) for n in out.shape]
    grid = np.empty((*out.shape, 3), dtype=np.float32)
    inside = np.ones(out.shape, dtype=bool)
    for axis in range(3):
        position = (
            affine[axis, 3]
            + (affine[axis, 0] * steps[0])[:, None, None]
            + (affine[axis, 1] * steps[1])[None, :, None]
            + (affine[axis, 2] * steps[2])[None, None, :]
        )
        if not everywhere:
            inside &= (position >= -0.5 - _EXACT) & (position <= size[axis] - 0.5 + _EXACT)
        # grid_sample wants -1..1 over the block's centers, last source axis first
        grid[..., 2 - axis] = (position - low[axis]) * (2.0 / max(high[axis] - low[axis] - 1, 1)) - 1.0
    sampled = torch.nn.functional.grid_sample(
        values[None, None], torch.from_numpy(grid)[None], mode="bilinear", padding_mode="border", align_corners=True
    )
    np.copyto(out, sampled[0, 0].numpy(), where=inside)
