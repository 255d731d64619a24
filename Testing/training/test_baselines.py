"""Region growing: nodules alone, on a vessel, at the wall, of ground glass; in oblique volumes; and its refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from SAMMed3DTrainingLib.evaluate.baselines import region_growing, threshold_morphology
from SAMMed3DTrainingLib.evaluate.evaluation import dice

SHAPE, SPACING = (48, 72, 72), np.array((1.25, 0.8, 0.8))
CENTER = np.array((24, 36, 36))


def distance_mm(center=CENTER):
    return np.linalg.norm((np.moveaxis(np.indices(SHAPE), 0, -1) - center) * SPACING, axis=-1)


def scanned(occupancy: np.ndarray, density=40.0, noise=15.0) -> np.ndarray:
    """A lung with a tissue in it, through a point spread and with noise."""
    sharp = -860.0 + (density + 860.0) * occupancy
    blurred = ndimage.gaussian_filter(sharp, 0.5 / SPACING)
    return (blurred + np.random.default_rng(0).normal(0, noise, SHAPE)).astype(np.int16)


def matrix() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.diag(SPACING[::-1] * (-1, -1, 1))
    affine[:3, 3] = (50.0, -20.0, -300.0)
    return affine


def segmented(ct: np.ndarray, affine: np.ndarray, voxel=CENTER, tool=region_growing) -> np.ndarray:
    region = tool(ct, affine, affine[:3, :3] @ voxel[::-1] + affine[:3, 3])
    assert region.mask.dtype == np.uint8
    full = np.zeros(ct.shape, dtype=bool)
    full[tuple(slice(a, a + n) for a, n in zip(region.offset_kji, region.mask.shape, strict=True))] = region.mask
    return full


@pytest.mark.parametrize("radius", [3.0, 6.0, 11.0])
def test_solid_nodule(radius):
    truth = distance_mm() <= radius
    assert dice(segmented(scanned(truth), matrix()), truth) > 0.88


def test_ground_glass_gets_its_own_threshold():
    truth = distance_mm() <= 8
    assert dice(segmented(scanned(truth, density=-600.0), matrix()), truth) > 0.88


def test_vessel_is_cut_off():
    truth = distance_mm() <= 6
    j, i = np.indices(SHAPE[1:])
    vessel = np.broadcast_to(np.hypot((j - 36) * 0.8, (i - 36) * 0.8) <= 1.6, SHAPE)
    assert dice(segmented(scanned(truth | vessel), matrix()), truth) > 0.85


def test_wall_is_cut_off():
    truth = distance_mm() <= 6
    wall = np.zeros(SHAPE, dtype=bool)
    wall[:, :, 42:] = True  # 1 mm of the nodule is in it
    assert dice(segmented(scanned(truth | wall), matrix()), truth) > 0.75


def test_wall_without_a_nodule_does_not_fill_the_search():
    wall = np.zeros(SHAPE, dtype=bool)
    wall[:, :, 34:] = True
    assert segmented(scanned(wall), matrix()).sum() < 0.9 * wall.sum()


def test_axes_may_be_flipped():
    truth = distance_mm(np.array((24, 36, 30))) <= 5
    ct, affine = scanned(truth), matrix()
    flipped = affine.copy()
    flipped[:3, 3] += affine[:3, 0] * (SHAPE[2] - 1)
    flipped[:3, 0] *= -1
    voxel = np.array((24, 36, 30))
    there = segmented(ct[:, :, ::-1], flipped, np.array((24, 36, SHAPE[2] - 1 - 30)))
    assert np.array_equal(there[:, :, ::-1], segmented(ct, affine, voxel))


def test_air_gives_nothing():
    ct = np.full(SHAPE, -870, dtype=np.int16)
    region = region_growing(ct, matrix(), matrix()[:3, :3] @ CENTER[::-1] + matrix()[:3, 3])
    assert not region.mask.any() and region.offset_kji == tuple(CENTER)


def test_click_outside_is_refused():
    with pytest.raises(ValueError, match="outside"):
        region_growing(np.zeros(SHAPE, dtype=np.int16), matrix(), np.array((500.0, 0.0, 0.0)))


def thresholded(ct: np.ndarray) -> np.ndarray:
    return segmented(ct, matrix(), tool=threshold_morphology)


@pytest.mark.parametrize("radius", [3.0, 6.0, 11.0])
def test_threshold_finds_solid_nodules(radius):
    truth = distance_mm() <= radius
    assert dice(thresholded(scanned(truth)), truth) > 0.86


def test_threshold_cuts_thin_vessels_off():
    truth = distance_mm() <= 6
    j, i = np.indices(SHAPE[1:])
    vessel = np.broadcast_to(np.hypot((j - 36) * 0.8, (i - 36) * 0.8) <= 1.2, SHAPE)
    found = thresholded(scanned(truth | vessel))
    assert dice(found, truth) > 0.85 and not found[-1].any()


def test_threshold_cuts_the_wall_off():
    truth = distance_mm() <= 6
    wall = np.zeros(SHAPE, dtype=bool)
    wall[:, :, 42:] = True  # 1 mm of the nodule is in it
    assert dice(thresholded(scanned(truth | wall)), truth) > 0.75


def test_threshold_does_not_see_ground_glass():
    assert not thresholded(scanned(distance_mm() <= 8, density=-600.0)).any()


def test_threshold_refuses_clicks_outside():
    with pytest.raises(ValueError, match="outside"):
        threshold_morphology(np.zeros(SHAPE, dtype=np.int16), matrix(), np.array((500.0, 0.0, 0.0)))


def test_a_volume_of_fewer_voxels_than_a_seed_has_neighbors():
    block = np.full((1, 2, 2), -850, np.int16)
    block[0, 0, 0] = 50
    for tool in (region_growing, threshold_morphology):
        mask = tool(block, np.diag([5.0, 5.0, 5.0, 1.0]), np.zeros(3)).mask
        assert mask.dtype == np.uint8 and all(n <= most for n, most in zip(mask.shape, block.shape, strict=True))
