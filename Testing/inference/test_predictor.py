from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
import torch

from SAMMed3DLib.inference import EmbeddingCache, InputError, PredictionCancelled, SamPredictor3D, measure_nodule
from SAMMed3DLib.inference.geometry import transform_points, voxel_index, world_to_ijk
from SAMMed3DLib.inference.zoom import ZoomPolicy
from SAMMed3DLib.model.profile import PROFILES

from .fakes import PROFILE, RandomModel, ThresholdModel, sphere_volume
from .volumes import ORIENTATIONS, grid, rotation, world_of

CENTER = (4.0, -3.0, 6.0)


def sphere_case(name="axial LPS", radius=8.0, **kwargs):
    shape, spacing, directions = ORIENTATIONS[name]
    matrix = grid(shape, spacing, directions)
    return sphere_volume(world_of(shape, matrix), CENTER, radius, **kwargs), matrix


def predictor_for(array, matrix, model=None, **kwargs):
    predictor = SamPredictor3D(model or ThresholdModel(), **kwargs)
    predictor.set_image(array, matrix)
    return predictor


def dice(a, b):
    return 2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def in_world(prediction, shape, matrix):
    """The mask at the points of one fixed RAS grid, as bool."""
    axis = np.arange(-20.0, 20.0, 0.7)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1) + CENTER
    ijk = voxel_index(world_to_ijk(matrix, points))
    full = prediction.full_mask(shape)
    return full[ijk[..., 2], ijk[..., 1], ijk[..., 0]].astype(bool)


# -- geometry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_one_click_gives_the_sphere_in_every_orientation(name):
    array, matrix = sphere_case(name)
    prediction = predictor_for(array, matrix).predict([CENTER], [1])
    truth = np.linalg.norm(world_of(array.shape, matrix) - CENTER, axis=-1) <= 8.0
    assert dice(prediction.full_mask(array.shape).astype(bool), truth) > 0.96
    assert prediction.mask.dtype == np.uint8
    assert prediction.logits.shape == (32, 32, 32) and prediction.logits.dtype == np.float32
    assert prediction.score == pytest.approx(0.8)


def test_the_same_object_has_the_same_mask_in_the_world_however_it_is_stored():
    reference = None
    for name in ORIENTATIONS:
        array, matrix = sphere_case(name)
        mask = in_world(predictor_for(array, matrix).predict([CENTER]), array.shape, matrix)
        reference = mask if reference is None else reference
        # nearest-voxel display on another lattice costs a little
        assert dice(mask, reference) > 0.92, name


def test_flips_permutations_and_shifts_of_storage_change_no_voxel():
    rng = np.random.default_rng(0)
    array, matrix = sphere_case("axial RAS")
    array = (array + rng.normal(0, 60, array.shape)).astype(np.int16)
    clicks, labels = [CENTER, (10.0, -3.0, 6.0), (4.0, 8.0, 6.0)], [1, 0, 1]
    expected = predictor_for(array, matrix).predict(clicks, labels).full_mask(array.shape)
    assert 500 < expected.sum() < 5000
    flipped = array[::-1, :, ::-1]
    flipped_matrix = matrix.copy()
    flipped_matrix[:3, 3] = transform_points(matrix, (array.shape[2] - 1, 0, array.shape[0] - 1))
    flipped_matrix[:3, [0, 2]] *= -1
    mask = predictor_for(flipped, flipped_matrix).predict(clicks, labels).full_mask(flipped.shape)
    assert np.array_equal(mask[::-1, :, ::-1], expected)
    turned = array.transpose(1, 2, 0)  # [j, i, k]
    turned_matrix = matrix[:, [2, 0, 1, 3]]
    mask = predictor_for(turned, turned_matrix).predict(clicks, labels).full_mask(turned.shape)
    assert np.array_equal(mask.transpose(2, 0, 1), expected)
    moved_matrix = matrix.copy()
    moved_matrix[:3, 3] += (64.0, -128.0, 256.0)
    moved = predictor_for(array, moved_matrix).predict(np.array(clicks) + (64.0, -128.0, 256.0), labels)
    assert np.array_equal(moved.full_mask(array.shape), expected)


