"""The guidelines' tables, row by row and at their borders."""

from __future__ import annotations

import dataclasses
import math

import pytest

from SAMMed3DLib.inference.errors import InputError
from SAMMed3DLib.report import document, rules
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
    "course, mm3, category",
    [
        ("baseline", 112, "3"),
        ("baseline", 113, "4A"),
        ("baseline", 268, "4B"),
        ("new", 33, "4A"),
        ("growing", 34, "4B"),
    ],
)
def test_lung_rads_part_solid_by_volume(course, mm3, category) -> None:
    found = nodule(9.0, "part-solid", 5.0)
    found = dataclasses.replace(found, solid=dataclasses.replace(found.solid, volume_mm3=mm3))
    assert rules.lung_rads(found, course).by_volume == category


@pytest.mark.parametrize(
    "course, total, reached",
    [
        ("baseline", 5.9, ("2", "3")),
        ("baseline", 6.1, ("2", "3")),
        ("baseline", 5.0, ("2",)),
        ("new", 5.9, ("3", "4A")),
        ("growing", 5.9, ("4A",)),
    ],
)
def test_a_part_solid_nodule_reaches_rows_by_its_whole_size_too(course, total, reached) -> None:
    assert rules.lung_rads(nodule(total, "part-solid", 3.0), course).range == reached


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
    assert "2 if smooth" in rules.lung_rads(touching, "new").note
    assert "smooth" not in rules.lung_rads(touching, "growing").note, "at baseline or new only"


@pytest.mark.parametrize(
    "grown, days, growing",
    [
        (1.5, 100, False),
        (1.6, 100, True),
        (1.6, 366, True),
        (1.6, 367, None),
        (1.5, 900, False),
        (1.6, None, None),
        (5.0, 0, None),
        # of two spans of 12 months one has seen half of it at least, of three a third
        (3.0, 367, None),
        (3.1, 367, True),
        (3.1, 732, True),
        (3.1, 733, None),
        (4.6, 733, True),
    ],
)
def test_lung_rads_growth(grown, days, growing) -> None:
    assert rules.grows_by_lung_rads(Change(6.0, 6.0 + grown, 0.0), days) is growing


@pytest.mark.parametrize(
    "kind, mm, solid, category",
    [
        ("solid", 5.4, None, "below 6 mm"),
        ("solid", 5.5, None, "6 to 8 mm"),
        ("solid", 8.0, None, "6 to 8 mm"),
        ("solid", 8.4, None, "6 to 8 mm"),
        ("solid", 8.5, None, "above 8 mm"),
        ("ground-glass", 5.4, None, "below 6 mm"),
        ("ground-glass", 5.5, None, "6 mm or more"),
        ("part-solid", 5.4, 4.0, "below 6 mm"),
        ("part-solid", 5.5, 5.4, "6 mm or more, solid part below 6 mm"),
        ("part-solid", 9.0, 5.5, "6 mm or more, solid part 6 mm or more"),
    ],
)
def test_fleischner(kind, mm, solid, category) -> None:
    """Its diameters are rounded to whole mm: "5.5 mm or greater would be rounded up to 6 mm" (thorax.bmj.com)."""
    found = rules.fleischner(nodule(mm, kind, solid))
    assert found.category == category and "not for screening" in found.note and category in found.range


@pytest.mark.parametrize(
    "mm3, category",
    [(99.4, "below 6 mm"), (99.5, "6 to 8 mm"), (100, "6 to 8 mm"), (250.4, "6 to 8 mm"), (250.5, "above 8 mm")],
)
def test_fleischner_by_volume(mm3, category) -> None:
    assert rules.fleischner(nodule(7.0, volume=mm3)).by_volume == category


def test_a_part_solid_nodule_near_fleischners_border_reaches_both_sides() -> None:
    small, large = "below 6 mm", "6 mm or more, solid part below 6 mm"
    for mm, category in ((5.4, small), (5.6, large)):
        found = rules.fleischner(nodule(mm, "part-solid", 3.0))
        assert (found.category, found.range) == (category, (small, large))
    assert rules.fleischner(nodule(9.0, "part-solid", 3.0)).range == (large,)


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
    """Its diameter is the longest one (Thorax 2015;70 suppl. 2), whatever the mean."""
    longest = dataclasses.replace(nodule(mm), mean_diameter_mm=mm - 0.7)
    assert words in rules.bts(longest).note


