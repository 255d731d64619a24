"""Two scans of one chest: registration, matching, change, doubling time; on made-up follow-ups whose truth is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from SAMMed3DLib.finding.lungs import LungMask, find_lungs
from SAMMed3DLib.inference.errors import InputError, PredictionCancelled
from SAMMed3DLib.inference.geometry import transform_points
from SAMMed3DLib.report.findings import Interval, from_json, to_json
from SAMMed3DLib.report.follow_up import Registration, change, doubling_time, follow_up, match, register, scan_extent
from SAMMed3DLib.report.measuring import measure_scan, segments_of
from SAMMed3DLib.report.rules import course_of
from SAMMed3DLib.report.scan_facts import check_modality, check_scans, scan_of

from .made_nodules import findings, nodule

SAME_PLACE = Registration(np.eye(4), 1.0, 1.0, "affine")
FAILED = Registration(None, 0.2, 0.4, "registration failed")


def scan(made):
    return made.array_kji, made.ijk_to_ras


@pytest.fixture(scope="module")
def registration(made_up, made_lungs) -> Registration:
    return register(scan(made_up.current), scan(made_up.prior), made_lungs)


@pytest.fixture(scope="module")
def measured(made_up, made_lungs):
    """The findings of the current and of the prior scan."""
    found = []
    for name, made, lungs in zip(("now", "before"), (made_up.current, made_up.prior), made_lungs, strict=True):
        facts = dataclasses.replace(
            scan_of(*scan(made), name, None, lungs), date="2024-03-01" if name == "now" else "2023-09-01"
        )
        found.append(measure_scan(facts, *scan(made), segments_of(made.labels_kji), lungs))
    return found


def at(nodule, ras):
    return dataclasses.replace(nodule, place=dataclasses.replace(nodule.place, centroid_ras=ras))


def test_registration_finds_the_true_places(made_up, registration) -> None:
    points = np.array([each.prior_ras for each in made_up.nodules if each.prior_ras is not None])
    truth = made_up.to_current(points)
    assert np.linalg.norm(points - truth, axis=1).min() > 10.0, "the scans lie apart to begin with"
    errors = np.linalg.norm(transform_points(registration.prior_to_current, points) - truth, axis=1)
    assert errors.max() < 5.0 and np.median(errors) < 2.0
    assert registration.correlation > 0.9 and registration.overlap > 0.9


def test_matched_new_and_gone_are_what_they_are(made_up, registration, measured) -> None:
    found = follow_up(*measured, registration)
    labels = {each.label: each for each in made_up.nodules}
    course = found.follow_up
    seen = set()
    for pair in course.pairs:
        now, then = found.nodule(pair.current_uid), found.prior_nodule(pair.prior_uid)
        truth = labels[(now or then).label]
        seen.add(truth.label)
        expected = "new" if truth.prior_ras is None else "gone" if truth.current_ras is None else "matched"
        assert pair.status == expected
        if pair.status == "matched":
            assert now.label == then.label and now.tracking_uid == then.tracking_uid
        else:
            place = made_up.to_current(truth.prior_ras) if expected == "gone" else None
            assert pair.expected_ras is not None
            if place is not None:
                assert np.linalg.norm(place - pair.expected_ras) < 5.0
    assert seen == {each.label for each in made_up.nodules}
    assert {pair.status for pair in course.pairs} == {"matched", "new", "gone"}
    assert course.days == 182
    assert from_json(to_json(found)) == found


def test_volumes_change_by_the_true_factor(made_up, registration, measured) -> None:
    """The outlines are those of the truth: what is left is how coarse the voxels are."""
    found = follow_up(*measured, registration)
    labels = {each.label: each for each in made_up.nodules}
    for pair in found.follow_up.pairs:
        if pair.status == "matched":
            truth = labels[found.nodule(pair.current_uid).label]
            interval = pair.volume.percent_interval
            assert interval.low < 100.0 * (truth.factor - 1.0) < interval.high
            if truth.factor == 1.0:
                assert pair.doubling_days is None and not pair.is_measurable


def test_cancelling_stops_the_registration(made_up, made_lungs) -> None:
    for stop_at in (1, 5):
        told = []
        with pytest.raises(PredictionCancelled):
            register(
                scan(made_up.current),
                scan(made_up.prior),
                made_lungs,
                lambda done, total, at=stop_at, told=told: told.append(done) or done < at,
            )
        assert told == list(range(1, stop_at + 1)), "nothing goes on after the stop"


def test_another_thing_is_not_registered(made_up, made_lungs) -> None:
    current = scan(made_up.current)
    turned = made_up.prior.array_kji[::-1].copy()
    mask = made_lungs[1]
    flipped = LungMask(mask.mask[::-1].copy(), mask.grid_to_ras, True, "", None)
    found = register(current, (turned, made_up.prior.ijk_to_ras), (made_lungs[0], flipped))
    assert found.prior_to_current is None and "head and feet swapped" in found.message and "by hand" in found.message
    slab = made_up.prior.array_kji[30:32]
    thin = register(current, (slab, made_up.prior.ijk_to_ras), (made_lungs[0], mask))
    assert thin.prior_to_current is None and "too few slices" in thin.message and "by hand" in thin.message
    nothing = LungMask(np.zeros((2, 2, 2), bool), np.eye(4), False, "")
    found = register(current, scan(made_up.prior), (made_lungs[0], nothing))
    assert found.prior_to_current is None and "prior scan" in found.message and "by hand" in found.message


def test_a_scan_that_lost_its_orientation_is_not_registered(made_up, made_lungs) -> None:
    """A chest is symmetric enough for a registration of its mirror image, which would pair other nodules."""
    mirrored = made_up.prior.array_kji[:, :, ::-1].copy()
    lungs = find_lungs(mirrored, made_up.prior.ijk_to_ras)
    found = register(scan(made_up.current), (mirrored, made_up.prior.ijk_to_ras), (made_lungs[0], lungs))
    assert found.prior_to_current is None and "left and right swapped" in found.message and "by hand" in found.message


def test_a_registration_as_of_two_patients_is_a_caveat() -> None:
    now, then = findings(nodule(8.0)), findings(nodule(6.0, label=2), date="2024-01-01")
    spoiled = [follow_up(now, then, Registration(np.eye(4), each, 0.9, "")).follow_up.caveats for each in (0.75, 0.85)]
    assert "are of one patient" in spoiled[0][0].text and spoiled[0][0].spoils == ("change", "number of nodules")
    assert not any("patient" in each.text for each in spoiled[1])
    assert not any("patient" in each.text for each in follow_up(now, then, FAILED).follow_up.caveats)


def test_without_registration_pairs_by_hand_are_all_there_is() -> None:
    now, then = findings(nodule(8.0)), findings(nodule(6.0, label=2), date="2024-01-01")
    alone = follow_up(now, then, FAILED)
    assert [pair.status for pair in alone.follow_up.pairs] == ["unmatched", "unmatched"], "not known to be new or gone"
    assert all(pair.expected_ras is None for pair in alone.follow_up.pairs)
    course, doubt = course_of(alone, alone.nodules[0])
    assert course == "baseline" and "not matched" in doubt
    assert from_json(to_json(alone)) == alone
    by_hand = follow_up(now, then, FAILED, [(now.nodules[0].tracking_uid, then.nodules[0].tracking_uid)])
    (pair,) = by_hand.follow_up.pairs
    assert pair.status == "matched" and pair.by_hand and pair.distance_mm is None
    assert by_hand.nodules[0].tracking_uid == then.nodules[0].tracking_uid


def test_pairs_by_hand_come_before_matching() -> None:
    a, b = at(nodule(8.0), (0.0, 0.0, 0.0)), at(nodule(8.0, label=2), (9.0, 0.0, 0.0))
    c, d = at(nodule(8.0, label=3), (0.0, 0.0, 0.0)), at(nodule(8.0, label=4), (9.0, 0.0, 0.0))
    crossed = follow_up(
        findings(a, b), findings(c, d, date="2024-01-01"), SAME_PLACE, [(a.tracking_uid, d.tracking_uid)]
    )
    pairs = {pair.current_uid: pair for pair in crossed.follow_up.pairs}
    assert pairs[d.tracking_uid].by_hand and crossed.nodule(d.tracking_uid).label == 1
    assert pairs[c.tracking_uid].status == "matched" and not pairs[c.tracking_uid].by_hand
    with pytest.raises(InputError, match="no nodule"):
        follow_up(findings(a), findings(c), SAME_PLACE, [("1.2.3", c.tracking_uid)])
    with pytest.raises(InputError, match="two pairs"):
        follow_up(
            findings(a, b),
            findings(c),
            SAME_PLACE,
            [(a.tracking_uid, c.tracking_uid), (b.tracking_uid, c.tracking_uid)],
        )


def test_what_a_person_parted_is_not_matched() -> None:
    a, c = at(nodule(8.0), (0.0, 0.0, 0.0)), at(nodule(8.0, label=3), (0.0, 0.0, 0.0))
    for prior in (c, dataclasses.replace(c, tracking_uid=a.tracking_uid)):  # by place, and by an earlier comparison
        before = findings(prior, date="2024-01-01")
        joined = follow_up(findings(a), before, SAME_PLACE)
        assert [pair.status for pair in joined.follow_up.pairs] == ["matched"]
        parted = follow_up(findings(a), before, SAME_PLACE, apart=[(a.tracking_uid, prior.tracking_uid)])
        assert [pair.status for pair in parted.follow_up.pairs] == ["new", "gone"]
        assert parted.nodules[0].tracking_uid != prior.tracking_uid


def test_tracking_uids_of_an_earlier_comparison_hold() -> None:
    """Far apart and unlike, but one UID: a person or an earlier comparison said that they are the same."""
    then = at(nodule(6.0), (0.0, 0.0, 0.0))
    now = at(nodule(12.0, "ground-glass"), (60.0, 0.0, 0.0))
    (pair,) = follow_up(findings(now), findings(then, date="2024-01-01"), SAME_PLACE).follow_up.pairs
    assert pair.status == "matched" and not pair.by_hand
    # a person says that another one is the same: the first must give up the name
    other = at(nodule(6.0, label=7), (60.0, 0.0, 0.0))
    changed = follow_up(
        findings(now, other), findings(then, date="2024-01-01"), SAME_PLACE, [(other.tracking_uid, then.tracking_uid)]
    )
    assert changed.nodule(then.tracking_uid).label == 7
    assert len({each.tracking_uid for each in changed.nodules}) == 2
    assert {pair.status for pair in changed.follow_up.pairs} == {"matched", "new"}
    assert from_json(to_json(changed)) == changed


@pytest.mark.parametrize("count", [0, 100])
def test_no_nodules_and_a_hundred(count) -> None:
    rng = np.random.default_rng(3)
    places = rng.uniform(-120.0, 120.0, (count, 3)) * (1.0, 1.0, 1.2)
    then = [at(nodule(6.0, label=n + 1), tuple(p)) for n, p in enumerate(places)]
    now = [at(nodule(6.0, label=n + 201), tuple(p + rng.normal(0.0, 0.8, 3))) for n, p in enumerate(places)]
    rng.shuffle(now)
    pairs = follow_up(findings(*now), findings(*then, date="2024-01-01"), SAME_PLACE).follow_up.pairs
    assert len(pairs) == count
    right = [pair for pair in pairs if pair.status == "matched"]
    assert len(right) == count


def test_matching_weighs_place_volume_and_type() -> None:
    then = [at(nodule(6.0), (0.0, 0.0, 0.0)), at(nodule(12.0, label=2), (6.0, 0.0, 0.0))]
    now = [at(nodule(12.0, label=3), (2.5, 0.0, 0.0)), at(nodule(6.0, label=4), (3.5, 0.0, 0.0))]
    assert set(match(now, then, np.eye(4))) == {(0, 1), (1, 0)}, "by volume, where places leave it open"
    glass = [at(nodule(8.0, "ground-glass"), (0.0, 0.0, 0.0)), at(nodule(8.0, label=2), (4.0, 0.0, 0.0))]
    later = [at(nodule(8.0, label=3), (2.0, 0.0, 0.0)), at(nodule(8.0, "ground-glass", label=4), (2.0, 0.0, 0.0))]
    assert set(match(later, glass, np.eye(4))) == {(0, 1), (1, 0)}, "by type"
    far = [at(nodule(6.0), (25.0, 0.0, 0.0))]
    assert match(far, [at(nodule(6.0), (0.0, 0.0, 0.0))], np.eye(4)) == []


def test_places_outside_the_other_scan_are_not_expected() -> None:
    then = findings(at(nodule(6.0), (0.0, 0.0, 500.0)), date="2024-01-01")
    extent = scan_extent(np.zeros((10, 10, 10)), np.eye(4))
    (pair,) = follow_up(findings(), then, SAME_PLACE, extents_ras=(extent, extent)).follow_up.pairs
    assert pair.status == "unmatched" and pair.expected_ras is None, "the current scan does not show the place"
    now = findings(at(nodule(6.0), (0.0, 0.0, 500.0)))
    (pair,) = follow_up(now, findings(date="2024-01-01"), SAME_PLACE, extents_ras=(extent, extent)).follow_up.pairs
    assert pair.status == "unmatched", "the prior does not show the place"
    (pair,) = follow_up(
        findings(at(nodule(6.0), (1.0, 1.0, 1.0))),
        findings(date="2024-01-01"),
        SAME_PLACE,
        extents_ras=(extent, extent),
    ).follow_up.pairs
    assert pair.status == "new"


def test_change_and_its_interval() -> None:
    """Both measurements 10 % uncertain: the ratio is 10 % x sqrt 2 uncertain, on a logarithmic scale."""
    factor = 1.1
    found = change(100.0, 200.0, Interval(100.0 / factor, 100.0 * factor), Interval(200.0 / factor, 200.0 * factor))
    wide = math.exp(math.sqrt(2.0) * math.log(factor))
    assert found.percent == pytest.approx(100.0)
    assert found.percent_interval.low == pytest.approx(100.0 * (2.0 / wide - 1.0))
    assert found.percent_interval.high == pytest.approx(100.0 * (2.0 * wide - 1.0))


def narrow(prior: float, current: float, share: float = 0.001):
    return change(
        prior,
        current,
        Interval(prior * (1 - share), prior * (1 + share)),
        Interval(current * (1 - share), current * (1 + share)),
    )


@pytest.mark.parametrize(
    "ratio, days, doubling", [(2.0, 100, 100.0), (4.0, 100, 50.0), (math.sqrt(2.0), 90, 180.0), (0.5, 100, -100.0)]
)
def test_doubling_time(ratio, days, doubling) -> None:
    found, interval = doubling_time(narrow(100.0, 100.0 * ratio), days)
    assert found == pytest.approx(doubling, rel=1e-3)
    assert interval.low < doubling < interval.high and interval.high - interval.low < 0.05 * abs(doubling)


def test_a_nodule_that_may_have_gone_halves_at_once() -> None:
    """A click elsewhere in what is left found nothing: the change's interval ends at -100 %."""
    shrunk = change(500.0, 50.0, Interval(450.0, 550.0), Interval(0.0, 60.0))
    assert shrunk.percent_interval.low == -100.0
    found, interval = doubling_time(shrunk, 100, 0.256)
    assert found == pytest.approx(-100.0 * math.log(2.0) / math.log(10.0))
    assert interval.low == pytest.approx(
        -100.0 * math.log(2.0) / math.log(1.0 / (1.0 + shrunk.percent_interval.high / 100.0))
    )
    assert interval.high == 0.0


