from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from SAMMed3DLib.finding.mask_nms import common_voxels, suppress


def box(low, shape):
    return SimpleNamespace(mask=np.ones(shape, dtype=np.uint8), offset_kji=tuple(low))


def test_masks_that_do_not_meet_all_stay_best_first():
    blocks = [box((0, 0, 0), (2, 2, 2)), box((5, 0, 0), (2, 2, 2)), box((0, 5, 5), (3, 1, 1))]
    assert suppress(blocks, [0.2, 0.9, 0.5]) == [1, 2, 0]


def test_the_better_of_two_masks_of_one_object_stays():
    assert suppress([box((0, 0, 0), (4, 4, 4)), box((0, 0, 1), (4, 4, 4))], [0.4, 0.6]) == [1]


def test_boxes_that_overlap_do_not_matter_where_masks_do_not():
    ring = np.ones((1, 9, 9), dtype=np.uint8)
    ring[0, 2:7, 2:7] = 0
    blocks = [SimpleNamespace(mask=ring, offset_kji=(3, 0, 0)), box((3, 3, 3), (1, 3, 3))]
    assert suppress(blocks, [0.9, 0.8]) == [0, 1]


def test_iou_is_compared_with_the_threshold():
    blocks = [box((0, 0, 0), (1, 1, 10)), box((0, 0, 5), (1, 1, 10))]  # 5 of 15 voxels are common
    assert suppress(blocks, [1.0, 0.5], iou_threshold=0.32, containment=1.1) == [0]
    assert suppress(blocks, [1.0, 0.5], iou_threshold=0.34, containment=1.1) == [0, 1]


@pytest.mark.parametrize("scores, kept", [([0.9, 0.1], [0]), ([0.1, 0.9], [1])])
def test_a_part_of_a_mask_is_no_other_object_whichever_is_better(scores, kept):
    whole, part = box((0, 0, 0), (10, 10, 10)), box((2, 2, 2), (2, 2, 2))
    assert suppress([whole, part], scores) == kept
    assert len(suppress([whole, part], scores, containment=1.0)) == 2


def test_what_a_suppressed_mask_covers_is_not_suppressed_by_it():
    blocks = [box((0, 0, offset), (1, 1, 10)) for offset in (0, 4, 8)]
    assert suppress(blocks, [0.9, 0.8, 0.7], iou_threshold=0.3, containment=1.1) == [0, 2]


def test_empty_masks_are_never_kept_and_equals_keep_their_order():
    blocks = [
        SimpleNamespace(mask=np.zeros((1, 1, 1)), offset_kji=(0, 0, 0)),
        box((4, 4, 4), (1, 1, 1)),
        box((9, 9, 9), (1, 1, 1)),
    ]
    assert suppress(blocks, [1.0, 0.5, 0.5]) == [1, 2]
    assert suppress([], []) == []


def test_scores_must_fit():
    with pytest.raises(ValueError, match="2 masks"):
        suppress([box((0, 0, 0), (1, 1, 1))] * 2, [1.0])


def test_common_voxels_of_random_blocks_are_those_of_whole_volumes():
    rng = np.random.default_rng(3)
    for _ in range(50):
        blocks, volumes = [], []
        for _ in range(2):
            shape, offset = rng.integers(1, 6, 3), rng.integers(0, 5, 3)
            mask = rng.random(shape) < 0.5
            volume = np.zeros((12, 12, 12), bool)
            volume[tuple(slice(a, a + n) for a, n in zip(offset, shape, strict=True))] = mask
            blocks.append(SimpleNamespace(mask=mask.astype(np.uint8), offset_kji=tuple(offset)))
            volumes.append(volume)
        assert common_voxels(*blocks) == np.count_nonzero(volumes[0] & volumes[1])
