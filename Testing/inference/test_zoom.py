from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from SAMMed3DLib.inference.field import Part
from SAMMed3DLib.inference.geometry import transform_points
from SAMMed3DLib.inference.preprocessing import crop_at
from SAMMed3DLib.inference.zoom import (
    ObjectView,
    ZoomPolicy,
    best_view,
    deepest_point,
    distance_outside,
    points_elsewhere,
    view_object,
)
from SAMMed3DLib.model.profile import PROFILES

from .volumes import grid

# 1 mm first, 0.3 to 1.5 mm, crop of 64
PROFILE = dataclasses.replace(PROFILES["nodule"], target_voxels=16.0)
SHAPE = (200, 200, 200)
MATRIX = grid(SHAPE, (1.0, 1.0, 1.0))
ORIGIN = np.zeros(3)
# how far the spacing of a first click may be from what is wanted: half of a quarter of an octave
STEP = 0.095


def part_with(logits_of_world, spacing=1.0, center=ORIGIN):
    crop = crop_at(center, spacing, PROFILE, MATRIX)
    part = Part(crop, np.zeros((32, 32, 32), np.float32), center)
    cells = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), axis=-1)
    logits = logits_of_world(transform_points(part.cells_to_ras, cells)).astype(np.float32)
    return dataclasses.replace(part, logits=logits)


def ball(center, radius, gain=3.0):
    return lambda world: gain * (radius - np.linalg.norm(world - np.array(center), axis=-1))


def view(part, clicks=(ORIGIN,), shape=SHAPE, matrix=MATRIX):
    return view_object(part, np.array(clicks), shape, matrix)


def seen(diameter, extent=None, cells=100, touches=False, center=ORIGIN):
    extent = np.full(3, diameter) if extent is None else np.array(extent, dtype=float)
    return ObjectView(diameter, extent, np.array(center, dtype=float), cells, touches)


def move(policy, sight, spacing, tried=None, clicks=(ORIGIN,), first=True):
    crop = crop_at(ORIGIN, spacing, policy.profile, MATRIX)
    return policy.next_crop(sight, crop, tried or [spacing], np.array(clicks), MATRIX, first=first)


# -- what a part shows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [3.0, 7.5, 15.0])
def test_size_and_place_of_a_ball(radius):
    center = np.array([2.3, -1.4, 3.1])
    sight = view(part_with(ball(center, radius)))
    assert sight.diameter_mm == pytest.approx(2 * radius, rel=0.1)
    assert np.allclose(sight.extent_mm, 2 * radius, atol=2.5)
    assert np.allclose(sight.center_ras, center, atol=1.5)
    assert not sight.touches_border


def test_only_the_clicked_object_counts():
    two = part_with(lambda world: np.maximum(ball((-12, 0, 0), 4)(world), ball((12, 0, 0), 8)(world)))
    assert view(two, [(-12, 0, 0)]).diameter_mm == pytest.approx(8, rel=0.1)
    assert view(two, [(12, 0, 0)]).diameter_mm == pytest.approx(16, rel=0.1)
    both = view(two, [(12, 0, 0), (-12, 0, 0)])
    assert both.extent_mm[0] == pytest.approx(36, abs=3)
    assert view(two, [(0, 20, 0)]) is None


def test_a_click_beside_its_object_still_finds_it():
    assert view(part_with(ball((6.0, 0, 0), 4))).diameter_mm == pytest.approx(8, rel=0.1)
    assert view(part_with(ball((16.0, 0, 0), 4))) is None
    assert view(part_with(lambda world: np.full(world.shape[:3], -3.0))) is None


def test_touching_the_border_of_the_crop_but_not_of_the_volume():
    part = part_with(lambda world: 5.0 - np.abs(world[..., 1]) - np.abs(world[..., 2]))  # a bar along R
    assert view(part).touches_border
    narrow = (200, 200, 60)  # the crop reaches beyond the volume on the left and right
    assert not view(part, shape=narrow, matrix=grid(narrow, (1.0, 1.0, 1.0))).touches_border


# -- where to look next -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("diameter", "spacing"), [(8, 0.5), (10, 0.625), (4, 1 / 3), (26, 1.625), (60, 3.0)])
def test_the_spacing_gives_the_object_its_size(diameter, spacing):
    assert move(ZoomPolicy(PROFILE), seen(diameter), 1.0, first=False).spacing_mm == pytest.approx(spacing)
    assert move(ZoomPolicy(PROFILE), seen(diameter), 1.0).spacing_mm == pytest.approx(spacing, rel=STEP)


@pytest.mark.parametrize("diameter", [13, 16, 20])
def test_small_changes_are_not_worth_an_encoding(diameter):
    assert move(ZoomPolicy(PROFILE), seen(diameter), 1.0) is None


