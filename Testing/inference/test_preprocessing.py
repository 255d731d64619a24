from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from SAMMed3DLib.inference.geometry import transform_points, voxel_index, world_to_ijk
from SAMMed3DLib.inference.preprocessing import Crop, crop_at, intensity_statistics, prepare_crop, sample_volume
from SAMMed3DLib.model.profile import PROFILES, PreprocessingProfile

from .volumes import ORIENTATIONS, grid, world_of

SMALL = dataclasses.replace(PROFILES["nodule"], crop_size=(24, 20, 28))


def reference_samples(array, matrix, crop, cval):
    """The definition of sample_volume through scipy, in float64."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in crop.shape), indexing="ij"), axis=-1)
    ijk = world_to_ijk(matrix, transform_points(crop.crop_to_ras, index))
    inside = np.all((ijk >= -0.5 - 1e-6) & (ijk <= np.array(array.shape[::-1]) - 0.5 + 1e-6), axis=-1)
    values = map_coordinates(array.astype(np.float64), np.moveaxis(ijk[..., ::-1], -1, 0), order=1, mode="nearest")
    return values if cval is None else np.where(inside, values, cval)


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("spacing", [0.4, 1.0, 3.7])
@pytest.mark.parametrize("cval", [-1024.0, None])
def test_samples_equal_trilinear_interpolation(name, spacing, cval):
    shape, steps, directions = ORIENTATIONS[name]
    shape = tuple(n // 3 for n in shape)
    matrix = grid(shape, steps, directions, (10.0, -20.0, 30.0))
    array = np.random.default_rng(1).integers(-1000, 1000, shape).astype(np.int16)
    crop = crop_at((11.3, -18.9, 26.2), spacing, SMALL, matrix)
    sampled = sample_volume(array, matrix, crop, cval)
    assert sampled.dtype == np.float32
    assert np.abs(sampled - reference_samples(array, matrix, crop, cval)).max() < 0.05


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64, ">i2", np.int32])
def test_any_type_and_memory_order(dtype):
    shape, steps, directions = ORIENTATIONS["axial LPS"]
    matrix = grid(shape, steps, directions)
    array = np.random.default_rng(2).integers(0, 200, shape).astype(dtype)
    crop = crop_at((3.0, 2.0, 1.0), 0.8, SMALL, matrix)
    expected = reference_samples(array, matrix, crop, 0.0)
    views = [
        array,
        np.asfortranarray(array),
        array[::-1].copy()[::-1],
        np.ascontiguousarray(array.transpose(1, 0, 2)).transpose(1, 0, 2),
    ]
    for view in views:
        assert np.abs(sample_volume(view, matrix, crop, 0.0) - expected).max() < 1e-2


def test_a_voxel_reaches_half_an_index_and_no_further():
    array = np.full((1, 1, 1), 7.0, dtype=np.float32)
    crop = Crop(np.diag([0.25, 0.25, 0.25, 1.0]) + 0.0, (9, 1, 1))
    sampled = sample_volume(array, grid((1, 1, 1), (2.0, 2.0, 2.0)), crop, -1.0)
    assert sampled[:, 0, 0].tolist() == [7.0] * 5 + [-1.0] * 4


@pytest.mark.parametrize("name", ["axial LPS", "oblique"])
def test_a_crop_beside_the_volume_is_padding(name):
    shape, steps, directions = ORIENTATIONS[name]
    matrix = grid(shape, steps, directions)
    crop = crop_at((900.0, 0.0, 0.0), 1.0, SMALL, matrix)
    assert (sample_volume(np.ones(shape, np.int16), matrix, crop, -1024.0) == -1024.0).all()


@pytest.mark.parametrize("name", ["axial LPS", "oblique"])
def test_a_crop_beside_the_volume_goes_on_with_its_border(name):
    shape, steps, directions = ORIENTATIONS[name]
    matrix = grid(shape, steps, directions)
    array = np.random.default_rng(4).integers(-900, 100, shape).astype(np.int16)
    crop = crop_at(transform_points(matrix, (shape[2] + 60.0, 20.0, 30.0)), 1.0, SMALL, matrix)
    sampled = sample_volume(array, matrix, crop, None)
    assert np.abs(sampled - reference_samples(array, matrix, crop, None)).max() < 0.05
    last = array[..., -1]
    assert last.min() <= sampled.min() and sampled.max() <= last.max() and np.ptp(sampled) > 100


def test_the_profile_says_what_lies_outside():
    array, matrix = np.full((4, 4, 4), -850, np.int16), np.eye(4)
    for name, outside in (("nodule", 150.0 / 1400.0), ("lidc_fork", 0.0)):
        profile = dataclasses.replace(PROFILES[name], crop_size=(24, 24, 24))
        prepared = prepare_crop(array, matrix, crop_at((0.0, 0.0, 0.0), 1.0, profile, matrix), profile)
        assert prepared[0, 0, 0, 0] == pytest.approx(outside)


def test_files_from_before_the_padding_rule_take_that_of_their_profile():
    for name in ("nodule", "sam_med3d", "lidc_fork"):
        stored = PROFILES[name].to_dict()
        del stored["padding"]
        assert PreprocessingProfile.from_dict(stored) == PROFILES[name]
    assert PreprocessingProfile.from_dict({"name": "one of their own"}).outside_hu == 0.0
    assert PreprocessingProfile.from_dict(PROFILES["nodule"].to_dict() | {"padding": "constant"}).outside_hu == -1024.0
    with pytest.raises(ValueError, match="padding"):
        dataclasses.replace(PROFILES["nodule"], padding="mirror")


def test_click_lands_on_the_middle_index():
    matrix = grid((60, 80, 80), (1.5, 1.5, 1.5), np.diag([-1.0, -1.0, 1.0]), (7.0, 8.0, 9.0))
    array = np.zeros((60, 80, 80), np.int16)
    array[40, 30, 20] = 500
    click = transform_points(matrix, (20, 30, 40))
    crop = crop_at(click, 1.5, PROFILES["sam_med3d"], matrix)
    sampled = sample_volume(array, matrix, crop, 0.0)
    assert np.argwhere(sampled).tolist() == [[64, 64, 64]]
    assert sampled[64, 64, 64] == 500.0
    assert np.allclose(crop.index_of(click), 64.0)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_native_voxels_are_only_permuted_and_flipped(name):
    shape, steps, directions = ORIENTATIONS[name]
    matrix = grid(shape, steps, directions)
    array = np.random.default_rng(3).integers(-1000, 1000, shape).astype(np.int16)
    profile = dataclasses.replace(PROFILES["lidc_fork_native"], crop_size=(16, 16, 16))
    click = transform_points(matrix, (30.2, 35.9, 25.0))
    crop = crop_at(click, None, profile, matrix)
    sampled = sample_volume(array, matrix, crop, 0.0)
    assert sampled[8, 8, 8] == array[25, 36, 30]
    assert np.abs(sampled - reference_samples(array, matrix, crop, 0.0)).max() < 1e-3  # scipy rounds, we do not
    assert np.array_equal(sampled, np.round(sampled))
    # the tensor's axes run to the right, to the front and up
    directions_of_crop = crop.crop_to_ras[:3, :3] / np.linalg.norm(crop.crop_to_ras[:3, :3], axis=0)
    assert (np.diag(directions_of_crop) > 0.5).all()


def test_physical_axes_of_the_crop():
    """A bright ramp to the right, front and top has the same gradient in the crop, however it is stored."""
    for shape, steps, directions in ORIENTATIONS.values():
        matrix = grid(shape, steps, directions)
        array = (world_of(shape, matrix) @ np.array([1.0, 10.0, 100.0])).astype(np.float32)
        crop = crop_at((0.0, 0.0, 0.0), 0.5, dataclasses.replace(SMALL, crop_size=(16, 16, 16)), matrix)
        sampled = sample_volume(array, matrix, crop, 0.0)
        gradient = [float(np.diff(sampled, axis=axis).mean()) for axis in range(3)]
        assert np.allclose(gradient, [0.5, 5.0, 50.0], rtol=1e-3)


def test_public_normalization_is_the_zscore_of_positive_voxels():
    rng = np.random.default_rng(4)
    array = rng.normal(20.0, 300.0, (150, 150, 150)).astype(np.float32)
    matrix = grid(array.shape, (1.5, 1.5, 1.5))
    profile = PROFILES["sam_med3d"]
    crop = crop_at((0.0, 0.0, 0.0), 1.5, profile, matrix)
    raw = sample_volume(array, matrix, crop, 0.0)
    positive = raw[raw > 0].astype(np.float64)
    expected = (raw - positive.mean()) / positive.std(ddof=1)
    prepared = prepare_crop(array, matrix, crop, profile, (0.0, 0.0, 0.0))
    assert prepared.shape == (1, 128, 128, 128)
    assert np.abs(prepared[0] - expected).max() < 1e-4
    # zoomed in, the statistics stay those of the 192 mm cube at the click
    zoomed = crop_at((10.0, 0.0, 0.0), 0.5, profile, matrix)
    expected = (sample_volume(array, matrix, zoomed, 0.0) - positive.mean()) / positive.std(ddof=1)
    assert np.abs(prepare_crop(array, matrix, zoomed, profile, (0.0, 0.0, 0.0))[0] - expected).max() < 1e-4


@pytest.mark.parametrize("value", [0.0, -850.0, 40.0])
def test_constant_volumes_normalize_to_finite_numbers(value):
    array = np.full((20, 20, 20), value, dtype=np.float32)
    matrix = grid(array.shape, (1.0, 1.0, 1.0))
    assert intensity_statistics(array, matrix, (0.0, 0.0, 0.0), PROFILES["sam_med3d"]) == (pytest.approx(value), 1.0)
    crop = crop_at((0.0, 0.0, 0.0), 1.5, PROFILES["sam_med3d"], matrix)
    assert np.isfinite(prepare_crop(array, matrix, crop, PROFILES["sam_med3d"])).all()


def test_lung_without_a_positive_voxel_is_normalized_by_what_is_there():
    array = np.random.default_rng(5).normal(-850.0, 50.0, (60, 60, 60)).astype(np.int16)
    mean, deviation = intensity_statistics(array, grid(array.shape, (1.5, 1.5, 1.5)), (0, 0, 0), PROFILES["sam_med3d"])
    assert mean == pytest.approx(-850.0, abs=1.0)
    assert deviation == pytest.approx(50.0, abs=1.0)


def test_windows_and_spacing_channel():
    array = np.array([-2000, -1000, -160, -300, 240, 400, 3000], dtype=np.int16).reshape(1, 1, 7)
    profile = dataclasses.replace(PROFILES["nodule"], crop_size=(7, 1, 1))
    matrix = np.diag([0.5, 0.5, 0.5, 1.0])
    crop = Crop(matrix, (7, 1, 1))
    prepared = prepare_crop(array, matrix, crop, profile)
    assert prepared.shape == (3, 7, 1, 1)
    assert np.allclose(prepared[0, :, 0, 0], [0, 0, 0.6, 0.5, 1240 / 1400, 1, 1])
    assert np.allclose(prepared[1, :, 0, 0], [0, 0, 0, 0, 1, 1, 1])
    assert np.allclose(prepared[2], math.log2(0.5))


def test_only_the_block_under_the_crop_is_read():
    """A volume of 1024^3 voxels that exists only as one broadcast slice."""
    slab = np.arange(1024, dtype=np.int16).reshape(1, 1, 1024)
    array = np.broadcast_to(slab, (1024, 1024, 1024))
    matrix = grid(array.shape, (0.3, 0.3, 0.3))
    crop = crop_at((0.0, 0.0, 0.0), 0.6, SMALL, matrix)
    sampled = sample_volume(array, matrix, crop, 0.0)
    assert sampled[12, 0, 0] == 512.0
    assert sampled[13, 5, 5] == pytest.approx(514.0)


def test_equal_crops_are_equal_keys():
    first = crop_at((0.1, 0.2, 0.3), 0.7, SMALL, np.eye(4))
    again = crop_at((0.1, 0.2, 0.3), 0.7, SMALL, np.eye(4))
    assert first == again and hash(first) == hash(again)
    assert first != crop_at((0.1, 0.2, 0.4), 0.7, SMALL, np.eye(4))
    assert voxel_index(first.index_of((0.1, 0.2, 0.3))).tolist() == [12, 10, 14]
    assert first.contains((0.1, 0.2, 0.3), margin=9) and not first.contains((0.1, 0.2, 0.3), margin=11)
