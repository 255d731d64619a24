"""Means, failures and groups."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DTrainingLib.evaluate.nodule_scores import summarize

from .scores import score

SCORES = [
    score(
        dice=(0.6, 0.7, 0.8),
        patient="P1",
        volumes=(100, 150, 180),
        trials=[((0.4, 0.7), (90, 1)), ((0.5, 0.6), (110, 1))],
    ),
    score(
        dice=(0.8, 0.9, 0.86),
        patient="P1",
        nodule="2.1",
        size="8-15 mm",
        volumes=(100, 150, 260),
        trials=[((0.7, 0.9), (100, 1)), ((0.9, 0.8), (100, 1))],
    ),
    score(dice=(0.2, 0.3, 0.4), patient="P2", density="ground glass", slices="slices >2.5 mm", clicks=9),
]


def test_all_nodules():
    summary = summarize(SCORES)[0]
    assert (summary.group, summary.nodules, summary.patients, summary.method) == ("all", 3, 2, "challenge")
    assert summary.dice == pytest.approx(np.mean([s.dice for s in SCORES], axis=0))
    assert summary.noc[0.80] == pytest.approx(((3 + 1 + 3) / 3, 1 / 3))
    assert summary.noc[0.90] == pytest.approx(((3 + 2 + 3) / 3, 2 / 3))
    assert summary.worst_first == pytest.approx((0.4 + 0.7) / 2)
    assert summary.worst_last == pytest.approx((0.6 + 0.8) / 2)
    assert summary.volume_bias == pytest.approx((-0.1 + 0.3 + 0.0) / 3)
    assert summary.volume_error == pytest.approx((0.1 + 0.3 + 0.0) / 3)
    assert summary.volume_variation == pytest.approx(np.sqrt(200) / 100 / 2)
    assert summary.dice_auc is None and summary.clicks_given == pytest.approx(5.0)
    low, high = summary.dice_interval
    assert low == pytest.approx(0.4) and high == pytest.approx(0.83)
    assert summary.first_s == 0.5 and summary.next_s == pytest.approx(0.1)


def test_groups_in_order_and_no_empty_ones():
    groups = [summary.group for summary in summarize(SCORES)]
    assert groups == ["all", "6-8 mm", "8-15 mm", "solid", "ground glass", "slices <=1.25 mm", "slices >2.5 mm"]
    by_name = {summary.group: summary for summary in summarize(SCORES)}
    assert by_name["ground glass"].nodules == 1 and by_name["ground glass"].dice_interval is None
    assert by_name["solid"].dice_interval is None, "two nodules of one patient"


def test_methods_and_data_sets_apart():
    scores = [*SCORES, score(method="random"), score(method="random", dataset="lndb", patient="P1")]
    summaries = summarize(scores)
    assert [s.group for s in summaries if s.method == "random"][-2:] == ["lidc", "lndb"]
    both = next(s for s in summaries if s.method == "random" and s.group == "all")
    assert both.patients == 2, "P1 of another data set is another patient"
    assert next(s for s in summaries if s.method == "challenge").nodules == 3