def test_later_clicks_are_slower_to_zoom():
    sight = seen(16 * 0.7)
    assert move(ZoomPolicy(PROFILE), sight, 1.0, first=True) is not None
    assert move(ZoomPolicy(PROFILE), sight, 1.0, first=False) is None
    assert move(ZoomPolicy(PROFILE), seen(8), 1.0, first=False) is not None


def test_a_few_cells_are_not_trusted_and_nothing_gets_one_careful_look():
    policy = ZoomPolicy(PROFILE)
    assert move(policy, seen(1.0, cells=1), 1.0).spacing_mm == pytest.approx(0.5, rel=STEP)
    assert move(policy, None, 1.0).spacing_mm == pytest.approx(0.5)
    assert move(policy, None, 0.5, tried=[1.0, 0.5]) is None
    assert move(policy, None, 1.0, first=False) is None


def test_a_long_object_stays_within_the_crop():
    crop = move(ZoomPolicy(PROFILE), seen(7.0, extent=(30.0, 5.0, 5.0)), 1.0)
    assert crop.spacing_mm == pytest.approx(30.0 / 64 / 0.7, rel=STEP)


def test_zooming_out_while_the_object_leaves_the_crop():
    policy = ZoomPolicy(dataclasses.replace(PROFILE, spacing_range_mm=(0.3, 3.0)))
    assert move(policy, seen(50, touches=True), 1.0).spacing_mm == pytest.approx(1.5, rel=STEP)
    assert move(policy, seen(50, touches=True), 1.5, tried=[1.0, 1.5]).spacing_mm == pytest.approx(2.25, rel=STEP)
    assert move(policy, seen(50, touches=True), 2.25, tried=[1.0, 1.5, 2.25]) is None
    assert move(policy, seen(50, touches=True), 1.0, first=False).spacing_mm == pytest.approx(1.5)
    assert move(policy, seen(50, touches=True), 3.0) is None  # as far out as it may


def test_no_spacing_is_tried_twice():
    assert move(ZoomPolicy(PROFILE), seen(16), 0.5, tried=[1.0, 0.5]) is None
    assert move(ZoomPolicy(PROFILE), seen(8, touches=True), 0.66, tried=[1.0, 0.66]) is None


def test_the_crop_moves_to_the_object_but_keeps_the_clicks_inside():
    policy = ZoomPolicy(PROFILE)
    crop = move(policy, seen(8, center=(3.0, -2.0, 1.0)), 1.0)
    assert np.allclose(crop.center_ras, (3.0, -2.0, 1.0))
    crop = move(policy, seen(8, center=(14.0, 0.0, 0.0)), 1.0)
    assert crop.contains(ORIGIN, margin=0.14 * 64)
    assert crop.center_ras[0] > 5.0


def test_a_first_click_zooms_to_one_of_a_few_spacings():
    policy = ZoomPolicy(PROFILE)
    spacings = {round(move(policy, seen(diameter), 1.0).spacing_mm, 6) for diameter in np.linspace(9.0, 11.0, 9)}
    assert len(spacings) <= 3 and all(abs(spacing - 0.625) < 0.12 for spacing in spacings)
    assert move(policy, seen(10.5), 0.6, tried=[1.0, 0.6]) is None
    assert move(policy, seen(30.0), 0.6, tried=[1.0, 0.6]).spacing_mm > 1.5


@pytest.mark.parametrize("center", [(3.2, -1.9, 1.1), (0.0, 5.4, 0.0)])
def test_the_second_look_of_a_first_click_is_from_the_objects_own_middle(center):
    policy = ZoomPolicy(PROFILE)
    crop = move(policy, seen(16, center=center), 1.0)
    assert np.allclose(crop.center_ras, np.round(center)) and crop.spacing_mm == pytest.approx(1.0)  # on a voxel
    assert move(policy, seen(16, center=center), 1.0, first=False) is None
    assert move(policy, seen(16, center=center), 1.0, tried=[2.0, 1.0]) is None  # once
    assert move(policy, seen(16, center=(0.3, -0.2, 0.4)), 1.0) is None  # it is there already


def test_neighbouring_looks_keep_place_and_bounds():
    policy = ZoomPolicy(PROFILE)
    crop = crop_at(np.array([4.0, 5.0, 6.0]), 1.0, PROFILE, MATRIX)
    wider = policy.crop_beside(crop, 1.5, np.array([[4.0, 5.0, 6.0]]), MATRIX)
    assert wider.spacing_mm == pytest.approx(1.5) and np.allclose(wider.center_ras, crop.center_ras)
    assert policy.crop_beside(crop, 0.1, np.zeros((1, 3)), MATRIX).spacing_mm == pytest.approx(0.3)
    assert policy.crop_beside(crop, 99.0, np.zeros((1, 3)), MATRIX).spacing_mm == pytest.approx(policy.coarsest_mm)


