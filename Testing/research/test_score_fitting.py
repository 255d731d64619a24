"""Fitting the score: on made-up samples whose answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from Research import classifier_crops, score_fitting
from Research.detection_scans import DetectionScan, KnownNodule
from Research.score_fitting import Samples, fit, held_out_log_odds, sensitivity_at, threshold_at
from research.test_detection_scans import background as lungs
from research.test_detection_scans import real_crop
from SAMMed3DLib.finding.candidates import Candidate
from SAMMed3DLib.finding.nodule_score import OBJECT

BACKGROUNDS, NODULES, OTHERS = 3, 30, 100


def samples(separation=3.0, seed=0):
    """Nodules, with two samples each, that differ from others in their first input only."""
    rng = np.random.default_rng(seed)
    rows = []
    for background in range(BACKGROUNDS):
        for number in range(2 * NODULES + OTHERS):
            nodule = background * NODULES + number // 2 if number < 2 * NODULES else -1
            clicked = rng.normal(0.0, 1.0, len(OBJECT))
            clicked[0] += separation * (nodule >= 0)
            rows.append((clicked, nodule, background))
    click, nodule, background = (np.array(column) for column in zip(*rows, strict=True))
    return Samples({"click": click}, nodule, background, np.full(BACKGROUNDS, NODULES))


def test_what_separates_gets_the_weight_and_left_out_backgrounds_are_judged_well():
    given = samples()
    fitted = fit(given.inputs["click"], OBJECT, given)
    assert int(np.argmax(np.abs(fitted.weights))) == 0 and fitted.weights[0] > 0.5
    odds = held_out_log_odds(given.inputs["click"], OBJECT, given)
    assert sensitivity_at(odds, given, 1.0) > 0.85
    same = samples(0.0)
    assert sensitivity_at(held_out_log_odds(same.inputs["click"], OBJECT, same), same, 1.0) < 0.5


def test_nodules_that_were_no_candidates_count_as_missed():
    given = samples(30.0)
    odds = held_out_log_odds(given.inputs["click"], OBJECT, given)
    assert sensitivity_at(odds, given, 1.0) == 1.0
    fewer = given.only((given.nodule < 0) | (given.nodule % 2 == 0))
    assert sensitivity_at(held_out_log_odds(fewer.inputs["click"], OBJECT, fewer), fewer, 1.0) == 0.5


def test_thresholds_allow_so_many_false_positives():
    given = samples(1.0)
    odds = held_out_log_odds(given.inputs["click"], OBJECT, given)
    for rate in (1.0, 2.0, 8.0):
        above = 1.0 / (1.0 + np.exp(-odds[~given.positive])) > threshold_at(odds, given, rate)
        assert np.count_nonzero(above) <= rate * BACKGROUNDS
    assert threshold_at(odds, given, 0.5) > threshold_at(odds, given, 8.0)


def test_probabilities_are_those_of_a_usual_scan():
    given = samples(1.5)
    assert given.weight[given.positive].sum() == pytest.approx(score_fitting.USUAL_PER_SCAN * BACKGROUNDS)
    share = 1.0 / (1.0 + np.exp(-fit(given.inputs["click"], OBJECT, given).log_odds(given.inputs["click"])))
    assert np.sum(given.weight * share) == pytest.approx(np.sum(given.weight * given.positive), rel=0.2)


def test_samples_come_back_from_their_file(tmp_path):
    given = samples()
    places = Samples({"place": given.inputs["click"][:5, :3]}, given.nodule[:5], given.background[:5], given.painted)
    score_fitting._write(tmp_path / "samples.npz", places, given)
    for back, before in zip(score_fitting._read(tmp_path / "samples.npz"), (places, given), strict=True):
        assert list(back.inputs) == list(before.inputs)
        assert all(np.array_equal(back.inputs[name], before.inputs[name]) for name in before.inputs)
        assert np.array_equal(back.nodule, before.nodule) and np.array_equal(back.background, before.background)
        assert np.array_equal(back.painted, before.painted)


def test_a_score_can_leave_a_background_out(tmp_path):
    given = samples()
    places = Samples({"place": given.inputs["click"][:, :3]}, given.nodule, given.background, given.painted)
    score_fitting._write(tmp_path / "samples.npz", places, given)
    score = score_fitting.score_without(tmp_path / "samples.npz", 1)
    others = given.only(given.background != 1)
    assert score.clicked == fit(others.inputs["click"], OBJECT, others) != fit(given.inputs["click"], OBJECT, given)
    assert score.place.names == ("diameter", "response", "appearance")


def test_without_classifiers_or_samples_there_is_nothing_to_fit(capsys):
    with pytest.raises(SystemExit):
        score_fitting.main([])
    assert "--classifiers" in capsys.readouterr().err


def record(center, shape=(5, 5, 5)):
    offset = tuple(int(c) - n // 2 for c, n in zip(center[::-1], shape, strict=True))
    mask = np.ones(shape, np.uint8)
    return {
        "prediction": SimpleNamespace(mask=mask, offset_kji=offset, voxels=mask.size),
        "measurements": SimpleNamespace(centroid_ras=tuple(float(c) for c in center)),
        "point_coords": [list(center)],
    }


def test_a_sample_is_a_nodule_something_else_or_neither():
    truth = np.zeros((40, 40, 40), bool)
    truth[18:23, 18:23, 18:23] = True
    ignored = np.zeros_like(truth)
    ignored[:5] = True
    nodule = KnownNodule.of(truth, np.eye(4))
    painted = DetectionScan("a", "training", truth, np.eye(4), (nodule,), ignored)
    bare = DetectionScan("b", "training", truth, np.eye(4), (), ignored)
    label = score_fitting._label
    assert label(painted, record((20, 20, 20))) == 0
    assert label(painted, record((20, 20, 20), (17, 17, 17))) is None, "a leak"
    assert label(painted, record((30, 20, 20))) is None, "what is beside is looked at in the bare scan"
    assert label(bare, record((20, 20, 20))) == -1 and label(bare, record((20, 20, 2))) is None
    near, far = (Candidate((x, 20.0, 20.0), 5.0, 0.0, "solid") for x in (22.0, 30.0))
    assert score_fitting._is_on_nodule(near, painted) and not score_fitting._is_on_nodule(far, painted)
    at = score_fitting._nodule_at
    assert at(painted, near.center_ras) == 0 and at(painted, far.center_ras) is None
    assert at(bare, far.center_ras) == -1 and at(bare, (20.0, 20.0, 2.0)) is None


def test_scans_are_bare_painted_large_and_real(monkeypatch, tmp_path):
    monkeypatch.setattr(score_fitting, "training_backgrounds", lambda *given: [lungs()])
    monkeypatch.setattr(score_fitting, "within_lungs", lambda given: given)
    monkeypatch.setattr(score_fitting, "real_nodules", lambda shared, split: [real_crop()])
    for name, count in (("SMALL_PER_SCAN", 3), ("LARGE_PER_SCAN", 1), ("LARGE_MM", (14.0, 16.0))):
        monkeypatch.setattr(score_fitting, name, count)
    monkeypatch.setattr(classifier_crops, "REAL_PER_SCAN", 2)
    made = [scan for _number, scan in score_fitting.scans(tmp_path, tmp_path, 2, 0)]
    assert [len(scan.nodules) for scan in made] == [0, 3, 3, 1, 2]
    assert {nodule.readers for scan in made[:4] for nodule in scan.nodules} == {None}
    assert {nodule.readers for nodule in made[4].nodules} == {1}
