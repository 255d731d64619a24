"""Surface Dice against known surfaces, clicks needed, volume figures and the interval by patient."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from SAMMed3DTrainingLib.evaluate.metrics import (
    _surface_elements,
    area_under_curve,
    bootstrap_interval,
    clicks_needed,
    clicks_to,
    relative_error,
    surface_dice,
    variation,
)

SPACING = (2.0, 0.5, 0.5)


def cube(low: tuple[int, int, int], high: tuple[int, int, int], shape=(20, 40, 40)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def ball(radius: float, center=(12.0, 12.0, 12.0), spacing=(1.0, 1.0, 1.0), n=25) -> np.ndarray:
    grid = np.moveaxis(np.indices((n, n, n)), 0, -1)
    return np.linalg.norm((grid - center) * spacing, axis=-1) <= radius


def test_equal_masks_and_empty_ones():
    mask = cube((5, 10, 10), (12, 30, 30))
    assert surface_dice(mask, mask, SPACING) == (1.0, 1.0, 1.0)
    empty = np.zeros_like(mask)
    assert surface_dice(empty, empty, SPACING, (1.0,)) == (1.0,)
    assert surface_dice(mask, empty, SPACING, (1.0,)) == surface_dice(empty, mask, SPACING, (1.0,)) == (0.0,)


def test_tolerances_are_mm_along_each_axis():
    truth = cube((5, 10, 10), (12, 30, 30))
    in_plane = np.roll(truth, 2, axis=2)  # 1.0 mm
    half, one = surface_dice(truth, in_plane, SPACING, (0.5, 1.0))
    assert one == 1.0 and 0.5 < half < 1.0
    through = np.roll(truth, 1, axis=0)  # 2.0 mm
    one, two = surface_dice(truth, through, SPACING, (1.9, 2.0))
    assert two == 1.0 and one < 1.0


def test_what_moved_out_of_reach_is_missed_by_its_area():
    """A box moved across its large faces: they and the ends of its walls no longer coincide."""
    truth = cube((5, 5, 5), (15, 35, 35))
    moved = np.roll(truth, 4, axis=0)  # 8 of 20 mm
    (value,) = surface_dice(truth, moved, SPACING, (0.1,))
    face, side, height, kept = 15.0**2, 15.0, 20.0, 13.0  # a layer of corners reaches half a slice further
    assert value == pytest.approx(4 * side * kept / (2 * face + 4 * side * height), abs=0.03)


def test_slopes_have_the_area_of_the_plane():
    """A ball one half of which is larger: what the halves share is known from their areas."""
    truth = ball(16.0, (25.0, 25.0, 25.5), n=51)
    other = truth.copy()
    other[:, :, 26:] = ball(22.0, (25.0, 25.0, 25.5), n=51)[:, :, 26:]
    (value,) = surface_dice(truth, other, (1, 1, 1), (0.5,))
    small, large, ring = 2 * np.pi * 16**2, 2 * np.pi * 22**2, np.pi * (22**2 - 16**2)
    assert value == pytest.approx(2 * small / (3 * small + large + ring), abs=0.03)


def masks(seed: int, shape=(9, 14, 12)) -> np.ndarray:
    """Noise of some coarseness: every code of 2 x 2 x 2 voxels is there somewhere."""
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(0, 1.5)) > 0.05


def test_known_areas_of_the_marching_cubes():
    """A corner, an edge's end and a plane; a code and its complement have the same surface."""
    elements = _surface_elements()
    areas = [float(np.linalg.norm(vectors, axis=1).sum()) for vectors in elements]
    assert areas[0] == areas[255] == 0.0
    assert (
        areas[1] == pytest.approx(np.sqrt(3) / 8) and areas[0b00001111] == 1.0 and areas[3] == pytest.approx(0.5**0.5)
    )
    assert areas == pytest.approx(areas[::-1])
    # Two corners across a face are cut off one by one; three around a corner leave a hexagon or a pentagon.
    assert areas[0b00001001] == pytest.approx(2 * areas[1]) and areas[0b10010110] == pytest.approx(4 * areas[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # theirs
def test_as_the_package_surface_distance_computes_it():
    theirs = pytest.importorskip("surface_distance")
    for seed in range(12):
        truth, other = masks(seed), masks(100 + seed % 3)
        spacing = [(1.0, 1.0, 1.0), (2.5, 0.7, 0.6), (0.5, 0.75, 1.25)][seed % 3]
        distances = theirs.compute_surface_distances(truth, other, spacing)
        tolerances = (0.0, 0.5, 1.1, 2.0)
        wanted = [theirs.compute_surface_dice_at_tolerance(distances, each) for each in tolerances]
        assert surface_dice(truth, other, spacing, tolerances) == pytest.approx(wanted, abs=1e-9)


def test_the_frame_does_not_matter():
    truth, other = ball(6.0), ball(7.0, (13.0, 12.0, 12.0))
    inner = (slice(3, 22),) * 3
    assert surface_dice(truth, other, (1, 1, 1)) == pytest.approx(surface_dice(truth[inner], other[inner], (1, 1, 1)))


def test_one_voxel_and_touching_corners():
    one = cube((5, 5, 5), (6, 6, 6))
    assert surface_dice(one, np.roll(one, 1, axis=1), SPACING, (0.5,)) == (1.0,)
    assert surface_dice(one, np.roll(one, 6, axis=1), SPACING, (0.5,)) == (0.0,)
    corners = one | cube((6, 6, 6), (7, 7, 7))
    assert surface_dice(corners, corners, SPACING, (0.0,)) == pytest.approx((1.0,))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        surface_dice(np.ones((3, 3, 3)), np.ones((3, 3, 4)), (1, 1, 1))
    with pytest.raises(ValueError, match="3D"):
        surface_dice(np.ones((3, 3)), np.ones((3, 3)), (1, 1))


def test_the_area_needs_all_clicks():
    curve = (0.5, 0.7, 0.9, 0.8, 1.0, 1.0)
    assert area_under_curve(curve) == pytest.approx(0.6 + 0.8 + 0.85 + 0.9)
    assert area_under_curve(curve[:4]) is None


def test_failures_count_as_the_cap():
    assert clicks_to((0.5, 0.8, 0.7), 0.8) == 2 and clicks_to((0.5, 0.8), 0.81) is None
    assert clicks_to((0.5, 0.7), 0.4) == 1
    assert clicks_needed([1, 3, None, 2], 10) == (4.0, 0.25)
    assert clicks_needed([None, None], 5) == (5.0, 1.0)


def test_volume_figures():
    assert relative_error(80.0, 100.0) == pytest.approx(-0.2)
    assert variation([90.0, 110.0]) == pytest.approx(np.sqrt(200) / 100)
    assert variation([5.0, 5.0, 5.0]) == 0.0
    assert variation([5.0]) is None and variation([0.0, 0.0]) is None


def test_interval_is_by_patient():
    rng = np.random.default_rng(0)
    patient_means = rng.normal(0.8, 0.1, 30)
    values = np.repeat(patient_means, 20) + rng.normal(0, 0.001, 600)
    patients = np.repeat(np.arange(30), 20).tolist()
    low, high = bootstrap_interval(values, patients)
    naive_low, naive_high = bootstrap_interval(values, list(range(600)))
    assert low < values.mean() < high
    expected = 1.96 * patient_means.std(ddof=1) / np.sqrt(30)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.15)
    assert (naive_high - naive_low) < 0.4 * (high - low)
    assert bootstrap_interval(values, patients) == (low, high)


def test_one_patient_gives_no_interval():
    assert bootstrap_interval([0.5, 0.9], ["a", "a"]) is None
