from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from SAMMed3DLib.finding.nodule_features import Agreement, agreement_of, describe, object_at, points_within
from SAMMed3DLib.finding.nodule_score import (
    COMBINED,
    LOWEST_SCORE,
    OBJECT,
    PLACE,
    default_score,
    object_inputs,
    place_inputs,
    score_threshold,
    shown_from,
)
from SAMMed3DLib.finding.regression import Regression, fitted_values
from SAMMed3DLib.inference.field import Part
from SAMMed3DLib.inference.preprocessing import crop_at
from SAMMed3DLib.model.profile import PROFILES

CROP = crop_at((0.0, 0.0, 0.0), 0.5, PROFILES["nodule"], np.eye(4))
CELLS = Part(CROP, np.zeros((32, 32, 32), np.float32), np.zeros(3)).cells_to_ras
WORLD = np.stack(np.meshgrid(*(np.arange(32.0),) * 3, indexing="ij"), -1) @ CELLS[:3, :3].T + CELLS[:3, 3]


def part_of(distance, slope=4.0):
    """Logits that fall with the distance (mm, negative inside)."""
    return Part(CROP, (-slope * distance).astype(np.float32), np.zeros(3))


def sphere(radius, center=(0.0, 0.0, 0.0)):
    return np.linalg.norm(WORLD - np.array(center), axis=-1) - radius


def tube(radius, half_length=8.0):
    return np.maximum(np.linalg.norm(WORLD[..., :2], axis=-1) - radius, np.abs(WORLD[..., 2]) - half_length)


def hu_of(distance):
    return np.where(distance < 0, 40.0, -850.0).astype(np.float32)


def test_a_sphere():
    distance = sphere(5.0)
    features = describe(part_of(distance), (0.0, 0.0, 0.0), 0.9, hu_of(distance))
    assert features.diameter_mm == pytest.approx(10.0, rel=0.05)
    assert features.elongation == pytest.approx(1.0, abs=0.05) and features.slenderness == pytest.approx(1.0, abs=0.05)
    assert features.compactness > 0.95 and features.off_center < 0.1
    assert features.contrast_hu == pytest.approx(890.0) and features.mean_hu == pytest.approx(40.0)
    assert features.continued == 0.0 and features.outside_lung == 0.0
    assert features.center_ras == pytest.approx((0, 0, 0), abs=0.05)
    assert features.predicted_iou == 0.9


def test_a_tube_is_long_slender_not_compact():
    distance = tube(2.0, half_length=40.0)
    features = describe(part_of(distance), (0.0, 0.0, 0.0), 0.9, hu_of(distance))
    assert features.elongation > 5 and features.slenderness > 5 and features.compactness < 0.6


def test_a_mask_that_ends_where_the_vessel_goes_on_is_continued():
    inside = tube(3.0, half_length=4.0)
    free = describe(part_of(inside), (0.0, 0.0, 0.0), 0.9, hu_of(inside))
    vessel = describe(part_of(inside), (0.0, 0.0, 0.0), 0.9, hu_of(tube(3.0, half_length=40.0)))
    assert vessel.continued > free.continued + 0.1


def test_stability_and_growth_tell_sharp_from_vague_masks():
    distance = sphere(5.0)
    sharp = describe(part_of(distance, 8.0), (0.0, 0.0, 0.0), None, hu_of(distance))
    vague = describe(part_of(distance, 1.0), (0.0, 0.0, 0.0), None, hu_of(distance))
    # radii 4 and 6 at the offsets of the vague one: (4/6)^3; 8 instead of 5 when generous
    assert vague.stability == pytest.approx((4 / 6) ** 3, abs=0.05)
    assert vague.growth == pytest.approx(3 * np.log(8 / 5), abs=0.1)
    assert sharp.stability > 0.8 and sharp.growth < 0.3
    assert np.isnan(sharp.predicted_iou)


def test_only_the_object_at_the_point_counts():
    distance = np.minimum(sphere(3.0, (-8.0, 0.0, 0.0)), sphere(4.0, (6.0, 0.0, 0.0)))
    features = describe(part_of(distance), (6.0, 0.0, 0.0), 0.5, hu_of(distance))
    assert features.diameter_mm == pytest.approx(8.0, rel=0.06)
    assert features.center_ras == pytest.approx((6, 0, 0), abs=0.1)


def test_a_point_beside_the_mask_finds_it_and_a_far_one_does_not():
    part = part_of(sphere(4.0))
    assert object_at(part, (5.5, 0.0, 0.0)) is not None
    assert object_at(part, (10.0, 0.0, 0.0)) is None
    assert describe(part, (10.0, 0.0, 0.0), 0.9, hu_of(sphere(4.0))) is None
    assert object_at(part, (200.0, 0.0, 0.0)) is None


def test_lungs_tell_what_lies_outside_and_at_the_wall():
    distance, in_lung = sphere(5.0), WORLD[..., 0] < 0.0
    features = describe(part_of(distance), (0.0, 0.0, 0.0), 0.9, hu_of(distance), in_lung)
    assert features.outside_lung == pytest.approx(0.5, abs=0.06) and features.near_wall == pytest.approx(0.5, abs=0.06)


