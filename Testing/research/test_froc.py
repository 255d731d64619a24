"""The hit rule, the curve and the report, on detections and scans made by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from Research import froc
from Research.detection_scans import DetectionScan, KnownNodule
from Research.froc import Found, Froc, ScanResult, evaluate, match
from SAMMed3DLib.inference import Prediction

MATRIX = np.diag([1.0, 1.0, 1.0, 1.0])
SHAPE = (40, 40, 40)


def ball(center, radius):
    k, j, i = np.indices(SHAPE)
    return (i - center[0]) ** 2 + (j - center[1]) ** 2 + (k - center[2]) ** 2 <= radius**2


def nodule(center, radius=4.0, kind="solid", readers=None):
    return KnownNodule.of(ball(center, radius), MATRIX, kind, readers=readers)


def record(center, score, radius=4.0):
    mask = ball(center, radius)
    low = np.argwhere(mask).min(axis=0)
    high = np.argwhere(mask).max(axis=0) + 1
    block = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.uint8)
    prediction = Prediction(block, tuple(int(x) for x in low), None, np.zeros((1, 1, 1), np.float32), None)
    return {
        "score": score,
        "prediction": prediction,
        "point_coords": [list(center)],
        "measurements": SimpleNamespace(centroid_ras=tuple(float(x) for x in center)),
    }


def scan(*nodules, ignored=None):
    return DetectionScan("scan", "held-out", np.zeros(SHAPE, np.int16), MATRIX, nodules, ignored)


def found(score, kind="solid", diameter=8.0, dice=0.8, readers=None):
    known = KnownNodule(kind, diameter, (0.0, 0.0, 0.0), np.ones((1, 1, 1), bool), (0, 0, 0), readers)
    return Found(known, True, score, dice)


# -- the hit rule -----------------------------------------------------------------------------------------------------


def test_a_center_closer_than_the_radius_is_a_hit_and_another_is_a_false_positive():
    known = nodule((20, 20, 20))  # 4 mm
    inside, outside = record((23, 20, 20), 0.9), record((25, 20, 20), 0.8)
    result = match(scan(known), [inside, outside])
    assert result.found[0].score == 0.9 and result.false_positives == (0.8,)


def test_further_hits_of_one_nodule_count_as_nothing_and_the_best_counts():
    result = match(scan(nodule((20, 20, 20))), [record((20, 20, 20), 0.4), record((21, 20, 20), 0.7)])
    assert result.found[0].score == 0.7 and result.false_positives == ()
    assert 0.5 < result.found[0].dice < 1.0  # of the better scored one, which is shifted


def test_dice_of_an_exact_mask_is_one_and_of_a_miss_zero():
    result = match(scan(nodule((20, 20, 20)), nodule((8, 8, 8), 3.0)), [record((20, 20, 20), 0.4)])
    assert result.found[0].dice == 1.0
    assert result.found[1] == Found(result.found[1].nodule, False, -math.inf, 0.0)


def test_what_lies_on_ignored_lesions_is_neither_hit_nor_false():
    ignored = ball((10, 10, 10), 5)
    detections = [record((10, 10, 10), 0.9), record((20, 20, 20), 0.8), record((30, 30, 30), 0.2)]
    result = match(scan(nodule((20, 20, 20)), ignored=ignored), detections)
    assert result.false_positives == (0.2,) and result.found[0].score == 0.8


def test_a_candidate_may_be_there_without_a_detection():
    result = match(scan(nodule((20, 20, 20))), [], np.array([[21.0, 20.0, 20.0]]))
    assert result.found[0].is_candidate and result.found[0].score == -math.inf


# -- the curve --------------------------------------------------------------------------------------------------------


def test_sensitivity_at_each_rate_is_the_best_with_at_most_so_many_false_positives():
    curve = Froc.of([found(s) for s in (0.9, 0.7, 0.5, -math.inf)], [0.8, 0.6, 0.4, 0.3], scans=2)
    assert curve.sensitivity_at(0.0) == 0.25
    assert curve.sensitivity_at(0.5) == 0.5
    assert curve.sensitivity_at(0.9) == 0.5
    assert curve.sensitivity_at(1.0) == 0.75
    assert curve.sensitivity_at(8.0) == 0.75
    assert curve.threshold_at(0.5) == 0.7 and curve.threshold_at(1.0) == 0.5
    assert curve.cpm == pytest.approx(np.mean([0.25, 0.25, 0.5, 0.75, 0.75, 0.75, 0.75]))


def test_a_false_positive_of_the_same_score_counts_before_the_hit_is_believed():
    assert Froc.of([found(0.5)], [0.5], scans=1).sensitivity_at(0.5) == 0.0
    assert Froc.of([found(0.5)], [0.5], scans=1).sensitivity_at(1.0) == 1.0


def test_perfect_and_empty():
    assert Froc.of([found(0.9)], [], scans=1).cpm == 1.0
    assert Froc.of([found(-math.inf)], [0.3], scans=1).cpm == 0.0
    assert Froc.of([], [], scans=0).cpm == 0.0


# -- the report -------------------------------------------------------------------------------------------------------


def results():
    missed = found(-math.inf, "part-solid", 8.0, 0.0)
    members = (found(0.9, diameter=5.0), found(0.6, "ground-glass", 12.0, 0.6), missed)
    return [ScanResult("a", "held-out", members, (0.8, 0.1), 2.0), ScanResult("b", "held-out", (found(0.7),), (), 4.0)]


def test_groups_hold_kinds_and_sizes():
    groups = froc.groups_of(results())
    assert {name: len(members) for name, members in groups.items()} == {
        "all": 4,
        "solid": 2,
        "part-solid": 1,
        "ground-glass": 1,
        "4-6 mm": 1,
        "6-10 mm": 2,
        "10-20 mm": 1,
    }


def test_real_nodules_are_counted_apart_from_painted_ones():
    mixed = [
        replace(each, found=tuple(replace(f, nodule=replace(f.nodule, readers=readers)) for f in each.found))
        for each, readers in zip(results(), (4, None), strict=True)
    ]
    groups = froc.groups_of(mixed)
    counts = {name: len(groups[name]) for name in ("real", "real solid", "real subsolid", "painted")}
    assert counts == {"real": 3, "real solid": 1, "real subsolid": 2, "painted": 1}
    assert [len(each.found) for each in froc.real_only(mixed)] == [3, 0]
    assert froc.missed_targets("real", mixed) == [
        "real: sensitivity 0.67 for nodules of at least 4 mm at 4 false positives a scan, below 0.90"
    ]
    # one of the real ones is missed, the painted one is not: with it, it would be three of four
    assert froc.Froc.of([f for each in mixed for f in each.found], (), 2).sensitivity_at(4.0) == 0.75


def test_table_and_json_agree():
    text, figures = froc.table(results()), froc.as_json(results())
    line = next(line for line in text.splitlines() if line.startswith("all"))
    assert line.split()[1] == "4"
    # at 1/2 a scan one false positive is allowed, which brings all three hits
    assert figures["groups"]["all"]["sensitivity"] == {
        "0.125": 0.25,
        "0.25": 0.25,
        "0.5": 0.75,
        "1": 0.75,
        "2": 0.75,
        "4": 0.75,
        "8": 0.75,
    }
    assert "0.25   0.25   0.75" in line
    json.dumps(figures, allow_nan=False)


def test_targets():
    assert froc.missed_targets("held-out", results()) == [
        "held-out: sensitivity 0.75 for nodules of at least 4 mm at 4 false positives a scan, below 0.85"
    ]
    tiny = ScanResult("f", "held-out", tuple(found(-math.inf, diameter=3.6) for _ in range(5)), ())
    assert froc.missed_targets("held-out", [tiny, ScanResult("g", "held-out", (found(0.9),), ())]) == []
    assert ">= 4 mm" in froc.table([tiny, results()[0]]) and ">= 4 mm" not in froc.table(results())
    assert froc.missed_targets("phantom", results()) == []
    good = ScanResult("c", "lidc", (found(0.9, readers=4, dice=0.8), found(-math.inf, readers=2)), (0.95,) * 8)
    assert froc.missed_targets("lidc", [good]) == []
    low_dice = ScanResult("d", "lidc", (found(0.9, readers=4, dice=0.6),), ())
    drowned = ScanResult("e", "lidc", (found(0.9, readers=4),), (0.95,) * 9)
    assert len(froc.missed_targets("lidc", [low_dice, drowned])) == 2
    assert "missed" in froc.nodule_lines([good])


def test_evaluate_runs_the_generator_on_every_scan():
    class Generator:
        predictor = SimpleNamespace(set_image=lambda array, matrix: None)
        candidates = (SimpleNamespace(center_ras=(20.0, 20.0, 20.0)),)

        def generate(self):
            return [record((20, 20, 20), 0.9)]

    ticks = iter(range(100))
    outcome = evaluate([scan(nodule((20, 20, 20))), scan(nodule((10, 10, 10)))], Generator(), lambda: next(ticks))
    assert [each.found[0].score for each in outcome] == [0.9, -math.inf]
    assert outcome[0].seconds == 1 and outcome[1].false_positives == (0.9,)


def test_without_data_the_exit_code_is_2(tmp_path):
    assert froc.main(["--shared", str(tmp_path), "--sets", "lidc"]) == 2
    with pytest.raises(ValueError, match="no set"):
        next(froc.scans_of("other", tmp_path))


@pytest.mark.parametrize(
    "words, message",
    [
        (["--json", "{}/none/figures.json"], "does not exist"),
        (["--json", "{}"], "must end in .json"),
        (["--checkpoint", "{}/none.pth"], "is not a file"),
        (["--device", "abacus"], "unknown device"),
    ],
)
def test_what_cannot_be_used_is_told_before_the_work(words, message, tmp_path, caplog):
    assert froc.main(["--sets", "phantom", *(word.format(tmp_path) for word in words)]) == 2
    assert message in caplog.text


@pytest.mark.parametrize("words", [["--repeats", "0"], ["--count", "-1"], ["--count", "x"], ["--seed", "-1"]])
def test_numbers_out_of_range_are_wrong_options(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        froc.main(["--sets", "phantom", *words])
    assert stopped.value.code == 2 and "whole number" in capsys.readouterr().err


def test_a_file_that_is_missing_is_told(tmp_path, caplog):
    (tmp_path / "data" / "lidc_idri").mkdir(parents=True)
    assert froc.main(["--shared", str(tmp_path), "--sets", "lidc"]) == 2
    assert "LIDC-IDRI-0001" in caplog.text


def test_the_interval_is_that_of_scans_drawn_anew():
    good = ScanResult("a", "real", (found(0.9), found(0.8)), (0.1,))
    bad = ScanResult("b", "real", (found(-math.inf), found(-math.inf)), (0.1,))
    assert froc.interval([good] * 6, 1.0) == (1.0, 1.0) and froc.interval([bad] * 6, 1.0) == (0.0, 0.0)
    low, high = froc.interval([good, bad] * 5, 1.0)
    assert 0.1 <= low < 0.5 < high <= 0.9


def test_judges_that_have_not_seen_a_lung_need_both_files(tmp_path, capsys):
    with pytest.raises(SystemExit):
        froc.main(["--sets", "real", "--classifiers", str(tmp_path)])
    assert "go together" in capsys.readouterr().err
