"""Which answers of a network are believed, and what is said of the others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from SAMMed3DLib.inference.field import Part
from SAMMed3DLib.inference.geometry import transform_points
from SAMMed3DLib.inference.judgement import Answer, ClickChange, choose, confirms, warnings_about
from SAMMed3DLib.inference.postprocessing import Clicks
from SAMMed3DLib.inference.preprocessing import crop_at
from SAMMed3DLib.inference.zoom import ObjectView
from SAMMed3DLib.model.profile import PROFILES

from .volumes import grid

SHAPE = (120, 120, 120)
MATRIX = grid(SHAPE, (1.0, 1.0, 1.0))


def ball(radius, center=(0.0, 0.0, 0.0), spacing=1.0):
    crop = crop_at(np.zeros(3), spacing, PROFILES["nodule"], MATRIX)
    part = Part(crop, np.zeros((32, 32, 32), np.float32), np.zeros(3))
    cells = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), axis=-1)
    distance = np.linalg.norm(transform_points(part.cells_to_ras, cells) - np.array(center), axis=-1)
    return dataclasses.replace(part, logits=(radius - distance).astype(np.float32))


def clicks(*signed):
    points = np.array([point for point, _ in signed], dtype=float)
    return Clicks.of(points, np.array([sign for _, sign in signed]), SHAPE, MATRIX)


def seen(touches=False):
    return ObjectView(10.0, np.full(3, 10.0), np.zeros(3), 100, touches)


IN, OUT = ((0.0, 0.0, 0.0), True), ((0.0, 14.0, 0.0), False)


def test_a_click_on_the_wrong_side_is_ignored():
    assert Answer((ball(10.0),), clicks(IN, OUT), seen(), 0.8).ignored.tolist() == [False, False]
    assert Answer((ball(16.0),), clicks(IN, OUT), seen(), 0.8).ignored.tolist() == [False, True]
    assert Answer((ball(4.0, (0, 9, 0)),), clicks(IN, OUT), seen(), 0.8).ignored.tolist() == [True, False]


def test_what_counts_more_when_answers_are_compared():
    both = clicks(IN, OUT)
    nothing = Answer((ball(10.0),), both, None, 0.9)
    ignoring = Answer((ball(16.0),), both, seen(), 0.9)
    leaving = Answer((ball(10.0),), both, seen(touches=True), 0.9)
    doubted = Answer((ball(10.0),), both, seen(), 0.3)
    good = Answer((ball(10.0),), both, seen(), 0.5)
    ranked = [nothing, ignoring, leaving, doubted, good]
    assert sorted(reversed(ranked), key=lambda answer: answer.rank) == ranked


def test_a_replay_must_not_be_believed_less_than_what_it_replaces():
    both = clicks(IN, OUT)
    ignoring = Answer((ball(16.0),), both, seen(), 0.81)
    obeying = Answer((ball(10.0),), both, seen(), 0.66)
    assert obeying.rank > ignoring.rank and not obeying.replaces(ignoring)
    assert dataclasses.replace(obeying, score=0.83).replaces(ignoring)
    assert obeying.replaces(dataclasses.replace(ignoring, view=None))
    assert not ignoring.replaces(obeying)


def judged(part, signed, score=0.7, view=None):
    return Answer((part,), clicks(*signed), view or seen(), score)


def test_a_click_just_beyond_the_border_asks_for_less_than_one_far_from_it():
    for sign, near, far in ((True, 11.0, 19.0), (False, 9.0, 2.0)):
        for place, is_wrong in ((near, False), (far, True)):
            signed = [IN, ((0.0, place, 0.0), sign)]
            answer, old = judged(ball(10.0), signed), judged(ball(10.0), signed)
            assert answer.is_doubtful(old)
            assert answer.is_wrong(old) is is_wrong, (sign, place)


def test_what_else_makes_an_answer_wrong():
    signed = [IN, OUT]
    old = judged(ball(15.5), signed)
    good = judged(ball(12.0), signed)
    assert not good.is_doubtful(old) and not good.is_wrong(old)
    assert dataclasses.replace(good, score=0.2).is_wrong(old)
    assert dataclasses.replace(good, view=seen(touches=True)).is_wrong(old)
    assert not dataclasses.replace(good, view=seen(touches=True)).is_wrong(dataclasses.replace(old, view=seen(True)))
    assert dataclasses.replace(good, view=None).is_doubtful(old) and dataclasses.replace(good, view=None).is_wrong(old)
    assert judged(ball(6.0), signed).is_doubtful(old) and judged(ball(6.0), signed).is_wrong(old)


def test_an_old_refusal_is_no_new_doubt():
    signed = [IN, ((0.0, 9.0, 0.0), False), ((0.0, 0.0, 11.0), True)]
    old, grown = judged(ball(10.0), signed), judged(ball(11.5), signed)
    assert old.ignored.tolist() == [False, True, True] and grown.ignored.tolist() == [False, True, False]
    assert not grown.is_doubtful(old)
    assert judged(ball(11.5), signed).is_doubtful(judged(ball(8.5), signed))  # what was obeyed no longer is


def test_a_good_mask_is_given_up_only_if_two_looks_agree():
    signed = [IN, ((0.0, 9.0, 0.0), False)]
    old, small, smaller = (
        judged(ball(radius), signed, score) for radius, score in ((10.0, 0.6), (5.0, 0.8), (2.0, 0.9))
    )
    assert choose(old, [small]) is None
    assert choose(old, [small, smaller]) is None
    assert choose(old, [small, judged(ball(5.5), signed, 0.7)]) == 0
    assert choose(old, [judged(ball(8.5), signed)]) == 0
    assert choose(dataclasses.replace(old, score=0.3), [small]) == 0
    assert choose(dataclasses.replace(old, view=seen(touches=True)), [small]) == 0
    assert choose(old, [dataclasses.replace(old, score=0.5), judged(ball(8.5), signed)]) == 1
    assert choose(old, [dataclasses.replace(old, score=0.8), judged(ball(8.5), signed)]) == 0  # believed less


@pytest.mark.parametrize(("view", "score", "sure"), [(seen(), 0.6, True), (seen(), 0.2, False), (None, 0.9, False)])
def test_sure(view, score, sure):
    assert Answer((ball(10.0),), clicks(IN), view, score).is_sure is sure
    assert Answer((ball(10.0),), clicks(IN), seen(), None).is_sure


def test_what_may_be_a_piece_and_what_is_a_mass():
    one = clicks(IN)
    large = dataclasses.replace(seen(), diameter_mm=24.0)
    assert Answer((ball(12.0),), one, large, 0.55).may_be_a_piece
    assert not Answer((ball(12.0),), one, large, 0.7).may_be_a_piece  # believed
    assert not Answer((ball(12.0),), one, seen(), 0.55).may_be_a_piece  # small
    assert not Answer((ball(12.0),), one, large, None).may_be_a_piece
    mass = Answer((ball(27.0, spacing=2.4),), one, dataclasses.replace(seen(), diameter_mm=54.0), 0.45)
    assert mass.is_mass
    assert not dataclasses.replace(mass, view=dataclasses.replace(mass.view, touches_border=True)).is_mass
    assert not dataclasses.replace(mass, view=dataclasses.replace(mass.view, diameter_mm=30.0)).is_mass
    assert not dataclasses.replace(mass, clicks=clicks(IN, ((0.0, 5.0, 0.0), False))).is_mass  # a click is ignored
    part = mass.parts[0]
    flooded = dataclasses.replace(part, logits=np.where(part.logits > 0, 0.5, -0.5).astype(np.float32))
    assert not dataclasses.replace(mass, parts=(flooded,)).is_mass


def test_an_odd_change_is_one_that_the_click_did_not_ask_for():
    whole, half, twice = (ball(10.0),), (ball(7.0),), (ball(13.0),)
    assert ClickChange.between(whole, half).is_odd(positive=True)  # a third is left
    assert not ClickChange.between(whole, twice).is_odd(positive=True)
    assert ClickChange.between(whole, twice).is_odd(positive=False)
    assert ClickChange.between(whole, (ball(6.0),)).is_odd(positive=False)
    assert not ClickChange.between(whole, (ball(9.0),)).is_odd(positive=False)
    assert not ClickChange.between((ball(-1.0),), whole).is_odd(positive=False)  # there was nothing before
    assert not ClickChange.between(whole, whole).is_odd(positive=True)


def test_changes_are_counted_between_crops_of_different_spacing():
    same = ClickChange.between((ball(10.0, spacing=0.6),), (ball(10.0, spacing=1.2),))
    assert same.common > 0.9 * max(same.before, same.after)


def test_a_click_confirms_a_mask_that_has_all_clicks_right():
    assert confirms((ball(10.0),), clicks(IN, OUT))
    assert not confirms((ball(10.0),), clicks(IN, ((0.0, 12.0, 0.0), True)))
    assert not confirms((ball(16.0),), clicks(IN, OUT))


def test_what_is_said_of_answers_that_are_not_to_be_trusted():
    one, four = clicks(IN), clicks(IN, OUT, OUT, IN)
    fine = Answer((ball(10.0),), one, seen(), 0.7)
    assert warnings_about(fine, 1.5) == ()
    (told,) = warnings_about(dataclasses.replace(fine, view=seen(touches=True)), 1.5)
    assert "larger than the network can see" in told
    (told,) = warnings_about(dataclasses.replace(fine, parts=(ball(40.0, spacing=2.4),)), 1.5)
    assert "larger than those the network was trained on" in told
    (told,) = warnings_about(dataclasses.replace(fine, score=0.25), 1.5)
    assert "predicted IoU 0.25 after one click" in told
    assert warnings_about(dataclasses.replace(fine, score=0.55), 1.5) == ()
    (told,) = warnings_about(dataclasses.replace(fine, clicks=four, score=0.55), 1.5)
    assert "after 4 clicks" in told
    assert warnings_about(dataclasses.replace(fine, score=None), 1.5) == ()
