"""The guidelines' tables, row by row and at their borders."""

from __future__ import annotations

import dataclasses
import math

import pytest

from SAMMed3DLib.inference.errors import InputError
from SAMMed3DLib.report import rules
from SAMMed3DLib.report.findings import Change, FollowUp, Interval, Pair

from .made_nodules import findings, nodule


@pytest.mark.parametrize(
    "course, mm, category",
    [
        ("baseline", 5.9, "2"),
        ("baseline", 6.0, "3"),
        ("baseline", 7.9, "3"),
        ("baseline", 8.0, "4A"),
        ("baseline", 14.9, "4A"),
        ("baseline", 15.0, "4B"),
        ("new", 3.9, "2"),
        ("new", 4.0, "3"),
        ("new", 5.9, "3"),
        ("new", 6.0, "4A"),
        ("new", 7.9, "4A"),
        ("new", 8.0, "4B"),
        ("growing", 4.0, "4A"),
        ("growing", 7.9, "4A"),
        ("growing", 8.0, "4B"),
        ("not growing", 5.9, "2"),
        ("not growing", 8.0, "4A"),
    ],
)
def test_lung_rads_solid(course, mm, category) -> None:
    assert rules.lung_rads(nodule(mm), course).category == category


@pytest.mark.parametrize(
    "course, mm3, category",
    [
        ("baseline", 112.4, "2"),
        ("baseline", 112.5, "3"),
        ("baseline", 267.4, "3"),
        ("baseline", 268, "4A"),
        ("baseline", 1766, "4A"),
        ("baseline", 1767, "4B"),
        ("new", 33, "2"),
        ("new", 34, "3"),
        ("new", 113, "4A"),
        ("new", 268, "4B"),
        ("growing", 267, "4A"),
        ("growing", 268, "4B"),
    ],
)
def test_lung_rads_solid_by_volume(course, mm3, category) -> None:
    assert rules.lung_rads(nodule(7.0, volume=mm3), course).by_volume == category


@pytest.mark.parametrize(
    "course, total, solid, category",
    [
        ("baseline", 5.9, 3.0, "2"),
        ("baseline", 6.0, 3.0, "3"),
        ("baseline", 20.0, 5.9, "3"),
        ("baseline", 9.0, 6.0, "4A"),
        ("baseline", 9.0, 7.9, "4A"),
        ("baseline", 9.0, 8.0, "4B"),
        ("new", 5.9, 3.9, "3"),
        ("new", 5.9, 4.0, "3"),
        ("new", 6.0, 3.9, "4A"),
        ("new", 6.0, 4.0, "4B"),
        ("growing", 7.0, 3.9, "4A"),
        ("growing", 7.0, 4.0, "4B"),
        ("growing", 5.5, 3.0, "4A"),
    ],
)
def test_lung_rads_part_solid(course, total, solid, category) -> None:
    assert rules.lung_rads(nodule(total, "part-solid", solid), course).category == category


@pytest.mark.parametrize(
    "course, mm, category",
    [
        ("baseline", 29.9, "2"),
        ("baseline", 30.0, "3"),
        ("new", 29.9, "2"),
        ("new", 30.0, "3"),
        ("not growing", 30.0, "2"),
        ("not growing", 45.0, "2"),
        ("growing", 29.9, "2"),
        ("growing", 30.0, None),
    ],
)
def test_lung_rads_ground_glass(course, mm, category) -> None:
    found = rules.lung_rads(nodule(mm, "ground-glass"), course)
    assert found.category == category and ("none" in found.text) == (category is None)


def test_lung_rads_juxtapleural_needs_a_person() -> None:
    touching = nodule(9.0, pleura=0.0)
    found = rules.lung_rads(touching, "baseline")
    assert found.category == "4A" and "2 if smooth" in found.note
    assert "smooth" not in rules.lung_rads(nodule(9.0), "baseline").note


@pytest.mark.parametrize(
    "grown, days, growing",
    [(1.5, 100, False), (1.6, 100, True), (1.6, 366, True), (1.6, 367, None), (1.5, 900, False), (1.6, None, None)],
)
def test_lung_rads_growth(grown, days, growing) -> None:
    assert rules.grows_by_lung_rads(Change(6.0, 6.0 + grown, 0.0), days) is growing


@pytest.mark.parametrize(
    "kind, mm, solid, category",
    [
        ("solid", 5.9, None, "below 6 mm"),
        ("solid", 6.0, None, "6 to 8 mm"),
        ("solid", 8.0, None, "6 to 8 mm"),
        ("solid", 8.1, None, "above 8 mm"),
        ("ground-glass", 5.9, None, "below 6 mm"),
        ("ground-glass", 6.0, None, "6 mm or more"),
        ("part-solid", 5.9, 4.0, "below 6 mm"),
        ("part-solid", 6.0, 5.9, "6 mm or more, solid part below 6 mm"),
        ("part-solid", 9.0, 6.0, "6 mm or more, solid part 6 mm or more"),
    ],
)
def test_fleischner(kind, mm, solid, category) -> None:
    found = rules.fleischner(nodule(mm, kind, solid))
    assert found.category == category and "not for screening" in found.note and category in found.range


@pytest.mark.parametrize(
    "mm3, category",
    [(79.4, "below 80 mm³"), (80, "80 to below 300 mm³"), (299, "80 to below 300 mm³"), (300, "300 mm³ or more")],
)
def test_bts(mm3, category) -> None:
    assert rules.bts(nodule(6.0, volume=mm3)).category == category


