"""Non-maximum suppression of 3D masks: of several masks of one object the best stays.

SAM compares boxes; two nodules side by side have boxes that overlap, so masks are compared here, and boxes only save
the work where they do not meet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .measurements import MaskBlock


def suppress(
    blocks: Sequence[MaskBlock], scores: ArrayLike, iou_threshold: float = 0.3, containment: float = 0.6
) -> list[int]:
    """Which masks to keep, the best first.

    A mask goes if a better one has an IoU above ``iou_threshold`` with it, or if the voxels that both share are more
    than ``containment`` of the smaller of the two: a part of a nodule, or a leak around it, is no other nodule.

    Args:
        blocks: mask blocks of one volume; empty ones are never kept.
        scores: one for each, higher is better; the earlier of equals wins.
        iou_threshold, containment: 0 to 1; above 1 nothing is suppressed by that rule.

    Returns:
        indices into ``blocks``, by falling score.
    """
    scores = np.asarray(scores, dtype=np.float64).ravel()
    if len(scores) != len(blocks):
        raise ValueError(f"{len(blocks)} masks need as many scores, not {len(scores)}")
    if not len(blocks):
        return []
    masks = [np.asarray(block.mask) != 0 for block in blocks]
    sizes = np.array([np.count_nonzero(mask) for mask in masks])
    low = np.array([block.offset_kji for block in blocks], dtype=np.int64)
    high = low + [mask.shape for mask in masks]
    alive = sizes > 0
    kept = []
    for best in np.argsort(-scores, kind="stable"):
        if not alive[best]:
            continue
        kept.append(int(best))
        alive[best] = False
        meet = alive & np.all((low < high[best]) & (high > low[best]), axis=1)
        for other in np.flatnonzero(meet):
            common = _common_voxels(masks[best], low[best], masks[other], low[other])
            iou = common / (sizes[best] + sizes[other] - common)
            if iou > iou_threshold or common / min(sizes[best], sizes[other]) > containment:
                alive[other] = False
    return kept


def _common_voxels(first: NDArray, first_low: NDArray, second: NDArray, second_low: NDArray) -> int:
    low = np.maximum(first_low, second_low)
    high = np.minimum(first_low + first.shape, second_low + second.shape)
    windows = (
        mask[tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))]
        for mask, start in ((first, first_low), (second, second_low))
    )
    return int(np.count_nonzero(np.logical_and(*windows)))
