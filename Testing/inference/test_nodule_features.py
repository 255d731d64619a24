from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from SAMMed3DLib.inference.crop_plan import crop_at
from SAMMed3DLib.inference.field import Part
from SAMMed3DLib.inference.nodule_features import describe, object_at
from SAMMed3DLib.inference.nodule_score import (
    BASIC,
    DEFAULT_SCORE,
    LOWEST_SCORE,
    PAIRS,
    NoduleScore,
    basic_inputs,
    score_threshold,
    shown_from,
)
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
    assert features.continued == 0.0 and features.outside_lung == 0.0 and not features.touches_border
    assert features.center_ras == pytest.approx((0, 0, 0), abs=0.05)
    assert features.predicted_iou == 0.9


def test_a_tube_is_long_slender_not_compact_and_leaves_the_crop():
    distance = tube(2.0, half_length=40.0)
    features = describe(part_of(distance), (0.0, 0.0, 0.0), 0.9, hu_of(distance))
    assert features.elongation > 5 and features.slenderness > 5 and features.compactness < 0.6
    assert features.touches_border


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


def test_the_score_prefers_spheres_to_tubes_and_is_a_probability():
    round_one, long_one = (
        describe(part_of(d), (0.0, 0.0, 0.0), iou, hu_of(d)) for d, iou in ((sphere(4.0), 0.85), (tube(2.0, 40), 0.5))
    )
    high, low = DEFAULT_SCORE(round_one), DEFAULT_SCORE(long_one)
    assert 0.0 <= low < 0.3 * high and high <= 1.0
    worst = dataclasses.replace(
        long_one, predicted_iou=0.0, growth=50.0, diameter_mm=1e-3, off_center=1e9, contrast_hu=1e6, elongation=1e9
    )
    assert 0.0 <= DEFAULT_SCORE(worst) <= 1.0


def test_two_looks_count_equally():
    first, second = (describe(part_of(sphere(r)), (0.0, 0.0, 0.0), 0.7, hu_of(sphere(r))) for r in (3.0, 6.0))
    mean = (DEFAULT_SCORE.log_odds(first) + DEFAULT_SCORE.log_odds(second)) / 2
    rule = DEFAULT_SCORE
    usual = mean + rule.response_weight * rule.usual_response
    assert rule(first, second) == pytest.approx(1 / (1 + np.exp(-usual)))
    assert rule(first, second, response=4.0) == pytest.approx(1 / (1 + np.exp(-mean - 4.0 * rule.response_weight)))
    assert rule(first, response=4.0) > rule(first, response=-4.0)


def test_the_regression_is_what_it_says():
    features = describe(part_of(sphere(4.0)), (0.0, 0.0, 0.0), 0.7, hu_of(sphere(4.0)))
    basic = basic_inputs(features)
    weights = np.zeros(len(BASIC) + len(PAIRS))
    weights[BASIC.index("iou")], weights[len(BASIC) + PAIRS.index((0, 1))] = 2.0, 3.0
    rule = NoduleScore((0.0,) * len(BASIC), (1.0,) * len(BASIC), tuple(weights), -1.0)
    assert rule.log_odds(features) == pytest.approx(2 * basic[0] + 3 * basic[0] * min(basic[1], 3.0) - 1)


def test_every_input_has_a_coefficient_and_is_finite():
    features = describe(part_of(sphere(4.0)), (0.0, 0.0, 0.0), 0.0, hu_of(sphere(4.0)))
    values = basic_inputs(features)
    assert len(values) == len(BASIC) == len(DEFAULT_SCORE.mean) == len(DEFAULT_SCORE.scale)
    assert len(DEFAULT_SCORE.weights) == len(BASIC) + len(PAIRS) and np.isfinite(values).all()


@pytest.mark.parametrize("ranking", ["probability", "stability"])
def test_the_slider_shows_more_the_further_it_stands(ranking):
    levels = [score_threshold(place, ranking) for place in np.linspace(0, 1, 11)]
    assert levels == sorted(levels, reverse=True) and len(set(levels)) == 11
    assert 0 < levels[-1] == pytest.approx(LOWEST_SCORE) and levels[0] < 1
    assert [shown_from(level, ranking) for level in levels] == pytest.approx(np.linspace(0, 1, 11))
    assert shown_from(0.0, ranking) == 1.0 and shown_from(1.0, ranking) == 0.0
    assert score_threshold(-5.0, ranking) == levels[0] and score_threshold(5.0, ranking) == levels[-1]
