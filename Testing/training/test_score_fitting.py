"""Fitting the score: on made-up samples whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.inference.nodule_score import BASIC, PAIRS, NoduleScore
from SAMMed3DTrainingLib import score_fitting
from SAMMed3DTrainingLib.score_fitting import Samples, as_module, fit, held_out_log_odds, sensitivity_at, threshold_at

SCANS, NODULES, OTHERS = 6, score_fitting.NODULES_PER_SCAN, 100


def samples(separation=3.0, seed=0):
    """Nodules that differ from others in their first input only."""
    rng = np.random.default_rng(seed)
    rows = []
    for scan in range(SCANS):
        for number in range(NODULES + OTHERS):
            positive = number < NODULES
            looks = rng.normal(0.0, 1.0, (2, len(BASIC)))
            looks[:, 0] += separation * positive
            response = rng.normal(2.0 * positive) if scan else np.nan
            rows.append((*looks, positive, scan, scan % 3, number if positive else -1, response))
    return Samples(*(np.array(column) for column in zip(*rows, strict=True)))


def test_what_separates_gets_the_weight_and_left_out_backgrounds_are_judged_well():
    given = samples()
    fitted = fit(given)
    assert int(np.argmax(np.abs(fitted.weights))) == 0 and fitted.weights[0] > 0.5
    odds = held_out_log_odds(given)
    assert sensitivity_at(odds, given, 1.0) > 0.9
    assert sensitivity_at(held_out_log_odds(samples(0.0)), samples(0.0), 1.0) < 0.5


def test_thresholds_allow_so_many_false_positives():
    given = samples(1.0)
    odds = held_out_log_odds(given)
    for rate in (0.5, 2.0, 8.0):
        above = 1.0 / (1.0 + np.exp(-odds[~given.positive])) > threshold_at(odds, given, rate)
        assert np.count_nonzero(above) <= rate * SCANS
    assert threshold_at(odds, given, 0.5) > threshold_at(odds, given, 8.0)


def test_probabilities_are_those_of_a_usual_scan():
    given = samples(1.5)
    share = 1.0 / (1.0 + np.exp(-fit(given).log_odds(given)))
    weight = np.where(given.positive, score_fitting.USUAL_PER_SCAN / NODULES, 1.0)
    assert np.sum(weight * share) == pytest.approx(np.sum(weight * given.positive), rel=0.2)


def test_the_written_module_gives_the_same_score():
    given = samples()
    fitted = fit(given)
    names: dict = {}
    exec(as_module(fitted, 0.6, 0.2, "About."), names)  # noqa: S102 - the file is Python that we made
    rule = NoduleScore(
        *(names[name] for name in ("MEAN", "SCALE", "WEIGHTS", "INTERCEPT", "RESPONSE_WEIGHT", "USUAL_RESPONSE"))
    )
    assert rule.response_weight == pytest.approx(fitted.response_weight, abs=1e-3) and fitted.response_weight > 0.3
    assert len(rule.weights) == len(BASIC) + len(PAIRS) and (names["FEW"], names["USUAL"]) == (0.6, 0.2)
    inputs = score_fitting.combined((given.fine[0] - rule.mean) / rule.scale)
    expected = score_fitting.combined((given.fine[0] - fitted.mean) / fitted.scale) @ fitted.weights + fitted.intercept
    assert float(inputs @ rule.weights) + rule.intercept == pytest.approx(expected, abs=0.01)
