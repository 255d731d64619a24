"""Non-maximum suppression of 3D masks: of several masks of one object the best stays.

SAM compares boxes; two nodules side by side have boxes that overlap, so masks are compared here, and boxes only save
the work where they do not meet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..inference.geometry import PlacedMask


def suppress(
    blocks: Sequence[PlacedMask], scores: ArrayLike, iou_threshold: float = 0.3, containment: float = 0.6
) -> list[int]:
    """Chooses which masks to keep, the best first.

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
    sizes = np.array([np.count_nonzero(block.mask) for block in blocks])
    low = np.array([block.offset_kji for block in blocks], dtype=np.int64)
    high = low + [block.mask.shape for block in blocks]
    alive = sizes > 0
    kept = []
    for best in np.argsort(-scores, kind="stable"):
        if not alive[best]:
            continue
        kept.append(int(best))
        alive[best] = False
        meet = alive & np.all((low < high[best]) & (high > low[best]), axis=1)
        for other in np.flatnonzero(meet):
            common = common_voxels(blocks[int(best)], blocks[int(other)])
            iou = common / (sizes[best] + sizes[other] - common)
            if iou > iou_threshold or common / min(sizes[best], sizes[other]) > containment:
                alive[other] = False
    return kept


def common_voxels(first: PlacedMask, second: PlacedMask) -> int:
    """Counts the voxels that two mask blocks of one volume share."""
    low = np.maximum(first.offset_kji, second.offset_kji)
    high = np.minimum(np.add(first.offset_kji, first.mask.shape), np.add(second.offset_kji, second.mask.shape))
    if np.any(low >= high):
        return 0
    windows = (
        block.mask[tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))]
        for block, start in ((first, np.array(first.offset_kji)), (second, np.array(second.offset_kji)))
    )
    return int(np.count_nonzero(np.logical_and(*windows)))
