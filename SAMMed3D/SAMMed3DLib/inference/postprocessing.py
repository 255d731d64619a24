"""Turns logits into a mask in the volume's own voxels that respects every click.

One interpolation of the field straight to the voxels (no intermediate grid), only in the blocks where the mask can be;
local corrections at clicks that the network ignored; threshold; the connected components that hold positive clicks
(26-connected: nodules are often joined to their spiculae by a corner); holes filled (6-connected background).
Blocks that do not touch (clicks in both lungs, say) are worked on one by one, large ones in slabs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .field import Part, block_to_ras, sample_parts, values_at
from .geometry import box_corners, transform_points, voxel_index, voxel_spacing, world_to_ijk
from .mask_regions import components

#: Blocks larger than this are labeled on a coarser grid.
_MOST_LABELED_VOXELS = 1_000_000
#: An object this many voxels beside a click that was taken back still belongs to it.
_BESIDE = 2
#: A correction is at least this strong; 1 is a probability of 0.73.
_CLICK_LOGIT = 1.0
#: A correction is computed up to this many standard deviations.
_REACH = 2.5
#: Bounds in mm of a correction's standard deviation, which is one low-resolution cell: that of a fine crop would
#: change hardly a voxel, that of a coarse one a whole nodule.
_CORRECTION_MM = (1.5, 4.0)
#: The field is held for about this many voxels at once.
_SLAB_VOXELS = 4_000_000

_Block = tuple[NDArray[np.int64], NDArray[np.int64]]
_MaskBlock = tuple[NDArray[np.bool_], NDArray[np.int64]]
_Correction = tuple[tuple[slice, ...], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Clicks:
    """Clicks in one volume.

    Attributes:
        ras: (n, 3) mm, the newest last.
        positive: (n,) bool.
        kji: (n, 3) the voxels they lie in.
    """

    ras: NDArray[np.float64]
    positive: NDArray[np.bool_]
    kji: NDArray[np.int64]

    @classmethod
    def of(cls, ras: NDArray, positive: NDArray, shape_kji: Sequence[int], ijk_to_ras: NDArray) -> Clicks:
        """Makes Clicks with their voxels; a click on the volume's outer face belongs to the border voxel."""
        ras = np.asarray(ras, dtype=np.float64).reshape(-1, 3)
        kji = voxel_index(world_to_ijk(ijk_to_ras, ras))[:, ::-1]
        return cls(ras, np.asarray(positive, dtype=bool).reshape(-1), np.clip(kji, 0, np.array(shape_kji) - 1))

    def __len__(self) -> int:
        return len(self.ras)

    def first(self, count: int) -> Clicks:
        """The ``count`` oldest clicks."""
        return self.only(slice(count))

    def only(self, which: slice | NDArray) -> Clicks:
        """The clicks that an index or a boolean (n,) picks, in order."""
        return Clicks(self.ras[which], self.positive[which], self.kji[which])

    @property
    def positive_ras(self) -> NDArray[np.float64]:
        """The positive clicks, (p, 3) mm."""
        return self.ras[self.positive]


def voxelize(
    parts: Sequence[Part], array_kji: NDArray, ijk_to_ras: NDArray, clicks: Clicks, *, largest_only: bool = False
) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    """Computes the mask of a field of logits in the volume's voxels.

    Args:
        parts: the field.
        array_kji: (K, J, I), read only around clicks that need a correction.
        ijk_to_ras: (4, 4).
        clicks: all clicks of the object. With positive ones, the components that hold them are kept.
        largest_only: without positive clicks, keep the largest component rather than all.

    Returns:
        (mask, offset_kji): the smallest block that holds the mask, uint8, and its first voxel; a single voxel of 0 if
        the mask is empty, which it never is with a positive click.
    """
    found = []
    for low, high in _blocks_of_mask(parts, array_kji.shape, ijk_to_ras, clicks):
        mask, seeds = _threshold(parts, array_kji, ijk_to_ras, clicks, low, high)
        if len(seeds) == 0 and clicks.positive.any():
            continue
        mask, start = tight_block(mask)
        mask, more = tight_block(keep_components(mask, seeds - low - start, largest_only))
        start = low + start + more
        mask = fill_holes(mask, clicks.kji[~clicks.positive] - start)
        if mask.any():
            found.append((mask, start))
    if largest_only and not clicks.positive.any():
        found = sorted(found, key=lambda block: np.count_nonzero(block[0]))[-1:]
    if not found:
        center = voxel_index(world_to_ijk(ijk_to_ras, parts[-1].crop.center_ras))[::-1]
        center = np.clip(center, 0, np.array(array_kji.shape) - 1)
        return np.zeros((1, 1, 1), dtype=np.uint8), (int(center[0]), int(center[1]), int(center[2]))
    mask, offset = _joined(found)
    return mask.view(np.uint8), (int(offset[0]), int(offset[1]), int(offset[2]))