@pytest.mark.parametrize(
    "mm, words", [(4.9, "below 5 mm"), (5.0, "5 to below 6"), (6.0, "6 to below 8"), (8.0, "8 mm or more")]
)
def test_bts_by_diameter(mm, words) -> None:
    assert words in rules.bts(nodule(mm)).note


def test_how_near_the_border_the_interval_is() -> None:
    near = rules.lung_rads(nodule(7.8, share=0.25), "baseline")
    assert near.category == "3" and near.range == ("3", "4A") and near.nearest_border_mm == 8.0
    assert "0.2 mm from the border at 8 mm" in near.text and "reaches 3 to 4A" in near.text
    far = rules.lung_rads(nodule(7.0, share=0.25), "baseline")
    assert far.range == ("3",) and "reaches" not in far.text
    assert rules.bts(nodule(6.0, volume=90, share=0.25)).range == ("below 80 mm³", "80 to below 300 mm³")


def test_every_sentence_says_research_only() -> None:
    for category in rules.categories(findings(nodule()), nodule()):
        assert category.text.startswith("size category according to") and "research only" in category.text


def followed(pair: Pair, days: int = 200):
    prior = findings(nodule(6.0, label=9)).scan
    return dataclasses.replace(
        findings(nodule(8.0)), follow_up=FollowUp(prior, (nodule(6.0, label=9),), days, (pair,), None, "")
    )


def test_the_course_decides_the_row() -> None:
    uid, before = nodule().tracking_uid, nodule(label=9).tracking_uid
    assert rules.course_of(findings(nodule()), nodule())[0] == "baseline"
    assert rules.course_of(followed(Pair("new", uid, None)), nodule())[0] == "new"
    grown = Pair("matched", uid, before, mean_diameter=Change(6.0, 8.0, 33.0))
    assert rules.course_of(followed(grown), nodule())[0] == "growing"
    course, doubt = rules.course_of(followed(grown, 800), nodule())
    assert course == "not growing" and "12 months" in doubt
    assert rules.categories(followed(grown), nodule(8.0))[0].category == "4B"


@pytest.mark.parametrize(
    "percent, low, high, words",
    [
        (24.0, 24.0, 24.5, "below 25"),
        (25.0, 25.0, 40.0, "reaches 25"),
        (60.0, 30.0, 90.0, "reaches 25"),
        (30.0, 10.0, 50.0, "includes the threshold of 25"),
    ],
)
def test_growth_of_volume(percent, low, high, words) -> None:
    pair = Pair("matched", "1.2", "1.3", volume=Change(100.0, 100.0 + percent, percent, Interval(low, high)))
    assert any(words in line for line in rules.growth_statements(pair, "solid", 100))


def test_growth_of_mass_is_for_subsolid_nodules() -> None:
    pair = Pair("matched", "1.2", "1.3", mass=Change(100.0, 131.0, 31.0, Interval(30.5, 31.5)))
    assert not rules.growth_statements(pair, "solid", 100)
    assert "reaches 30 %" in rules.growth_statements(pair, "ground-glass", 100)[0]


@pytest.mark.parametrize(
    "days, low, high, words",
    [
        (399.0, 350.0, 399.5, "below 400"),
        (401.0, 400.5, 500.0, "above 400"),
        (390.0, 300.0, 500.0, "includes 400"),
        (390.0, 300.0, math.inf, "includes 400"),
    ],
)
def test_doubling_time_against_400_days(days, low, high, words) -> None:
    pair = Pair(
        "matched",
        "1.2",
        "1.3",
        volume=Change(1.0, 2.0, 100.0),
        doubling_days=days,
        doubling_days_interval=Interval(low, high),
    )
    assert any(words in line for line in rules.growth_statements(pair, "solid", 100))


def test_brock_equals_its_centred_form() -> None:
    """The published calculator centres age at 62, the count at 4 and the size at 1.58113883."""
    for age, count, mm in ((62, 4, 4.0), (55, 1, 12.5), (74, 9, 27.0)):
        patient = rules.Patient(age, True, True, False, True, False)
        x = (
            -6.7892
            + 0.0287 * (age - 62)
            - 0.0824 * (count - 4)
            - 5.3854 * ((mm / 10.0) ** -0.5 - 1.58113883)
            + 0.6011
            + 0.2961
            + 0.7729
            + 0.3770
        )
        found = rules.brock(nodule(mm, "part-solid", 3.0), patient, count)
        assert found == pytest.approx(1.0 / (1.0 + math.exp(-x)), rel=2e-3)


def test_every_term_of_brock_counts() -> None:
    nobody = rules.Patient(60, False, False, False, False, False)
    base = rules.brock(nodule(10.0), nobody, 1)
    odds = lambda p: p / (1.0 - p)  # noqa: E731
    for field, factor in (
        ("female", 0.6011),
        ("family_history", 0.2961),
        ("emphysema", 0.2953),
        ("spiculation", 0.7729),
        ("upper_lobe", 0.6581),
    ):
        changed = rules.brock(nodule(10.0), dataclasses.replace(nobody, **{field: True}), 1)
        assert odds(changed) / odds(base) == pytest.approx(math.exp(factor))
    assert odds(rules.brock(nodule(10.0, "ground-glass"), nobody, 1)) / odds(base) == pytest.approx(math.exp(-0.1276))
    assert odds(rules.brock(nodule(10.0), nobody, 2)) / odds(base) == pytest.approx(math.exp(-0.0824))
    with pytest.raises(InputError, match="age"):
        rules.brock(nodule(10.0), dataclasses.replace(nobody, age=7), 1)
