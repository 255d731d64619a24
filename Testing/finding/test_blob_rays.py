"""Rays from blobs: what they meet in balls, tubes and at the wall."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.finding.blob_field import BlobField
from SAMMed3DLib.finding.blob_ranking import RAY_MEASURES, ray_measures, ray_odds
from SAMMed3DLib.finding.lungs import LungMask
from SAMMed3DLib.synthesis.anatomy import Tubes, paint_tubes

SHAPE = (61, 61, 61)
MATRIX = np.eye(4)
MATRIX[:3, 3] = -30.0


def with_ball(array, center, radius, value=20.0):
    k, j, i = np.mgrid[:61, :61, :61] - 30.0
    depth = radius - np.sqrt((i - center[0]) ** 2 + (j - center[1]) ** 2 + (k - center[2]) ** 2)
    return array + (value - array) / (1.0 + np.exp(-4.0 * np.clip(depth, -8, 8)))


def lung():
    return np.full(SHAPE, -860.0) + np.random.default_rng(0).normal(0, 10, SHAPE)


def with_tube(array, radius=2.0):
    hu = array.astype(np.float32)
    paint_tubes(
        hu, Tubes(np.array([[30.0, 30, -5]]), np.array([[30.0, 30, 66]]), np.array([radius])), (1.0,) * 3, 0.6, 20.0
    )
    return hu


def measured(array, center=(0.0, 0.0, 0.0), radius=3.0, lungs=None):
    field = BlobField(array, MATRIX, None, 1.0)
    values = ray_measures(field, np.array([center]), np.array([radius]), np.zeros(1), lungs)
    assert values.shape == (1, len(RAY_MEASURES)) and np.isfinite(values).all()
    return dict(zip(RAY_MEASURES, values[0], strict=True)), float(ray_odds(values)[0])


def test_nothing_leaves_a_ball_and_a_tube_goes_on_in_two_opposite_directions():
    ball, ball_odds = measured(with_ball(lung(), (0, 0, 0), 3.0))
    tube, tube_odds = measured(with_tube(lung()), radius=2.5)
    on_tube, on_tube_odds = measured(with_ball(with_tube(lung(), 1.5), (0, 0, 0), 4.0), radius=4.0)
    assert ball["ahead 1.5"] < 0.2 and ball["open 1.5"] == 0.0 and ball["uneven 1.5"] < 0.1
    assert tube["ahead 2"] > 0.8 and tube["opposite 2"] > 0.8 and tube["across 2"] < 0.3 and tube["uneven 2"] > 0.2
    assert 0.0 < on_tube["open 2"] < tube["open 2"]
    assert ball_odds > on_tube_odds > tube_odds and ball_odds > tube_odds + 2.0


def test_contrast_and_brightness_are_those_of_the_tones():
    solid, _ = measured(with_ball(lung(), (0, 0, 0), 5.0), radius=5.0)
    faint, _ = measured(with_ball(lung(), (0, 0, 0), 5.0, -600.0), radius=5.0)
    assert solid["brightness"] == pytest.approx(0.98, abs=0.03) and faint["brightness"] == pytest.approx(0.55, abs=0.03)
    assert 0.2 < faint["contrast"] < solid["contrast"]


def test_the_lungs_are_asked_around_the_blob():
    mask = np.zeros((30, 30, 30), bool)
    mask[:, :, :15] = True
    to_ras = np.diag([2.0, 2.0, 2.0, 1.0])
    to_ras[:3, 3] = -29.0
    half, _ = measured(with_ball(lung(), (0, 0, 0), 4.0), radius=4.0, lungs=LungMask(mask, to_ras, True, ""))
    free, _ = measured(with_ball(lung(), (0, 0, 0), 4.0), radius=4.0)
    assert half["lung at 1.5"] == pytest.approx(0.5, abs=0.05) == half["lung at 2.5"] and free["lung at 1.5"] == 1.0


def test_rays_of_tiny_blobs_are_not_shorter_than_voxels_and_leave_the_volume_unharmed():
    array = with_ball(lung(), (29, 29, 29), 2.0)
    corner, _ = measured(array, (30.0, 30.0, 30.0), 1.0)
    assert corner["log radius"] == pytest.approx(np.log(1.0 / 3.0))
    assert np.array_equal(array, with_ball(lung(), (29, 29, 29), 2.0))


def test_flat_surroundings_have_no_contrast():
    flat, _ = measured(np.full(SHAPE, -860.0))
    assert flat["contrast"] == pytest.approx(0.0, abs=1e-6) and flat["ahead 2"] == pytest.approx(0.0, abs=1e-6)
