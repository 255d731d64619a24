"""The fine-tuning demonstration compares the same nodules before and after."""

from __future__ import annotations

import pytest

from Research import fine_tuning as tuning


def test_changes_are_those_of_the_same_nodules() -> None:
    real = (tuning.REAL_TEST_PATIENT, "1.1")
    before = {("LungFCP_scan1", "1.1"): [0.5] * 5, real: [0.6] * 5, ("LungFCP_scan1", "2.1"): [0.7] * 5}
    after = {key: [value + 0.1 for value in before[key]] for key in reversed(list(before))}
    everything = tuning.change("all", before, after)
    assert everything.rise(1) == pytest.approx(0.1) and everything.interval(1) == pytest.approx((0.1, 0.1))
    assert "0.600 -> 0.700" in everything.row() and "| 3 |" in everything.row()
    assert tuning.change("real", before, after, real=True).before[:, 0].tolist() == [0.6]
    assert len(tuning.change("painted", before, after, real=False).after) == 2