def test_crops_for_clicks_that_lie_apart():
    policy = ZoomPolicy(PROFILE)
    clicks = np.array([(-20.0, 0.0, 0.0), (25.0, 10.0, 0.0)])
    assert policy.spacing_for_clicks(clicks) == pytest.approx(45.0 / (64 * 0.7))
    assert policy.spacing_for_clicks(clicks[:1]) == PROFILE.spacing_range_mm[0]
    assert policy.spacing_for_clicks(clicks * 10) == policy.coarsest_mm == pytest.approx(3.0)
    fine = crop_at(clicks[0], 0.4, PROFILE, MATRIX)
    crop = policy.crop_of_all(seen(8.0, center=clicks[0]), fine, clicks, MATRIX)
    assert all(crop.contains(click, margin=6) for click in clicks) and crop.contains((-24.0, 0.0, 0.0))
    assert crop.spacing_mm < 1.5
    coarse = crop_at(clicks[0], 2.0, PROFILE, MATRIX)
    assert policy.crop_of_all(None, coarse, clicks, MATRIX).spacing_mm == pytest.approx(2.0)
    larger = policy.crop_of_all(seen(8.0, center=clicks[0]), fine, clicks, MATRIX, 50.0)
    assert larger.spacing_mm == pytest.approx(policy.spacing_for(50.0, np.zeros(3))) and larger.spacing_mm > 1.5


def test_how_far_a_click_lies_outside():
    part = part_with(ball((0.0, 0.0, 0.0), 8.0))
    assert distance_outside(part, np.array((15.0, 0.0, 0.0))) == pytest.approx(7.0, abs=part.cell_mm)
    assert distance_outside(part, np.array((3.0, 0.0, 0.0))) < part.cell_mm
    assert distance_outside(part_with(ball((0.0, 0.0, 0.0), -1.0)), np.zeros(3)) == np.inf


@pytest.mark.parametrize("click", [(0.0, 0.0, 0.0), (6.0, 1.0, -2.0), (-5.0, -4.0, 1.0)])
def test_the_middle_of_an_object_does_not_depend_on_the_click(click):
    center = (1.3, -2.1, 0.4)
    assert np.allclose(deepest_point(part_with(ball(center, 8.0)), np.array([click])), center, atol=0.5)
    assert deepest_point(part_with(ball(center, 8.0)), np.array([(25.0, 20.0, 0.0)])) is None


def test_the_middle_of_a_bent_object_lies_in_it():
    def ring(world):
        return 3.0 - np.hypot(np.hypot(world[..., 0], world[..., 1]) - 12.0, world[..., 2])

    part = part_with(ring)
    middle = deepest_point(part, np.array([(12.0, 0.0, 0.0)]))
    assert abs(np.hypot(*middle[:2]) - 12.0) < 3.0
    for point in points_elsewhere(part, np.array([(12.0, 0.0, 0.0)])):
        assert abs(np.hypot(*point[:2]) - 12.0) < 3.5


def test_clicks_elsewhere_lie_halfway_to_the_ends():
    def egg(world):
        return 1.0 - np.linalg.norm((world - (2.0, 0.0, 0.0)) / (12.0, 8.0, 5.0), axis=-1)

    points = points_elsewhere(part_with(egg), np.array([(0.0, 0.0, 0.0)]))
    assert np.allclose(np.sort(points[:2, 0]), (-4.0, 8.0), atol=0.8) and np.allclose(points[:2, 1:], 0.0, atol=0.8)
    assert np.allclose(np.sort(points[2:, 1]), (-4.0, 4.0), atol=0.8)
    assert points_elsewhere(part_with(egg), np.array([(0.0, 25.0, 0.0)])) is None


def test_native_voxels_never_zoom():
    policy = ZoomPolicy(PROFILES["lidc_fork_native"])
    assert move(policy, seen(3.0), 1.0) is None


def test_which_look_is_kept():
    whole, leaving = seen(8), seen(60, touches=True)
    assert best_view([whole]) == 0
    assert best_view([whole, whole, whole]) == 2
    assert best_view([leaving, whole]) == 1
    assert best_view([whole, leaving]) == 0
    assert best_view([leaving, leaving, leaving]) == 0
    assert best_view([None, whole, leaving]) == 1
    assert best_view([whole, None]) == 0
    assert best_view([None, leaving]) == 1
    assert best_view([None, None]) == 1
