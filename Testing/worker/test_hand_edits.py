"""Clicks on a drawn mask change only what they ask for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from SAMMed3DLib.worker.hand_edits import apply_click

SHAPE = (12, 12, 12)


def block(full):
    inside = np.argwhere(full)
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    mask = full[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.uint8)
    return SimpleNamespace(mask=mask, offset_kji=tuple(int(x) for x in low))


def box(*slices):
    full = np.zeros(SHAPE, dtype=bool)
    full[slices] = True
    return full


def result(drawn, before, after, voxel, positive):
    mask, offset = apply_click(block(drawn), block(before), block(after), voxel, positive)
    assert mask.dtype == np.uint8
    full = np.zeros(SHAPE, dtype=bool)
    full[tuple(slice(o, o + n) for o, n in zip(offset, mask.shape, strict=True))] = mask
    return full


NETWORK = box(slice(3, 8), slice(3, 8), slice(3, 8))
GROWN = box(slice(3, 8), slice(3, 8), slice(3, 10))
SPUR = NETWORK | box(5, 5, slice(0, 3))  # a line that no network draws


def test_what_the_network_does_not_see_stays_when_a_click_adds():
    np.testing.assert_array_equal(result(SPUR, NETWORK, GROWN, (5, 5, 9), True), SPUR | GROWN)


def test_what_was_erased_stays_erased_elsewhere():
    erased = NETWORK & ~box(slice(3, 5))
    np.testing.assert_array_equal(result(erased, NETWORK, GROWN, (6, 5, 9), True), erased | (GROWN & ~NETWORK))


def test_an_inside_click_takes_nothing_away():
    shrunk = box(slice(5, 8), slice(3, 8), slice(3, 10))
    np.testing.assert_array_equal(result(SPUR, NETWORK, shrunk, (6, 5, 9), True), SPUR | (shrunk & ~NETWORK))


def test_an_outside_click_takes_away_and_adds_nothing():
    shrunk = box(slice(3, 8), slice(3, 8), slice(3, 6)) | box(slice(8, 10), 5, 5)
    expected = SPUR & ~(NETWORK & ~shrunk)
    np.testing.assert_array_equal(result(SPUR, NETWORK, shrunk, (5, 5, 7), False), expected)


def test_specks_away_from_mask_and_click_are_not_added():
    after = GROWN | box(0, 0, 0)
    np.testing.assert_array_equal(result(NETWORK, NETWORK, after, (5, 5, 9), True), GROWN)


def test_a_click_on_what_was_erased_brings_it_back():
    erased = NETWORK & ~box(slice(3, 5))
    np.testing.assert_array_equal(result(erased, NETWORK, NETWORK, (3, 5, 5), True), NETWORK)


def test_an_outside_click_on_what_only_was_drawn_removes_that():
    np.testing.assert_array_equal(result(SPUR, NETWORK, NETWORK, (5, 5, 1), False), NETWORK)


@pytest.mark.parametrize("positive", [True, False])
def test_the_clicked_voxel_obeys_even_if_the_network_does_not(positive):
    drawn = box(slice(3, 8), slice(3, 8), slice(3, 8))
    network = box(slice(0, 2), slice(0, 2), slice(0, 2)) if positive else drawn
    voxel = (10, 10, 10) if positive else (5, 5, 5)
    assert result(drawn, network, network, voxel, positive)[voxel] == positive


def test_nothing_left_is_one_empty_voxel():
    point = box(5, 5, 5)
    mask, offset = apply_click(block(point), block(point), block(point), (5, 5, 5), False)
    assert mask.shape == (1, 1, 1) and not mask.any() and offset == (5, 5, 5)
