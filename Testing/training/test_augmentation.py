"""Augmentation changes what it says and nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from SAMMed3DTrainingLib.data.augmentation import NO_AUGMENTATION, Augmentation

MATRIX = np.array(((0.0, -0.6, 0.1, 10.0), (0.8, 0.0, 0.0, -20.0), (0.0, 0.1, 2.0, 30.0), (0.0, 0.0, 0.0, 1.0)))
CENTER = np.array((3.0, -4.0, 50.0))


def test_off_means_unchanged():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(NO_AUGMENTATION.placed(MATRIX, CENTER, rng), MATRIX)
    hu = rng.normal(-700, 100, (12, 12, 12)).astype(np.float32)
    np.testing.assert_array_equal(NO_AUGMENTATION.looked(hu.copy(), 1.0, rng), hu)


def test_placing_keeps_the_center_and_all_proportions():
    center_ijk = np.linalg.solve(MATRIX, [*CENTER, 1.0])
    for seed in range(50):
        moved = Augmentation().placed(MATRIX, CENTER, np.random.default_rng(seed))
        np.testing.assert_allclose((moved @ center_ijk)[:3], CENTER, atol=1e-9)
        change = moved[:3, :3] @ np.linalg.inv(MATRIX[:3, :3])
        gram = change @ change.T
        np.testing.assert_allclose(gram, np.eye(3) * gram[0, 0], atol=1e-9)  # a similarity: no shear
        assert 0.6**2 < gram[0, 0] < 1.7**2


def test_mirror_images_turns_and_scales_all_occur():
    changes = [Augmentation().placed(np.eye(4), np.zeros(3), np.random.default_rng(seed))[:3, :3] for seed in range(60)]
    determinants = np.array([np.linalg.det(change) for change in changes])
    assert (determinants > 0).any() and (determinants < 0).any()
    assert len(set(np.round(np.abs(determinants), 6))) > 50
    axis_aligned = [np.isclose(np.abs(c).max(axis=0), np.cbrt(abs(np.linalg.det(c)))).all() for c in changes]
    assert 0.3 < np.mean(axis_aligned) < 0.95


@pytest.mark.parametrize("thickness", [2.0, 5.0])
def test_thick_slices_average_along_the_last_axis(thickness):
    only = dataclasses.replace(NO_AUGMENTATION, thicken=1.0, thick_mm=thickness)
    hu = np.zeros((4, 4, 40), np.float32)
    hu[:, :, 20] = 600.0
    for seed in range(20):
        seen = only.looked(hu.copy(), 1.0, np.random.default_rng(seed))
        assert seen.shape == hu.shape and seen.max() <= 600.0 + 1e-3
        assert np.ptp(seen, axis=(0, 1)).max() < 1e-3  # nothing within a slice
        assert seen.sum() == pytest.approx(hu.sum(), rel=0.01)
    level = np.full((4, 4, 17), -300.0, np.float32)
    np.testing.assert_allclose(only.looked(level, 1.0, np.random.default_rng(1)), level, rtol=1e-5)


def test_slices_that_are_thick_already_are_not_averaged_again():
    only = dataclasses.replace(NO_AUGMENTATION, thicken=1.0, thick_mm=5.0)
    hu = np.zeros((4, 4, 40), np.float32)
    hu[:, :, 20] = 600.0
    changed = [
        (only.looked(hu.copy(), 1.0, np.random.default_rng(seed), slice_mm) != hu).any()
        for slice_mm in (3.0, 5.0)
        for seed in range(40)
    ]
    assert 10 < sum(changed[:40]) < 30  # half of what is drawn from 1 to 5 mm lies above 3 mm
    assert not any(changed[40:])


def test_noise_and_calibration_are_of_the_stated_size():
    level = np.full((24, 24, 24), -800.0, np.float32)
    noisy = dataclasses.replace(NO_AUGMENTATION, noise_hu=40.0)
    deviations = [float(noisy.looked(level.copy(), 0.7, np.random.default_rng(seed)).std()) for seed in range(40)]
    assert max(deviations) <= 41.0 and 0.3 < np.mean(np.array(deviations) > 1.0) < 0.7
    shifted = dataclasses.replace(NO_AUGMENTATION, shift_hu=12.0)
    means = [float(shifted.looked(level.copy(), 0.7, np.random.default_rng(seed)).mean()) + 800 for seed in range(200)]
    assert 9.0 < np.std(means) < 15.0
