"""Clicks on a mask that a person has drawn: what was drawn stays, except where a click asks for a change.

The network sees the drawn mask only as 32 cells along an edge and would redraw all of it. So its answers before and
after a click are compared, and only the difference is applied: a click inside adds, a click outside removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..inference.mask_regions import NEIGHBORS_26, components

MaskAndOffset = tuple[NDArray[np.uint8], tuple[int, int, int]]


def apply_click(
    drawn: Any, before: Any, after: Any, voxel_kji: Sequence[int] | NDArray, positive: bool
) -> MaskAndOffset:
    """The drawn mask after one click.

    Args:
        drawn, before, after: blocks (``mask``, ``offset_kji``): the mask so far, and the network's answers before and
            after the click.
        voxel_kji: the voxel of the volume that was clicked.
        positive: inside or outside.

    Returns:
        (mask, offset_kji): uint8 (nk, nj, ni) and its first voxel; one voxel of 0 if nothing is left. The clicked voxel
        is always in the mask after a positive click, and never after a negative one.
    """
    low, high = _bounds([drawn, before, after], voxel_kji)
    mask, old, new = (_spread(block, low, high) for block in (drawn, before, after))
    click = tuple(int(index) - int(start) for index, start in zip(voxel_kji, low, strict=True))
    if positive:
        mask = mask | _joined_to(mask, new & ~old & ~mask, click)
        if not mask[click]:
            # the network held the click for inside all along: what was left out of it around the click comes back
            new[click] = True
            mask |= _component(new & ~mask, click)
    else:
        mask = mask & ~(old & ~new)
        if mask[click]:
            new[click] = False
            mask &= ~_component(mask & ~new, click)
    return _tight(mask, low, voxel_kji)


def _bounds(blocks: Sequence[Any], voxel_kji: Sequence[int] | NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    corners = [np.asarray(voxel_kji, dtype=np.int64)]
    lows = [*corners, *(np.asarray(block.offset_kji, dtype=np.int64) for block in blocks)]
    highs = [corners[0] + 1, *(np.asarray(b.offset_kji, dtype=np.int64) + b.mask.shape for b in blocks)]
    return np.min(lows, axis=0), np.max(highs, axis=0)


def _spread(block: Any, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The mask of a block within the region from ``low`` to ``high``."""
    region = np.zeros(tuple(int(n) for n in high - low), dtype=bool)
    start = np.asarray(block.offset_kji, dtype=np.int64) - low
    region[tuple(slice(int(a), int(a) + n) for a, n in zip(start, block.mask.shape, strict=True))] = block.mask != 0
    return region


def _joined_to(mask: NDArray[np.bool_], more: NDArray[np.bool_], click: tuple[int, ...]) -> NDArray[np.bool_]:
    """The components of ``more`` that touch the mask or hold the click: no specks elsewhere."""
    labels, count = components(more)
    if not count:
        return more
    near = ndimage.binary_dilation(mask, structure=NEIGHBORS_26)
    near[click] = True
    wanted = np.zeros(count + 1, dtype=bool)
    wanted[np.unique(labels[near])] = True
    wanted[0] = False
    return wanted[labels]


def _component(mask: NDArray[np.bool_], click: tuple[int, ...]) -> NDArray[np.bool_]:
    labels, _count = components(mask)
    return labels == labels[click] if labels[click] else np.zeros_like(mask)


def _tight(mask: NDArray[np.bool_], low: NDArray[np.int64], voxel_kji: Sequence[int] | NDArray) -> MaskAndOffset:
    if not mask.any():
        k, j, i = (int(index) for index in voxel_kji)
        return np.zeros((1, 1, 1), dtype=np.uint8), (k, j, i)
    box = ndimage.find_objects(mask.view(np.uint8))[0]
    k, j, i = (int(start) + part.start for start, part in zip(low, box, strict=True))
    return np.ascontiguousarray(mask[box]).view(np.uint8), (k, j, i)