def test_clicks_elsewhere_in_a_sphere_agree_and_in_a_tube_they_do_not():
    ball, long_one = part_of(sphere(5.0)), part_of(tube(2.0))
    middle = (0.0, 0.0, 0.0)
    points = points_within(long_one, middle)
    assert np.abs(points[:, 2]) == pytest.approx((5.2, 5.2), abs=0.4) and np.abs(points[:, :2]).max() < 0.3
    assert np.linalg.norm(points_within(ball, middle), axis=1) == pytest.approx((2.5, 2.5), abs=0.3)
    assert agreement_of(ball, middle, [ball, ball], points_within(ball, middle), [0.6, 0.8]) == Agreement(
        1.0, 1.0, pytest.approx(0.7)
    )
    # each click gives the half of the tube that it lies in
    halves = [part_of(np.maximum(tube(2.0), -np.sign(z) * WORLD[..., 2])) for _, _, z in points]
    found = agreement_of(long_one, middle, halves, points, [None, None])
    assert found.mean == pytest.approx(0.5, abs=0.06) and found.least <= found.mean and np.isnan(found.predicted_iou)
    nothing = part_of(sphere(5.0) + 100.0)
    assert agreement_of(ball, middle, [ball, nothing], points_within(ball, middle), [0.5, 0.1]).least == 0.0


def test_the_score_prefers_spheres_to_tubes_and_is_a_probability():
    round_one, long_one = (
        describe(part_of(d), (0.0, 0.0, 0.0), iou, hu_of(d)) for d, iou in ((sphere(4.0), 0.85), (tube(2.0, 40), 0.5))
    )
    steady, wandering = Agreement(0.95, 0.93, 0.85), Agreement(0.4, 0.3, 0.5)
    high, low = default_score()(round_one, steady), default_score()(long_one, wandering)
    assert 0.0 <= low < 0.3 * high and high <= 1.0
    worst = dataclasses.replace(
        long_one, predicted_iou=0.0, growth=50.0, diameter_mm=1e-3, off_center=1e9, contrast_hu=1e6, elongation=1e9
    )
    assert 0.0 <= default_score()(worst, Agreement(0.0, 0.0, 0.0), -1e6, 1e6) <= 1.0
    assert 0.0 <= default_score().of_place(1e-3, 1e6, -1e6) <= 1.0


def test_blob_filter_and_classifier_are_heard_where_they_were_asked():
    features = describe(part_of(sphere(4.0)), (0.0, 0.0, 0.0), 0.7, hu_of(sphere(4.0)))
    steady, usual = Agreement(0.95, 0.93, 0.85), fitted_values("nodule_score")["usual"]
    for judge in (
        lambda *asked: default_score().of_place(8.0, *asked),
        lambda *asked: default_score()(features, steady, *asked),
    ):
        assert judge(2.0, 0.0) > judge(-4.0, 0.0)
        assert judge(0.0, 4.0) > judge(0.0, -4.0)
        assert judge(float("nan"), float("nan")) == judge(usual["response"], usual["appearance"])


def test_the_regression_is_what_it_says():
    features = describe(part_of(sphere(4.0)), (0.0, 0.0, 0.0), 0.7, hu_of(sphere(4.0)))
    inputs = object_inputs(features, 1.5, -2.0, Agreement(0.95, 0.93, 0.85))
    count = len(OBJECT)
    pairs = Regression(OBJECT, (), (), multiplied=COMBINED).pairs
    weights = np.zeros(count + len(pairs))
    weights[OBJECT.index("iou")], weights[count + pairs.index((0, 2))] = 2.0, 3.0
    weights[OBJECT.index("response")], weights[OBJECT.index("appearance")] = 1.0, 0.5
    rule = Regression(OBJECT, (0.0,) * count, (1.0,) * count, tuple(weights), -1.0, COMBINED)
    expected = 2 * inputs[0] + 3 * inputs[0] * inputs[2] + 1.5 - 0.5 * 2.0 - 1
    assert rule.log_odds(inputs) == pytest.approx(expected)
    assert rule.log_odds(np.stack([inputs, inputs])) == pytest.approx([expected, expected])


def test_every_input_has_a_coefficient_and_is_finite():
    features = describe(part_of(sphere(4.0)), (0.0, 0.0, 0.0), 0.0, hu_of(sphere(4.0)))
    unknown = (float("nan"), float("nan"))
    values = object_inputs(features, *unknown, Agreement(1.0, 0.0, 1.0))
    assert np.isfinite(values).all()
    place = [values[OBJECT.index(name)] for name in PLACE]
    assert np.array_equal(place, place_inputs(features.diameter_mm, *unknown))
    score = default_score()
    for rule, names in ((score.place, PLACE), (score.clicked, OBJECT)):
        assert rule.names == names
    assert len(values) == len(OBJECT)


@pytest.mark.parametrize("ranking", ["probability", "stability"])
def test_the_slider_shows_more_the_further_it_stands(ranking):
    levels = [score_threshold(place, ranking) for place in np.linspace(0, 1, 11)]
    assert levels == sorted(levels, reverse=True) and len(set(levels)) == 11
    assert 0 < levels[-1] == pytest.approx(LOWEST_SCORE) and levels[0] < 1
    assert [shown_from(level, ranking) for level in levels] == pytest.approx(np.linspace(0, 1, 11))
    assert shown_from(0.0, ranking) == 1.0 and shown_from(1.0, ranking) == 0.0
    assert score_threshold(-5.0, ranking) == levels[0] and score_threshold(5.0, ranking) == levels[-1]