@pytest.mark.parametrize("kind, solid", [("ground-glass", None), ("part-solid", 3.0)])
@pytest.mark.parametrize("mm, category", [(4.9, "below 5 mm"), (5.0, "5 mm or more"), (20.0, "5 mm or more")])
def test_bts_subsolid(kind, solid, mm, category) -> None:
    """Subsolid nodules have one border, of the longest diameter, and no volumes."""
    found = rules.bts(dataclasses.replace(nodule(mm, kind, solid), mean_diameter_mm=mm - 0.7))
    assert found.category == category and found.size_mm == mm and "mm³" not in found.text


def test_a_volume_stands_in_the_group_that_its_words_say() -> None:
    found = rules.bts(nodule(5.4, volume=79.5))
    assert found.category == "80 to below 300 mm³" and "; 80 mm³, -1 % from" in found.text
    assert (
        "113 mm³" in document.volume_text(nodule(volume=112.5))
        and "; 301 mm³, 0 %" in rules.bts(nodule(8.0, volume=300.5)).text
    )


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
    assert "above 1.5 mm, but not known to be within 12" in rules.growth_statements(grown, "solid", 800)[0]
    text = rules.categories(followed(grown, 800), nodule(8.0))[0].text
    assert "not known to have grown" in text and "not growing" not in text
    assert rules.categories(followed(grown), nodule(8.0))[0].category == "4B"


def part_solid_course(before, now, days: int = 200):
    """The course and the Lung-RADS category of a part-solid nodule."""
    uid = now.tracking_uid
    change = Change(before.mean_diameter_mm, now.mean_diameter_mm, 0.0)
    pair = Pair("matched", uid, before.tracking_uid, mean_diameter=change)
    found = dataclasses.replace(
        findings(now), follow_up=FollowUp(findings(before).scan, (before,), days, (pair,), None, "")
    )
    return (*rules.course_of(found, now), rules.categories(found, now)[0].category)


@pytest.mark.parametrize(
    "before, now, days, expected",
    [
        ((12.0, "part-solid", 3.0), (12.0, "part-solid", 5.0), 200, ("growing", "grew by 2.0 mm", "4B")),
        ((12.0, "part-solid", 2.5), (12.0, "part-solid", 3.9), 200, ("not growing", "", "3")),
        ((12.0, "part-solid", 3.0), (12.0, "part-solid", 4.5), 200, ("not growing", "", "3")),
        ((12.0, "ground-glass", None), (12.0, "part-solid", 3.0), 200, ("growing", "solid part is new", "4A")),
        ((12.0, "ground-glass", None), (12.0, "part-solid", 5.0), 900, ("growing", "solid part is new", "4B")),
        ((9.0, "part-solid", 5.0), (12.0, "part-solid", 5.0), 200, ("not growing", "its solid part did not", "3")),
        ((12.0, "part-solid", 3.0), (12.0, "part-solid", 5.0), 800, ("not growing", "its solid part grew 1.5", "3")),
        ((5.0, "solid", None), (9.0, "part-solid", 5.5), 200, ("not growing", "its solid part did not", "3")),
    ],
)
def test_of_a_part_solid_nodule_the_solid_part_grows(before, now, days, expected) -> None:
    """Lung-RADS: 4A with a new or growing solid component of less than 4 mm, 4B from 4 mm on."""
    course, said, category = part_solid_course(nodule(*before[:3], label=9), nodule(*now), days)
    assert course == expected[0] and category == expected[2]
    assert expected[1] in said and bool(expected[1]) == bool(said)


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
    assert "; 1 nodule)" in rules.brock_remark(nodule(10.0), nobody, 1)
    with pytest.raises(InputError, match="age"):
        rules.brock(nodule(10.0), dataclasses.replace(nobody, age=7), 1)