def test_no_measurable_change() -> None:
    found, interval = doubling_time(narrow(100.0, 102.0, 0.1), 100)
    assert found is None and interval.high == math.inf and interval.low > 100.0
    assert doubling_time(narrow(100.0, 120.0), 100)[0] is not None
    found, interval = doubling_time(narrow(100.0, 120.0), 100, limit=0.256)
    assert found is None and interval.high == math.inf, "real scans of one day differ by as much"
    assert doubling_time(narrow(100.0, 130.0), 100, limit=0.256)[0] is not None
    assert doubling_time(narrow(100.0, 78.0), 100, limit=0.256)[0] is not None, "a factor of 1.28 less"
    assert doubling_time(narrow(100.0, 200.0), None) == (None, None)
    assert doubling_time(narrow(100.0, 200.0), 0) == (None, None)


def test_what_must_be_asked_or_refused_before_comparing() -> None:
    now = findings().scan
    then = findings(date="2024-01-01", series_uid="1.2.4").scan
    assert check_scans(now, then) == []
    nameless = findings(date=None, patient_name=None).scan
    assert check_scans(nameless, then) == [], "what is unknown is no difference"
    asked = check_scans(now, dataclasses.replace(then, patient_name="Möller Ute"))
    assert len(asked) == 1 and "Möller Ute" in asked[0] and "Müller Änne" in asked[0]
    assert check_scans(now, dataclasses.replace(then, patient_name="MU\u0308LLER A\u0308NNE")) == [], (
        "the same, spelled"
    )
    for scan, message in ((dataclasses.replace(then, date="2025-01-01"), "newer"), (now, "same series")):
        with pytest.raises(InputError, match=message):
            check_scans(now, scan)
    with pytest.raises(InputError, match="modality MR"):
        check_modality(findings(modality="MR").scan)


def test_differences_of_the_scans_are_named() -> None:
    now = findings(kernel="B70f", contrast=True, slice_thickness_mm=1.0)
    then = findings(kernel="B30f", contrast=False, slice_thickness_mm=2.5, date="2024-01-01")
    said = " ".join(each.text for each in follow_up(now, then, SAME_PLACE).follow_up.caveats)
    assert "B30f, now B70f" in said and "contrast" in said
    assert "thickness: 2.5 mm, now 1 mm" in said
    thin = follow_up(findings(slice_thickness_mm=0.625), findings(slice_thickness_mm=1.25), SAME_PLACE)
    assert "thickness: 1.25 mm, now 0.625 mm" in thin.follow_up.caveats[0].text
    assert follow_up(now, dataclasses.replace(now), SAME_PLACE).follow_up.caveats == ()