@pytest.mark.parametrize("shape", [(1, 40, 40), (3, 5, 4), (1, 1, 1), (40, 1, 2)])
def test_tiny_volumes(shape):
    matrix = grid(shape, (1.0, 1.0, 3.0), rotation(20.0, (1, 1, 0)))
    array = np.full(shape, 50, np.int16)
    click = transform_points(matrix, np.array(shape[::-1]) // 2)
    prediction = predictor_for(array, matrix).predict([click])
    assert prediction.full_mask(shape)[tuple(np.array(shape) // 2)] == 1


def test_a_volume_of_1024_cubed_costs_only_its_block():
    plane = np.full((1, 1, 1024), -900, np.int16)
    plane[..., 500:540] = 100
    array = np.broadcast_to(plane, (1024, 1024, 1024))
    matrix = grid(array.shape, (0.4, 0.4, 0.4))
    predictor = predictor_for(array, matrix)
    prediction = predictor.predict([transform_points(matrix, (520, 512, 512))])
    assert prediction.mask.size < 100**3 * 8
    inside = np.flatnonzero(prediction.mask.any(axis=(0, 1))) + prediction.offset_kji[2]
    assert abs(inside[0] - 500) <= 3 and abs(inside[-1] - 539) <= 3


def test_clicks_in_far_corners_of_1024_cubed_cost_only_their_blocks():
    array = np.broadcast_to(np.int16(-900), (1024, 1024, 1024))
    matrix = grid(array.shape, (0.4, 0.4, 0.4))
    model = ThresholdModel(push=40.0)
    predictor = predictor_for(array, matrix, model)
    corners = transform_points(matrix, [(40, 40, 40), (980, 980, 980)])
    first = predictor.predict(corners[:1])
    tracemalloc.start()
    prediction = predictor.predict(corners, previous=first)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # the joined mask, one byte a voxel, of which the system hands out only the pages that are written
    assert peak < prediction.mask.size + 200e6
    assert min(prediction.mask.shape) > 930
    for voxel in ((40, 40, 40), (980, 980, 980)):
        assert prediction.mask[tuple(np.array(voxel) - prediction.offset_kji)] == 1


@pytest.mark.parametrize("corner", [(-0.5, -0.5, -0.5), (79.5, 79.5, 59.5), (0, 79.5, 30)])
def test_a_click_on_the_outer_face_belongs_to_the_border_voxel(corner):
    array, matrix = sphere_case("axial LPS")
    prediction = predictor_for(array, matrix).predict([transform_points(matrix, corner)])
    voxel = np.clip(np.round(corner), 0, [79, 79, 59]).astype(int)
    assert prediction.full_mask(array.shape)[tuple(voxel[::-1])] == 1


@pytest.mark.parametrize("name", ["axial LPS", "sagittal", "gantry tilt"])
def test_native_profile(name):
    shape, spacing, directions = ORIENTATIONS[name]
    matrix = grid(shape, spacing, directions)
    array = sphere_volume(world_of(shape, matrix), CENTER, 14.0, inside=250.0)
    model = ThresholdModel(dataclasses.replace(PROFILES["lidc_fork_native"], crop_size=(64, 64, 64)))
    prediction = predictor_for(array, matrix, model).predict([CENTER])
    truth = np.linalg.norm(world_of(shape, matrix) - CENTER, axis=-1) <= 14.0
    assert dice(prediction.full_mask(shape).astype(bool), truth) > 0.93
    assert model.encoded == 1
    assert np.allclose(prediction.crop.crop_to_ras[:3, :3] ** 2 @ np.ones(3), (matrix[:3, :3] ** 2) @ np.ones(3))


# -- clicks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rule", ["all", "newest"])
def test_every_click_is_respected_whatever_the_network_says(seed, rule):
    rng = np.random.default_rng(seed)
    name = list(ORIENTATIONS)[seed % len(ORIENTATIONS)]
    shape, spacing, directions = ORIENTATIONS[name]
    matrix = grid(shape, spacing, directions)
    array = rng.normal(-500, 300, shape).astype(np.int16)
    model = RandomModel(dataclasses.replace(PROFILE, prompt_rule=rule), seed, bias=[-8.0, 0.0, 8.0][seed % 3])
    predictor = predictor_for(array, matrix, model)
    voxels, labels, prediction = [], [], None
    for step in range(5):
        voxel = rng.integers(0, shape)
        if step == 3:
            voxel = voxels[0]  # the newest wins in a voxel that was clicked before
        voxels.append(voxel)
        labels.append(1 if step in (0, 2) else int(rng.integers(0, 2)))
        points = transform_points(matrix, np.array(voxels)[:, ::-1])
        prediction = predictor.predict(points, labels, previous=prediction)
        wanted = {tuple(v): label for v, label in zip(np.array(voxels).tolist(), labels, strict=True)}
        mask = prediction.full_mask(shape)
        for voxel_index_, label in wanted.items():
            assert mask[voxel_index_] == label, (step, voxel_index_, label)


def test_an_ignored_click_changes_the_tissue_around_it_but_not_beyond_its_border():
    """The network sees nothing; the clicked bright ball is still found as a ball, not as a single voxel."""
    array, matrix = sphere_case(radius=3.0)
    model = ThresholdModel(gain=0.0)
    model.decode = lambda *args, **kwargs: (torch.full((1, 1, 32, 32, 32), -4.0), torch.zeros(1, 1))
    prediction = predictor_for(array, matrix, model).predict([CENTER])
    assert 5 <= prediction.voxels <= 160
    assert (array[prediction.slices_kji][prediction.mask > 0] > -600).all()


def test_a_replay_gives_the_very_result_of_the_clicks():
    array, matrix = sphere_case()
    clicks = np.array([CENTER, (4.0, 6.0, 6.0), (9.0, -3.0, 9.0), (4.0, -3.0, -1.0)])
    labels = [1, 0, 1, 0]
    predictor = predictor_for(array, matrix, ThresholdModel(push=8.0))
    step = None
    for count in range(1, 5):
        step = predictor.predict(clicks[:count], labels[:count], previous=step)
    replay = predictor_for(array, matrix, ThresholdModel(push=8.0)).predict(clicks, labels)
    assert np.array_equal(replay.full_mask(array.shape), step.full_mask(array.shape))
    assert np.array_equal(replay.logits, step.logits)


def test_prompt_rules():
    array, matrix = sphere_case()
    clicks, labels = [CENTER, (4.0, 3.0, 6.0)], [1, 0]
    for rule, expected in (("all", [[1], [1, 0]]), ("newest", [[1], [0]])):
        model = ThresholdModel(dataclasses.replace(PROFILE, prompt_rule=rule))
        predictor_for(array, matrix, model).predict(clicks, labels)
        first = model.prompts[0]
        carried = next(prompt for prompt in model.prompts if prompt["mask"] is not None)
        assert first["mask"] is None
        assert [first["labels"][0].tolist(), carried["labels"][0].tolist()] == expected


def test_prompt_coordinates_are_crop_indices():
    array, matrix = sphere_case("sagittal", radius=4.0)
    model = ThresholdModel(dataclasses.replace(PROFILE, spacing_range_mm=(1.0, 1.0)))
    voxel = transform_points(matrix, voxel_index(world_to_ijk(matrix, CENTER)))
    prediction = predictor_for(array, matrix, model).predict([voxel, voxel + (2.0, 0.0, -1.5)], [1, 0])
    assert np.allclose(model.prompts[0]["coords"][0], [[32, 32, 32]])
    clicked, beside = model.prompts[-1]["coords"][0]
    assert np.allclose(beside - clicked, (2.0, 0.0, -1.5), atol=1e-4)
    assert np.allclose(prediction.crop.index_of(voxel), clicked, atol=1e-4)


def test_a_leading_negative_click_waits_for_the_first_positive_one():
    array, matrix = sphere_case()
    prediction = predictor_for(array, matrix).predict([(4.0, 9.0, 6.0), CENTER], [0, 1])
    assert prediction.voxels > 500
    with pytest.raises(InputError, match="first click must be positive"):
        predictor_for(array, matrix).predict([CENTER], [0])


# -- zoom, caching, extension -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("radius", "low", "high"), [(2.0, 0.29, 0.45), (4.0, 0.4, 0.6), (8.0, 0.8, 1.2), (13.0, 1.3, 1.8)]
)
def test_the_spacing_follows_the_size(radius, low, high):
    shape = (100, 100, 100)
    matrix = grid(shape, (0.8, 0.8, 0.8))
    array = sphere_volume(world_of(shape, matrix), CENTER, radius)
    model = ThresholdModel()
    prediction = predictor_for(array, matrix, model).predict([CENTER])
    assert low <= prediction.crop.spacing_mm <= high
    assert model.encoded <= 3
    truth = np.linalg.norm(world_of(shape, matrix) - CENTER, axis=-1) <= radius
    assert dice(prediction.full_mask(shape).astype(bool), truth) > 0.9


def test_embeddings_are_reused_between_clicks_and_objects():
    array, matrix = sphere_case()
    model = ThresholdModel()
    predictor = predictor_for(array, matrix, model)
    first = predictor.predict([CENTER])
    encoded = model.encoded
    predictor.predict([CENTER, (4.0, 4.0, 6.0)], [1, 1], previous=first)
    predictor.predict([CENTER])
    assert model.encoded == encoded
    predictor.set_image(array, matrix)  # the array may have changed
    predictor.predict([CENTER])
    assert model.encoded == 2 * encoded


def test_an_identity_brings_embeddings_back_and_another_model_never_shares_them():
    array, matrix = sphere_case()
    cache = EmbeddingCache()
    model, other = ThresholdModel(), ThresholdModel()
    predictor = SamPredictor3D(model, cache=cache)
    for identity in ("a", "b", "a"):
        predictor.set_image(array, matrix, identity=identity)
        predictor.predict([CENTER])
    once = model.encoded // 2
    assert model.encoded == 2 * once
    predictor.set_model(other)
    predictor.predict([CENTER])
    assert other.encoded == once and model.encoded == 2 * once


@pytest.mark.parametrize("radius", [2.0, 4.0, 6.0, 8.0, 12.0])
@pytest.mark.parametrize("place", [0.0, 0.7])
def test_a_first_click_looks_at_most_twice(radius, place):
    array, matrix = sphere_case(radius=radius)
    model = ThresholdModel()
    prediction = predictor_for(array, matrix, model).predict([np.array(CENTER) + (place * radius, 0.0, 0.0)])
    assert model.encoded == 2 if place else model.encoded <= 2
    assert np.linalg.norm(prediction.crop.center_ras - CENTER) < 1.5  # the last one from the object's middle
    assert len(model.prompts) <= model.encoded + 1


@pytest.mark.parametrize(("offset", "label"), [((6.5, 0.0, 0.0), 0), ((0.0, 9.5, 0.0), 1), ((0.0, 0.0, -9.0), 1)])
def test_a_later_click_that_changes_what_it_should_costs_one_decoding(offset, label):
    array, matrix = sphere_case()
    model = ThresholdModel(push=25.0)
    predictor = predictor_for(array, matrix, model)
    first = predictor.predict([CENTER])
    encoded, decoded = model.encoded, len(model.prompts)
    place = np.array(CENTER) + offset
    second = predictor.predict([CENTER, place], [1, label], previous=first)
    assert (model.encoded, len(model.prompts)) == (encoded, decoded + 1)
    assert second.voxels != first.voxels and (second.voxels > first.voxels) == bool(label)


def test_a_click_that_is_ignored_at_the_border_costs_no_encoding():
    array, matrix = sphere_case()
    model = ThresholdModel()  # no click moves it
    predictor = predictor_for(array, matrix, model)
    first = predictor.predict([CENTER])
    encoded, decoded = model.encoded, len(model.prompts)
    predictor.predict([CENTER, np.array(CENTER) + (0.0, 7.0, 0.0)], [1, 0], previous=first)
    assert model.encoded == encoded and len(model.prompts) <= decoded + 2


def test_while_a_click_moves_each_draft_costs_one_decoding_and_spoils_nothing():
    array, matrix = sphere_case()
    model = ThresholdModel(push=15.0)
    predictor = predictor_for(array, matrix, model)
    clicks, labels = np.array([CENTER, (4.0, 3.5, 6.0)]), [1, 0]
    first = predictor.predict(clicks[:1])
    rest = predictor.predict(clicks, labels, previous=first)
    for number, previous in ((0, None), (1, first)):
        for step in range(1, 4):
            moving = clicks.copy()
            moving[number] += (0.8 * step, 0.0, 0.4 * step)
            encoded, decoded = model.encoded, len(model.prompts)
            draft = predictor.predict(moving, labels, previous=previous, within=rest.crop)
            assert (model.encoded, len(model.prompts)) == (encoded, decoded + 1)
            assert np.array_equal(draft.crop.crop_to_ras, rest.crop.crop_to_ras)
            prompt = model.prompts[-1]
            assert np.allclose(prompt["coords"][0], rest.crop.index_of(moving), atol=1e-4)
            assert (prompt["mask"] is None) == (previous is None)
            settled = predictor.predict(moving, labels, previous=previous)
            mask, final = draft.full_mask(array.shape) > 0, settled.full_mask(array.shape) > 0
            assert dice(mask, final) > 0.85
    again = predictor.predict(clicks, labels, previous=first)
    assert np.array_equal(again.mask, rest.mask) and again.offset_kji == rest.offset_kji


def test_a_click_that_is_dragged_out_of_the_crop_takes_one_with_it():
    array, matrix = sphere_case(radius=3.0)
    model = ThresholdModel()
    predictor = predictor_for(array, matrix, model)
    first = predictor.predict([CENTER])
    far = np.array(CENTER) + (0.0, 25.0, 0.0)
    assert not first.crop.contains(far)
    encoded, decoded = model.encoded, len(model.prompts)
    draft = predictor.predict([far], within=first.crop)
    assert (model.encoded, len(model.prompts)) == (encoded + 1, decoded + 1)
    assert draft.crop.contains(far) and draft.crop.spacing_mm == pytest.approx(first.crop.spacing_mm)


def two_spheres():
    shape = (60, 80, 240)
    matrix = grid(shape, (1.0, 1.0, 1.25))
    world = world_of(shape, matrix)
    # a bar of 120 mm from left to right: far longer than the finest crop
    distance = np.linalg.norm(world[..., 1:] - np.array(CENTER[1:]), axis=-1)
    share = np.clip(5.5 - distance, 0, 1) * (np.abs(world[..., 0] - CENTER[0]) < 60)
    return np.round(-900 + 1000 * share).astype(np.int16), matrix


def test_a_click_outside_the_crop_extends_the_mask_without_a_seam():
    array, matrix = two_spheres()
    profile = dataclasses.replace(PROFILE, spacing_range_mm=(0.5, 0.5), spacing_mm=0.5)
    model = ThresholdModel(profile)
    predictor = predictor_for(array, matrix, model, zoom=ZoomPolicy(profile, widest_mm=0.0))
    clicks = [CENTER, (26.0, -3.0, 6.0), (48.0, -3.0, 6.0)]
    prediction = None
    for count in (1, 2, 3):
        prediction = predictor.predict(clicks[:count], previous=prediction)
        assert len(prediction.parts) == count and model.encoded == count
    areas = np.count_nonzero(prediction.mask, axis=(0, 1))
    left = prediction.offset_kji[2]
    at = lambda r: areas[voxel_index(world_to_ijk(matrix, (r, -3, 6)))[0] - left]  # noqa: E731
    middle = [at(r) for r in range(-5, 57)]
    assert max(middle) - min(middle) <= 0.1 * max(middle)
    assert np.allclose(prediction.crop.crop_to_ras[:3, :3], np.eye(3) * 0.5)


def test_a_click_just_within_the_face_of_the_last_crop_is_not_cut_off_there():
    array, matrix = two_spheres()
    profile = dataclasses.replace(PROFILE, spacing_range_mm=(0.5, 0.5), spacing_mm=0.5)
    model = ThresholdModel(profile)
    predictor = predictor_for(array, matrix, model, zoom=ZoomPolicy(profile, widest_mm=0.0))
    clicks = [CENTER, np.array(CENTER) + (15.0, 0.0, 0.0)]  # the crop ends at 16 mm, the bar does not
    prediction = predictor.predict(clicks, previous=predictor.predict(clicks[:1]))
    assert len(prediction.parts) == 2
    far = voxel_index(world_to_ijk(matrix, np.array(CENTER) + (25.0, 0.0, 0.0)))[::-1]
    assert prediction.full_mask(array.shape)[tuple(far)] == 1


# -- answers that are not believed ------------------------------------------------------------------------------------


class Myopic(ThresholdModel):
    """Sees only the surroundings of clicks that lie together, and clings to any mask that it is given."""

    def decode(self, embedding, coords, labels, boxes, mask, multimask_output=False):
        logits, _ = super().decode(embedding, coords, labels, boxes, None)
        apart = np.ptp(coords[0].numpy(), axis=0).max() > 6.0
        iou = torch.tensor([[0.7 if apart else 0.5]])
        if mask is not None and mask.max() > 0:
            return mask, iou
        if apart:
            return logits, iou
        axes = torch.arange(32.0)
        grid = torch.stack(torch.meshgrid(axes, axes, axes, indexing="ij"), -1)
        away = ((grid - (coords[0, 0] - 0.5) / 2.0) ** 2).sum(-1).sqrt()
        return torch.minimum(logits, 2.0 - away), iou


def test_a_bad_start_is_looked_at_again_from_all_clicks():
    array, matrix = sphere_case(radius=12.0)
    truth = np.linalg.norm(world_of(array.shape, matrix) - CENTER, axis=-1) <= 12.0
    predictor = predictor_for(array, matrix, Myopic())
    border = np.array(CENTER) + (10.0, 0.0, 0.0)
    first = predictor.predict([border])
    assert dice(first.full_mask(array.shape).astype(bool), truth) < 0.3
    second = predictor.predict([border, CENTER], previous=first)
    assert dice(second.full_mask(array.shape).astype(bool), truth) > 0.95


def test_a_positive_click_outside_the_crop_zooms_out_to_all_of_them():
    shape = (60, 90, 120)
    matrix = grid(shape, (1.0, 1.0, 1.25))
    world, places = world_of(shape, matrix), [(-24.0, 0.0, 0.0), (24.0, 0.0, 0.0)]
    array = np.maximum(*(sphere_volume(world, place, 4.0) for place in places))
    truth = np.min([np.linalg.norm(world - np.array(place), axis=-1) for place in places], axis=0) <= 4.0
    predictor = predictor_for(array, matrix)
    first = predictor.predict(places[:1])
    assert not first.crop.contains(places[1])
    both = predictor.predict(places, previous=first)
    assert len(both.parts) == 1 and all(both.crop.contains(place, margin=6) for place in places)
    assert both.crop.spacing_mm > first.crop.spacing_mm
    assert dice(both.full_mask(shape).astype(bool), truth) > 0.85


def test_a_negative_click_outside_the_crop_costs_nothing():
    array, matrix = sphere_case(radius=3.0)
    model = ThresholdModel()
    predictor = predictor_for(array, matrix, model)
    first = predictor.predict([CENTER])
    asked = len(model.prompts)
    far = np.array(CENTER) + (0.0, 30.0, 0.0)
    second = predictor.predict([CENTER, far], [1, 0], previous=first)
    assert len(model.prompts) == asked and second.score == first.score
    assert np.array_equal(second.mask, first.mask) and second.offset_kji == first.offset_kji


class Nervous(ThresholdModel):
    """Lets go of a mask as soon as there is a second click."""

    def decode(self, embedding, coords, labels, boxes, mask, multimask_output=False):
        logits, iou = super().decode(embedding, coords, labels, boxes, mask)
        return (logits, iou) if coords.shape[1] == 1 else (logits - 30.0, torch.tensor([[0.95]]))


@pytest.mark.parametrize(("offset", "label"), [((0.0, 11.0, 0.0), 0), ((-13.0, 0.0, 0.0), 0), ((2.0, 3.0, 1.0), 1)])
def test_a_click_that_agrees_with_the_mask_leaves_it(offset, label):
    array, matrix = sphere_case()
    predictor = predictor_for(array, matrix, Nervous())
    first = predictor.predict([CENTER])
    second = predictor.predict([CENTER, np.array(CENTER) + offset], [1, label], previous=first)
    assert np.array_equal(second.mask, first.mask) and second.offset_kji == first.offset_kji
    assert second.score == first.score


class Swelling(ThresholdModel):
    """Answers every correction with an object that is larger on all sides."""

    def __init__(self, by: float) -> None:
        super().__init__(push=6.0)
        self.by = by

    def decode(self, embedding, coords, labels, boxes, mask, multimask_output=False):
        logits, scores = super().decode(embedding, coords, labels, boxes, mask, multimask_output)
        self.answered = logits + (0.0 if mask is None else self.by)
        return self.answered, scores


def test_a_correction_keeps_what_is_far_from_its_click_steady():
    array, matrix = sphere_case("axial LPS")
    model = Swelling(3.0)
    predictor = predictor_for(array, matrix, model)
    first = predictor.predict([CENTER])
    click = np.array([CENTER[0] + 9.0, *CENTER[1:]])
    second = predictor.predict([CENTER, click], [1, 1], previous=first)
    assert second.crop.key == first.crop.key
    answer = model.answered[0, 0].numpy()
    opposite = tuple(np.round(world_to_ijk(second.parts[0].cells_to_ras, CENTER + (CENTER - click))).astype(int))
    near = tuple(np.round(world_to_ijk(second.parts[0].cells_to_ras, click)).astype(int))
    assert second.logits[opposite] == pytest.approx(0.7 * answer[opposite] + 0.3 * first.logits[opposite], abs=1e-3)
    assert second.logits[near] - first.logits[near] > 0.95 * (answer[near] - first.logits[near]) > 0.0
    assert second.full_mask(array.shape)[tuple(voxel_index(world_to_ijk(matrix, click))[::-1])] == 1


def test_negative_clicks_alone_work_on_a_mask_whatever_the_network_says():
    array, matrix = sphere_case()
    predictor = predictor_for(array, matrix)
    started = predictor.predict(mask=predictor.predict([CENTER]))
    for model in (ThresholdModel(), ThresholdModel(push=60.0), ThresholdModel(gain=0.0)):
        predictor.set_model(model)
        place = np.array(CENTER) + (0.0, 6.0, 0.0)
        after = predictor.predict([place], [0], previous=started)
        assert after.full_mask(array.shape)[tuple(voxel_index(world_to_ijk(matrix, place))[::-1])] == 0


@pytest.mark.parametrize("offset", [(0.0, 7.0, 0.0), (-6.0, 3.0, 0.0)])
def test_a_negative_click_on_a_good_mask_takes_away_its_surroundings_and_never_all(offset):
    array, matrix = sphere_case()
    predictor = predictor_for(array, matrix, Nervous())
    first = predictor.predict([CENTER])
    place = np.array(CENTER) + offset
    second = predictor.predict([CENTER, place], [1, 0], previous=first)
    before, after = first.full_mask(array.shape), second.full_mask(array.shape)
    voxel = voxel_index(world_to_ijk(matrix, place))[::-1]
    assert before[tuple(voxel)] == 1 and after[tuple(voxel)] == 0
    assert after.sum() > 0.6 * before.sum() and not (after > before).any()


class Blinded(ThresholdModel):
    """Sees nothing where all of a crop is bright, and says so."""

    def decode(self, embedding, coords, labels, boxes, mask, multimask_output=False):
        logits, _ = super().decode(embedding, coords, labels, boxes, mask)
        if embedding.mean() > 0.75:
            return torch.full_like(logits, -4.0), torch.tensor([[0.1]])
        return logits, torch.tensor([[0.8]])


@pytest.mark.parametrize(("radius", "place"), [(28.0, (0.0, 0.0, 0.0)), (45.0, (5.0, -8.0, 10.0))])
def test_a_click_deep_inside_a_mass_is_looked_at_from_far(radius, place):
    shape = (110, 110, 110)
    matrix = grid(shape, (1.3, 1.3, 1.3))
    world = world_of(shape, matrix)
    array, truth = sphere_volume(world, CENTER, radius), np.linalg.norm(world - CENTER, axis=-1) <= radius
    predictor = predictor_for(array, matrix, Blinded())
    prediction = predictor.predict([np.array(CENTER) + place])
    assert dice(prediction.full_mask(shape).astype(bool), truth) > 0.95
    assert prediction.score == pytest.approx(0.8)
    assert any("larger than" in told for told in prediction.warnings)


def test_the_answer_hardly_depends_on_where_the_first_click_is():
    array, matrix = sphere_case(radius=5.0)
    predictor = predictor_for(array, matrix, ThresholdModel(push=15.0))
    volumes, spacings = [], set()
    for offset in ((0, 0, 0), (2.2, 0, 0), (0, -2.8, 0.5), (-1.7, 1.7, -1.7)):
        prediction = predictor.predict([np.array(CENTER) + offset])
        volumes.append(prediction.voxels)
        spacings.add(round(prediction.crop.spacing_mm, 6))
    assert np.std(volumes) < 0.02 * np.mean(volumes)
    assert len(spacings) == 1


def test_the_range_of_volumes_is_that_of_clicks_elsewhere():
    array, matrix = sphere_case(radius=9.0)
    steady = predictor_for(array, matrix, ThresholdModel())
    model = ThresholdModel(push=30.0)
    pushed = predictor_for(array, matrix, model)
    prediction = steady.predict([CENTER])
    assert prediction.volume_range is None
    assert steady.with_volume_range(prediction).volume_range == pytest.approx((1.0, 1.0))
    prediction = pushed.predict([CENTER])
    asked, encoded = len(model.prompts), model.encoded
    low, high = pushed.with_volume_range(prediction).volume_range
    assert low <= 1.0 <= high and high - low > 0.02
    assert len(model.prompts) == asked + 1 and model.encoded == encoded
    record = measure_nodule(pushed.with_volume_range(prediction), array, matrix)
    assert record.volume_low_mm3 == pytest.approx(low * record.volume_mm3)
    assert record.volume_high_mm3 == pytest.approx(high * record.volume_mm3)
    wide = dataclasses.replace(prediction, volume_range=(0.8, 1.15))
    assert "35 %" in measure_nodule(wide, array, matrix).note
    assert np.isnan(measure_nodule(prediction, array, matrix).volume_low_mm3)


def test_a_box_a_mask_and_multimask():
    array, matrix = sphere_case()
    truth = np.linalg.norm(world_of(array.shape, matrix) - CENTER, axis=-1) <= 8.0
    model = ThresholdModel()
    predictor = predictor_for(array, matrix, model)
    low, high = np.array(CENTER) - 8.0, np.array(CENTER) + 8.0
    box = [high[0], low[1], high[2], low[0], high[1], low[2]]
    boxed = predictor.predict(box_ras=box)
    assert dice(boxed.full_mask(array.shape).astype(bool), truth) > 0.95
    given = model.prompts[-1]["boxes"][0]
    assert (given[:3] < given[3:]).all()
    assert np.allclose(given, boxed.crop.index_of([low, high]).ravel(), atol=1e-4)
    started = predictor.predict(mask=truth.astype(np.uint8))
    assert dice(started.full_mask(array.shape).astype(bool), truth) > 0.95
    again = predictor.predict([CENTER], [1], mask=started)
    assert dice(again.full_mask(array.shape).astype(bool), truth) > 0.95
    several = predictor.predict([CENTER], multimask_output=True)
    assert [p.score for p in (several, *several.alternatives)] == pytest.approx([0.9, 0.8, 0.4])
    assert several.voxels > several.alternatives[0].voxels > several.alternatives[1].voxels


def test_prompts_that_the_checkpoint_does_not_know_are_refused():
    array, matrix = sphere_case()
    model = ThresholdModel(dataclasses.replace(PROFILE, boxes=False, multimask=False, iou_head=False))
    predictor = predictor_for(array, matrix, model)
    with pytest.raises(InputError, match="boxes"):
        predictor.predict(box_ras=[0, 0, 0, 5, 5, 5])
    with pytest.raises(InputError, match="multimask"):
        predictor.predict([CENTER], multimask_output=True)
    assert predictor.predict([CENTER]).score is None


def test_nothing_found_is_an_empty_block_inside_the_volume():
    array, matrix = sphere_case()
    predictor = predictor_for(np.full_like(array, -900), matrix)
    prediction = predictor.predict(box_ras=[0, 0, 0, 6, 6, 6])
    assert not prediction.mask.any() and prediction.mask.shape == (1, 1, 1)
    assert prediction.full_mask(array.shape).sum() == 0


def test_a_prediction_of_a_network_with_other_crops_can_be_carried_on():
    array, matrix = sphere_case()
    predictor = predictor_for(array, matrix)
    first = predictor.predict([CENTER])
    predictor.set_model(ThresholdModel(dataclasses.replace(PROFILE, crop_size=(96, 96, 96), spacing_mm=0.8)))
    second = predictor.predict([CENTER, (4.0, 3.0, 6.0)], [1, 1], previous=first)
    assert second.crop.shape == (96, 96, 96)
    assert dice(second.full_mask(array.shape).astype(bool), first.full_mask(array.shape).astype(bool)) > 0.93


# -- trouble ----------------------------------------------------------------------------------------------------------


class ExhaustedModel(ThresholdModel):
    """A model on a device whose memory is full."""

    def __init__(self):
        super().__init__()
        self.device = torch.device("meta")

    def to_device(self, device):
        self.device = torch.device(device)
        return self

    def encode(self, crop):
        if self.device.type != "cpu":
            raise torch.OutOfMemoryError("full")
        return super().encode(crop)


def test_out_of_graphics_memory_goes_on_on_the_cpu_and_says_so():
    array, matrix = sphere_case()
    messages = []
    predictor = predictor_for(array, matrix, ExhaustedModel(), progress=messages.append)
    with pytest.warns(RuntimeWarning, match="CPU"):
        prediction = predictor.predict([CENTER])
    assert prediction.voxels > 500 and predictor.model.device.type == "cpu"
    assert any("memory" in message for message in messages)


def test_the_callback_cancels():
    array, matrix = sphere_case()
    with pytest.raises(PredictionCancelled):
        predictor_for(array, matrix, progress=lambda message: False).predict([CENTER])


def test_prompts_need_an_image_and_each_other():
    array, matrix = sphere_case()
    predictor = SamPredictor3D(ThresholdModel())
    with pytest.raises(InputError, match="set_image"):
        predictor.predict([CENTER])
    predictor.set_image(array, matrix)
    prediction = predictor.predict([CENTER])
    with pytest.raises(InputError, match="positive"):
        predictor.predict()
    with pytest.raises(InputError, match="not both"):
        predictor.predict([CENTER], previous=prediction, mask=prediction)
    predictor.reset_image()
    with pytest.raises(InputError, match="no image is set"):
        predictor.predict([CENTER])
