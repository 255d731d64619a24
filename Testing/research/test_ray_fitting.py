"""Fitting the rays' ranking: on made-up places whose answer is known, and the regression both fits share."""

from __future__ import annotations

import numpy as np
import pytest

from Research.logistic import fit_logistic
from Research.ray_fitting import PlacesOfScan, false_before_hit, fit, places_of
from SAMMed3DLib.finding.blob_ranking import RAY_MEASURES

from .test_ranking_fitting import RADIUS, ball_scan


def made_up(count=400):
    """Places of which those with a low first measure are on three nodules."""
    rng = np.random.default_rng(1)
    measures = rng.normal(0, 1, (count, len(RAY_MEASURES)))
    nodule = np.where(measures[:, 0] < -1.0, rng.integers(3, size=count), -1)
    distances = np.where(nodule[:, None] == np.arange(3), 1.0, 100.0)
    return PlacesOfScan(0, measures, nodule, distances, np.full(3, RADIUS))


def test_the_fit_puts_nodules_first():
    scan = made_up()
    centers, scales = np.zeros(len(RAY_MEASURES)), np.ones(len(RAY_MEASURES))
    odds = fit([scan], centers, scales).log_odds(scan.measures)
    assert false_before_hit(scan, odds).tolist() == [0.0, 0.0, 0.0]
    assert false_before_hit(scan, -odds).min() > 20


def test_places_that_are_left_out_say_nothing():
    scan = made_up()
    scan.nodule[:200] = -2
    centers, scales = np.zeros(len(RAY_MEASURES)), np.ones(len(RAY_MEASURES))
    before = fit([scan], centers, scales)
    scan.measures[:200] = 1e3
    assert np.array_equal(fit([scan], centers, scales).weights, before.weights)


def test_a_painted_ball_is_a_place():
    found = places_of(ball_scan(), 7)
    assert found.background == 7 and found.measures.shape == (len(found.nodule), len(RAY_MEASURES))
    assert (found.nodule == 0).any() and (found.distances[found.nodule == 0, 0] < 0.6 * found.radii[0]).all()
    assert false_before_hit(found, -np.arange(len(found.nodule), dtype=float))[0] < 5


def test_the_regression_finds_the_odds_and_its_penalty_shrinks_them():
    rng = np.random.default_rng(0)
    inputs = np.column_stack([rng.normal(size=20_000), np.ones(20_000)])
    target = rng.random(20_000) < 1.0 / (1.0 + np.exp(-(1.5 * inputs[:, 0] - 2.0)))
    ones = np.ones(len(target))
    free = fit_logistic(inputs, target, ones, np.array([1e-6, 1e-6]))
    assert free == pytest.approx((1.5, -2.0), abs=0.1)
    assert abs(fit_logistic(inputs, target, ones, np.array([5e3, 1e-6]))[0]) < 1.0
    doubled = fit_logistic(np.tile(inputs, (2, 1)), np.tile(target, 2), np.full(2 * len(target), 0.5), np.full(2, 1e-6))
    assert doubled == pytest.approx(free, abs=1e-6)