def _threshold(
    parts: Sequence[Part], array_kji: NDArray, ijk_to_ras: NDArray, clicks: Clicks, low: NDArray, high: NDArray
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Thresholds the corrected field in a block; returns the mask and the volume's voxels of its seeds (n, 3)."""
    # a click outside the block can only be a negative one or belong to another block
    clicks = clicks.only(np.all((clicks.kji >= low) & (clicks.kji < high), axis=1))
    corrections = _corrections(parts, array_kji, ijk_to_ras, clicks, low, high)
    mask = np.empty(tuple(int(n) for n in high - low), dtype=bool)
    thickness = max(1, _SLAB_VOXELS // (mask.shape[1] * mask.shape[2]))
    for first in range(0, mask.shape[0], thickness):
        slab = mask[first : first + thickness]
        start = low + (first, 0, 0)
        np.greater(_corrected_field(parts, ijk_to_ras, start, slab.shape, corrections), 0.0, out=slab)
    voxels = clicks.kji - low
    for voxel, positive in zip(voxels, clicks.positive, strict=True):
        mask[tuple(voxel)] = positive
    inside = clicks.positive & mask[tuple(voxels.T)]
    if clicks.positive.any() and not inside.any():
        # taken back by negative clicks in the same voxels: the object is what lies beside them
        beside = [_nearest(mask, voxel) for voxel in voxels[clicks.positive]]
        return mask, low + np.array([voxel for voxel in beside if voxel is not None], dtype=np.int64).reshape(-1, 3)
    return mask, clicks.kji[inside]


def _nearest(mask: NDArray[np.bool_], voxel: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The voxel (3,) of a mask nearest to another one, at most two away along each axis, or None."""
    start = np.maximum(voxel - _BESIDE, 0)
    found = np.argwhere(mask[_window(start, voxel + _BESIDE + 1)]) + start
    return found[np.argmin(((found - voxel) ** 2).sum(axis=1))] if len(found) else None


def _joined(found: Sequence[_MaskBlock]) -> _MaskBlock:
    """Joins mask blocks and their first voxels to one block."""
    if len(found) == 1:
        return found[0]
    low = np.min([start for _, start in found], axis=0)
    high = np.max([start + mask.shape for mask, start in found], axis=0)
    joined = np.zeros(tuple(int(n) for n in high - low), dtype=bool)
    for mask, start in found:
        joined[_window(start - low, start - low + mask.shape)] |= mask
    return joined, low


def keep_components(mask: NDArray[np.bool_], seeds: NDArray[np.int64], largest_only: bool = False) -> NDArray[np.bool_]:
    """Keeps the 26-connected components that hold a seed voxel (n, 3); without seeds, the largest one or all."""
    if len(seeds) == 0 and not largest_only:
        return mask
    coarse, factor = _pooled(mask)
    labels, count = components(coarse)
    if count <= 1:
        return mask
    wanted = np.zeros(count + 1, dtype=bool)
    if len(seeds):
        wanted[labels[tuple((seeds // factor).T)]] = True
    else:
        wanted[1 + int(np.argmax(np.bincount(labels.ravel(), minlength=count + 1)[1:]))] = True
    wanted[0] = False
    return mask & _spread(wanted[labels], factor, mask.shape)


def fill_holes(mask: NDArray[np.bool_], negative_voxels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Fills background that cannot reach the block's outside (6-connected), unless a negative click lies in it."""
    coarse, factor = _pooled(~mask)
    labels, count = ndimage.label(np.pad(coarse, 1, constant_values=True))
    if count <= 1:
        return mask
    hole = np.ones(count + 1, dtype=bool)
    hole[[0, labels[0, 0, 0]]] = False
    inside = np.all((negative_voxels >= 0) & (negative_voxels < mask.shape), axis=1)
    hole[labels[tuple((negative_voxels[inside] // factor + 1).T)]] = False
    return mask | _spread(hole[labels][1:-1, 1:-1, 1:-1], factor, mask.shape)


def _pooled(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """Returns whether each cube of ``factor`` voxels holds any voxel of the mask, and the factor.

    The factor is 1 for all but objects of organ size, whose connections need not be told to the voxel.
    """
    factor = int(np.ceil((mask.size / _MOST_LABELED_VOXELS) ** (1.0 / 3.0)))
    if factor > 1:
        for axis in range(3):
            # many times as fast as logical_or.reduceat
            lines = np.moveaxis(mask, axis, 0)
            pooled = lines[::factor].copy(order="K")
            for step in range(1, factor):
                others = lines[step::factor]
                pooled[: len(others)] |= others
            mask = np.moveaxis(pooled, 0, axis)
    return mask, factor


def _spread(coarse: NDArray[np.bool_], factor: int, shape: Sequence[int]) -> NDArray[np.bool_]:
    """The inverse of pooling: every voxel gets the value of its cube."""
    if factor > 1:
        for axis, size in enumerate(shape):
            # unlike repeat, this lets other threads run meanwhile, and takes less than half the time
            coarse = coarse.take(np.arange(size) // factor, axis=axis, mode="clip")
    return coarse


def tight_block(mask: NDArray[np.bool_]) -> _MaskBlock:
    """The part of ``mask`` between its first and last voxels along each axis, and where it starts.

    An empty mask gives its first voxel.
    """
    start, stop = [], []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        start.append(int(used[0]) if used.size else 0)
        stop.append(int(used[-1]) + 1 if used.size else 1)
    block = mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    return block, np.array(start, dtype=np.int64)


def _blocks_of_mask(
    parts: Sequence[Part], shape_kji: Sequence[int], ijk_to_ras: NDArray, clicks: Clicks
) -> list[_Block]:
    """First and one-past-last voxel (k, j, i) of the blocks in which the final mask can have voxels.

    No two of them touch, so that no component and no hole reaches from one into another.
    """
    corners = [clicks.kji[index][None].astype(np.float64) for index in np.flatnonzero(clicks.positive)]
    for part in parts:
        cells = _cells_of_object(part, ijk_to_ras, clicks) if len(parts) == 1 else part.logits > 0.0
        if not cells.any():
            continue
        block, start = tight_block(cells)
        # between two cell centers the interpolated logit may be positive, beyond the next one it may not
        box = box_corners(start - 1.0, start + np.array(block.shape))
        corners.append(world_to_ijk(ijk_to_ras, transform_points(part.cells_to_ras, box))[:, ::-1])
    if len(clicks):
        centers = transform_points(ijk_to_ras, clicks.kji[:, ::-1])
        reach = _REACH * _correction_mm(parts) / voxel_spacing(ijk_to_ras)[::-1]
        for voxel in clicks.kji[(values_at(parts, centers) > 0.0) != clicks.positive]:
            corners.append(np.stack([voxel - reach, voxel + reach]))
    blocks: list[_Block] = []
    for points in corners:
        low = np.maximum(np.floor(points.min(axis=0)), 0).astype(np.int64)
        high = np.minimum(np.ceil(points.max(axis=0)) + 1, shape_kji).astype(np.int64)
        if np.any(low >= high):
            continue
        while touching := [block for block in blocks if np.all(block[0] <= high) and np.all(block[1] >= low)]:
            low = np.minimum(low, np.min([block[0] for block in touching], axis=0))
            high = np.maximum(high, np.max([block[1] for block in touching], axis=0))
            blocks = [block for block in blocks if not any(block is other for other in touching)]
        blocks.append((low, high))
    return blocks


def _cells_of_object(part: Part, ijk_to_ras: NDArray, clicks: Clicks) -> NDArray[np.bool_]:
    """The positive cells that may be connected, in voxels, to a positive click; all of them without such a click.

    A voxel is positive only within one cell of a positive cell. So cells can belong together only if they touch after
    growing by one cell and half a voxel.
    """
    cells = part.logits > 0.0
    if not clicks.positive.any() or not cells.any():
        return cells
    voxel_in_cells = np.abs(np.linalg.inv(part.cells_to_ras)[:3, :3] @ ijk_to_ras[:3, :3]).sum(axis=1).max()
    radius = 1 + int(np.ceil(voxel_in_cells / 2.0))
    # the correction at an ignored click can connect to the mask from further off
    seeds = world_to_ijk(part.cells_to_ras, clicks.positive_ras)
    near = int(np.ceil(_REACH * _correction_mm([part]) / voxel_spacing(part.cells_to_ras).min())) + 1
    labels, count = components(ndimage.maximum_filter(cells, size=2 * radius + 1, mode="constant"))
    wanted = np.zeros(count + 1, dtype=bool)
    for seed in voxel_index(seeds):
        window = tuple(slice(max(0, int(c) - near), max(0, int(c) + near + 1)) for c in seed)
        wanted[np.unique(labels[window])] = True
    wanted[0] = False
    return cells & wanted[labels]


def _correction_mm(parts: Sequence[Part]) -> float:
    """Standard deviation of the correction at an ignored click."""
    return float(np.clip(parts[-1].cell_mm, *_CORRECTION_MM))


def _corrected_field(
    parts: Sequence[Part],
    ijk_to_ras: NDArray,
    start: NDArray,
    shape: tuple[int, ...],
    corrections: Sequence[_Correction],
) -> NDArray[np.float32]:
    """The field with the corrections made so far, in the block of ``shape`` at the volume's voxel ``start``."""
    field = sample_parts(parts, block_to_ras(ijk_to_ras, start), (shape[0], shape[1], shape[2]))
    for window, bump in corrections:
        first = np.array([part.start for part in window])
        low, high = np.maximum(first, start), np.minimum(first + bump.shape, start + shape)
        if np.all(low < high):
            field[_window(low - start, high - start)] += bump[_window(low - first, high - first)]
    return field


def _corrections(
    parts: Sequence[Part], array_kji: NDArray, ijk_to_ras: NDArray, clicks: Clicks, low: NDArray, high: NDArray
) -> list[_Correction]:
    """Computes the corrections of the field at clicks with the wrong sign, the newest last, and the voxels they change.

    The bump is a Gaussian, high enough to turn the sign up to one standard deviation away in an even field, times a
    Gaussian of the difference in intensity to the clicked voxel, measured in standard deviations of the intensities
    around: it stops where the tissue changes.
    """
    radius_mm = _correction_mm(parts)
    reach = np.ceil(_REACH * radius_mm / voxel_spacing(ijk_to_ras)[::-1]).astype(np.int64)
    corrections: list[_Correction] = []
    for voxel, positive in zip(clicks.kji, clicks.positive, strict=True):
        value = float(_corrected_field(parts, ijk_to_ras, voxel, (1, 1, 1), corrections)[0, 0, 0])
        if (value > 0.0) == positive:
            continue
        window = _window(np.maximum(voxel - reach, low), np.minimum(voxel + reach + 1, high))
        offsets = np.stack(np.meshgrid(*(np.arange(w.start, w.stop) for w in window), indexing="ij"), -1) - voxel
        distance = np.linalg.norm(offsets @ ijk_to_ras[:3, [2, 1, 0]].T, axis=-1)
        intensity = array_kji[window].astype(np.float32)
        difference = intensity - np.float32(array_kji[tuple(voxel)])
        scale = float(intensity.std()) or 1.0
        bump = np.exp(-0.5 * (distance / radius_mm) ** 2 - 0.5 * (difference / scale) ** 2)
        height = abs(value) * np.exp(0.5) + _CLICK_LOGIT
        corrections.append((window, ((height if positive else -height) * bump).astype(np.float32)))
    return corrections


def _window(low: NDArray, high: NDArray) -> tuple[slice, ...]:
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
