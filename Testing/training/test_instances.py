"""Label maps become nodules, whatever their numbering, and none is lost."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DTrainingLib.data.instances import split_instances

MATRIX = np.diag([0.5, 0.5, 2.0, 1.0])


def test_one_value_for_all_and_one_value_each_give_the_same_nodules():
    labels = np.zeros((10, 12, 14), np.uint8)
    labels[1:3, 1:4, 1:5] = 1
    labels[6:9, 6:9, 6:9] = 1
    numbered = labels.copy()
    numbered[6:9] *= 2
    shared, separate = split_instances(labels, MATRIX), split_instances(numbered, MATRIX)
    assert {n.offset_kji for n in shared} == {n.offset_kji for n in separate} == {(1, 1, 1), (6, 6, 6)}
    assert [n.name for n in shared] == ["1.1", "1.2"] and [n.voxels for n in shared] == [27, 24]
    assert [n.name for n in separate] == ["1.1", "2.1"]


def test_every_voxel_belongs_to_exactly_one_nodule():
    labels = (np.random.default_rng(0).random((9, 11, 13)) < 0.1).astype(np.uint16) * 300
    rebuilt = np.zeros(labels.shape, int)
    for nodule in split_instances(labels, MATRIX):
        rebuilt[nodule.slices_kji] += nodule.mask
    np.testing.assert_array_equal(rebuilt, labels > 0)


@pytest.mark.parametrize("kind", [np.uint32, np.uint64])
def test_values_beyond_every_count_are_nodules_too(kind):
    labels = np.zeros((5, 6, 7), kind)
    labels[1, 1, 1:3], labels[3, 3, 3] = 3_000_000_000, 7
    assert [(n.value, n.voxels) for n in split_instances(labels, MATRIX)] == [(7, 1), (3_000_000_000, 2)]
    assert [n.value for n in split_instances(labels, MATRIX, {7})] == [3_000_000_000]


def test_a_single_voxel_is_a_nodule_and_corners_touch():
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[0, 0, 0] = labels[3, 3, 3] = labels[4, 4, 4] = 1
    sizes = [nodule.voxels for nodule in split_instances(labels, MATRIX)]
    assert sizes == [2, 1]


def test_volume_and_diameter_are_in_millimeters():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1:3, 1:3, 1:3] = 7
    (nodule,) = split_instances(labels, MATRIX)
    assert nodule.volume_mm3 == pytest.approx(8 * 0.5)
    assert nodule.diameter_mm == pytest.approx((6 * 4.0 / np.pi) ** (1 / 3))


def test_ignored_values_and_empty_maps():
    labels = np.zeros((4, 4, 4), np.uint8)
    assert split_instances(labels, MATRIX) == ()
    labels[0, 0, 0], labels[3, 3, 3] = 1, 2
    assert [n.value for n in split_instances(labels, MATRIX, ignored=(2,))] == [1]
