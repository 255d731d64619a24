"""Blocks: tight, and compared by what they hold."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.scene.mask_block import EMPTY_BLOCK, MaskBlock, labeledBlock, occupiedBox, sameMask, tightBlock
from scene.masks import blob, full

SHAPE = (20, 22, 24)


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float32])
def test_a_tight_block_holds_the_same_voxels(dtype) -> None:
    padded = np.pad(blob(), ((1, 2), (3, 0), (0, 4))).astype(dtype) * (1 if dtype is bool else 5)
    tight = tightBlock(padded, (2, 3, 4))
    assert tight.mask.dtype == np.uint8 and set(np.unique(tight.mask)) == {0, 1}
    assert tight.mask.shape == blob().shape and tight.offset_kji == (3, 6, 4)
    assert np.array_equal(full(tight, SHAPE), full(MaskBlock((padded != 0).astype(np.uint8), (2, 3, 4)), SHAPE))
    padded[:] = 0
    assert tight.mask.any(), "a copy"


def test_nothing_inside_is_one_empty_voxel() -> None:
    tight = tightBlock(np.zeros((3, 4, 5)), (7, 8, 9))
    assert tight.isEmpty and tight.mask.shape == (1, 1, 1) and sameMask(tight, EMPTY_BLOCK)


def test_one_voxel() -> None:
    mask = np.zeros((3, 4, 5), np.uint8)
    mask[2, 0, 4] = 1
    tight = tightBlock(mask, (10, 10, 10))
    assert tight.offset_kji == (12, 10, 14) and tight.mask.tolist() == [[[1]]] and not tight.isEmpty


def test_blocks_differ_by_place_size_or_voxels() -> None:
    block = MaskBlock(blob(), (1, 2, 3))
    assert sameMask(block, MaskBlock(blob().copy(), (1, 2, 3)))
    other = blob()
    other[0, 0, 0] ^= 1
    for different in (MaskBlock(blob(), (1, 2, 4)), MaskBlock(other, (1, 2, 3)), MaskBlock(blob()[1:], (1, 2, 3))):
        assert not sameMask(block, different)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_the_occupied_box(dtype) -> None:
    array = np.zeros((9, 10, 11), dtype)
    assert occupiedBox(array) is None
    array[3, 8, 2] = 200
    array[5, 1, 10] = 1
    assert occupiedBox(array) == (slice(3, 6), slice(1, 9), slice(2, 11))


def test_the_block_of_one_label_among_others() -> None:
    labels = np.full((12, 12, 14), 7, np.int16)
    labels[2:9, 1:10, 2:13] = blob() * 3
    found = labeledBlock(labels, 3, (100, 200, 300))
    assert sameMask(found, MaskBlock(blob(), (102, 201, 302)))
    assert labeledBlock(labels, 4, (0, 0, 0)).isEmpty
