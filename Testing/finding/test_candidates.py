from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from inference.volumes import ORIENTATIONS, grid, world_of
from SAMMed3DLib.finding.blob_field import BlobField
from SAMMed3DLib.finding.blob_pyramid import COARSE, FINE, MEDIAN, find_peaks
from SAMMed3DLib.finding.blob_ranking import MEASURES, measures_of, nodule_odds
from SAMMed3DLib.finding.candidates import dents_of, find_candidates
from SAMMed3DLib.finding.lungs import LungMask, find_lungs
from SAMMed3DLib.inference.errors import InputError, PredictionCancelled
from SAMMed3DLib.inference.geometry import voxel_spacing
from SAMMed3DLib.synthesis.anatomy import Tubes, paint_tubes

from .simple_chest import chest

LUNG = -860.0


def piece_of_lung(balls=(), shape=(60, 70, 70), spacing=(1.0, 1.0, 1.0), directions=None, noise=15.0):
    """Lung of one density with soft balls (center RAS, radius, HU) in it."""
    matrix = grid(shape, spacing, directions)
    world = world_of(shape, matrix)
    hu = np.full(shape, LUNG)
    for center, radius, value in balls:
        depth = radius - np.linalg.norm(world - np.array(center), axis=-1)
        hu += (value - hu) / (1 + np.exp(-4 * np.clip(depth, -8, 8)))
    return hu + np.random.default_rng(0).normal(0, noise, shape), matrix


def is_hit(candidate, center, radius):
    return np.linalg.norm(np.subtract(candidate.center_ras, center)) < radius


@pytest.mark.parametrize("radius", [2.0, 3.0, 5.0, 8.0, 12.0])
def test_a_solid_ball_comes_first_with_its_place_and_size(radius):
    center = (3.0, -4.0, 2.0)
    array, matrix = piece_of_lung([(center, radius, 20.0)])
    first = find_candidates(array, matrix, None)[0]
    assert is_hit(first, center, 0.35 * radius + 0.5)
    assert first.diameter_mm == pytest.approx(2 * radius, rel=0.35)
    assert first.kind == "solid"


@pytest.mark.parametrize(("radius", "value"), [(3.0, -550.0), (6.0, -650.0), (10.0, -700.0)])
def test_ground_glass_comes_first_and_is_subsolid(radius, value):
    center = (3.0, -4.0, 2.0)
    array, matrix = piece_of_lung([(center, radius, value)])
    first = find_candidates(array, matrix, None)[0]
    assert is_hit(first, center, 0.5 * radius)
    assert first.kind == "subsolid"


def test_a_part_solid_ball_is_one_candidate_near_the_top():
    center = (0.0, 0.0, 0.0)
    array, matrix = piece_of_lung([(center, 8.0, -600.0), (center, 3.0, 0.0)])
    found = find_candidates(array, matrix, None, limit=20)
    assert is_hit(found[0], center, 2.0)


def test_balls_stand_before_the_vessels_around_them():
    ball = (16.0, 4.0, 2.0)
    array, matrix = piece_of_lung([(ball, 3.0, 20.0)])
    rng = np.random.default_rng(2)
    starts = rng.uniform(5, 60, (25, 3))
    ends = starts + rng.normal(0, 1, (25, 3)) * 40
    hu = array.astype(np.float32)
    middle = np.linalg.solve(matrix[:3, :3], np.subtract(ball, matrix[:3, 3]))[::-1]
    along = (ends - starts) / np.linalg.norm(ends - starts, axis=1, keepdims=True)
    apart = np.linalg.norm(np.cross(middle - starts, along), axis=1) > 9.0
    tubes = Tubes(starts[apart], ends[apart], np.full(int(apart.sum()), 1.5))
    paint_tubes(hu, tubes, (1.0, 1.0, 1.0), 0.6, 40.0)
    assert apart.sum() > 15
    assert is_hit(find_candidates(hu, matrix, None)[0], ball, 1.5)


@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
def test_positions_are_right_in_every_orientation(name):
    shape, spacing, directions = ORIENTATIONS[name]
    center = (6.0, -9.0, 4.0)
    array, matrix = piece_of_lung([(center, 4.0, 0.0)], shape, spacing, directions)
    first = find_candidates(array, matrix, None)[0]
    assert is_hit(first, center, 1.0)


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 5.0), (0.8, 0.8, 2.5), (0.4, 0.4, 0.5)])
def test_slices_from_thin_to_thick(spacing):
    center = (1.0, -2.0, 1.5)
    shape = tuple(int(n) for n in np.round(50.0 / np.array(spacing[::-1])))
    array, matrix = piece_of_lung([(center, 6.0, 0.0)], shape, spacing)
    assert voxel_spacing(matrix)[2] == spacing[2]
    assert is_hit(find_candidates(array, matrix, None)[0], center, 3.0)


def chest_with(*balls):
    array, matrix = chest((100, 90, 120), (3.0, 3.0, 2.0), balls=balls, noise=10.0)
    return array, matrix, find_lungs(array, matrix)


def test_only_the_lungs_are_searched():
    inside, outside = (70.0, 0.0, 0.0), (0.0, 60.0, 0.0)
    array, matrix, lungs = chest_with((inside, 5.0, 20.0), (outside, 5.0, 600.0))
    found = find_candidates(array, matrix, lungs, limit=50)
    assert is_hit(found[0], inside, 3.0)
    assert all(lungs.share_at(candidate.center_ras) > 0.02 for candidate in found)


def test_a_nodule_at_the_pleura_comes_first():
    center = (70.0 + 45.0 - 5.0, 0.0, 0.0)
    array, matrix, lungs = chest_with((center, 6.0, 20.0))
    first = find_candidates(array, matrix, lungs)[0]
    assert is_hit(first, center, 6.0)


def test_lungs_that_were_not_found_search_everything():
    array, matrix = piece_of_lung([((0.0, 0.0, 0.0), 4.0, 0.0)])
    nothing = LungMask(np.zeros((2, 2, 2), bool), np.eye(4), False, "none")
    assert find_candidates(array, matrix, nothing) == find_candidates(array, matrix, None)


def test_an_mr_is_searched_in_its_own_range():
    array, matrix = piece_of_lung([((5.0, 5.0, 5.0), 5.0, 0.0)])
    found = find_candidates(np.clip(array + 900.0, 0, None) * 0.4, matrix, None)
    assert is_hit(found[0], (5.0, 5.0, 5.0), 2.0)


def test_strongest_first_and_no_more_than_the_limit():
    array, matrix = piece_of_lung(noise=60.0)
    found = find_candidates(array, matrix, None, limit=30)
    assert len(found) == 30
    responses = [candidate.response for candidate in found]
    assert responses == sorted(responses, reverse=True)
    assert find_candidates(array, matrix, None, limit=10) == found[:10]
    assert find_candidates(array, matrix, None, limit=0) == []


def test_sizes_are_bounded():
    array, matrix = piece_of_lung([((-15.0, 0.0, 0.0), 3.0, 0.0), ((12.0, 0.0, 0.0), 11.0, 0.0)])
    small = find_candidates(array, matrix, None, max_diameter_mm=8.0)
    large = find_candidates(array, matrix, None, min_diameter_mm=15.0)
    assert max(candidate.diameter_mm for candidate in small) <= 8.0 * 1.3 + 1e-6
    assert min(candidate.diameter_mm for candidate in large) >= 15.0 / 1.3 - 1e-6
    assert is_hit(large[0], (12.0, 0.0, 0.0), 4.0)


def test_near_nodules_stay_apart():
    centers = [(-7.0, 0.0, 0.0), (7.0, 0.0, 0.0)]
    array, matrix = piece_of_lung([(center, 4.0, 0.0) for center in centers])
    found = find_candidates(array, matrix, None, limit=6)
    for center in centers:
        assert any(is_hit(candidate, center, 3.0) for candidate in found)


@pytest.mark.parametrize("value", [-1024, -850, 0, 3000])
def test_constant_volumes_hold_nothing(value):
    assert find_candidates(np.full((20, 30, 30), value, np.int16), np.eye(4), None) == []


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 40), (2, 3, 50)])
def test_small_volumes_do_not_fail(shape):
    array = np.random.default_rng(0).normal(-800, 150, shape)
    assert isinstance(find_candidates(array, np.diag([1.0, 1.0, 2.0, 1.0]), None), list)


def test_a_nodule_at_the_face_of_the_volume_is_found():
    array, matrix = piece_of_lung([((0.0, 0.0, 29.0), 5.0, 0.0)])
    assert is_hit(find_candidates(array, matrix, None)[0], (0.0, 0.0, 29.0), 5.0)


@pytest.mark.parametrize("thickness", [1.0, 2.5, 5.0])
def test_a_ball_in_a_single_slice_is_found(thickness):
    array, matrix = piece_of_lung([((4.0, -6.0, 0.0), 5.0, 20.0)], (1, 70, 70), (0.8, 0.8, thickness))
    first = find_candidates(array, matrix, None)[0]
    assert np.linalg.norm(np.subtract(first.center_ras[:2], (4.0, -6.0))) < 2.0


def test_repeatable_and_the_volume_is_not_changed():
    array, matrix, lungs = chest_with(((70.0, 0.0, 0.0), 5.0, 20.0))
    before = array.copy()
    array.setflags(write=False)
    first = find_candidates(array, matrix, lungs)
    assert first == find_candidates(np.asfortranarray(array), matrix, lungs)
    assert np.array_equal(array, before)


def test_progress_rises_to_the_total_and_cancels():
    array, matrix = piece_of_lung()
    seen = []
    find_candidates(array, matrix, None, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and len(seen) > 10
    assert seen[-1][0] == seen[-1][1]
    with pytest.raises(PredictionCancelled):
        find_candidates(array, matrix, None, progress=lambda done, total: done < 3)


def test_bad_matrices():
    with pytest.raises(InputError):
        find_candidates(np.zeros((5, 5, 5)), np.zeros((4, 4)), None)


def test_slabs_make_no_difference(monkeypatch):
    array, matrix = piece_of_lung([((3.0, 0.0, 5.0), 3.0, 0.0)], shape=(150, 50, 50), noise=40.0)
    whole = find_candidates(array, matrix, None, limit=20)
    monkeypatch.setattr("SAMMed3DLib.finding.blob_field._SLAB_CELLS", 1)
    assert len(BlobField(array, matrix, None, 1.0).slabs(4)) > 5
    pieces = find_candidates(array, matrix, None, limit=20)
    assert len(pieces) == len(whole)
    assert np.array([c.center_ras for c in pieces]) == pytest.approx(np.array([c.center_ras for c in whole]), abs=1e-3)


def test_the_bare_wall_of_the_lungs_does_not_stand_out():
    array, matrix, lungs = chest_with()
    field = BlobField(array, matrix, lungs, 1.0)
    block = field.read(field.slabs(8)[0])
    bright = np.abs(block - field.background) > 0.35
    assert bright.mean() < 0.01, "the wall is painted over"
    raw = BlobField(array, matrix, None, 1.0)
    assert (raw.read(raw.slabs(8)[0]) > field.background + 0.35).mean() > 0.1


def test_channels_and_curvatures_of_a_ball():
    array, matrix = piece_of_lung([((0.0, 0.0, 0.0), 5.0, 0.0)], noise=2.0)
    peaks = find_peaks(BlobField(array, matrix, None, 1.0), 3.0, 30.0)
    assert set(peaks.channel) == {FINE, COARSE, MEDIAN}
    best = int(np.argmax(peaks.blob))
    curvatures = peaks.curvatures[best]
    assert curvatures[0] >= curvatures[1] >= curvatures[2] > 0.8 * curvatures[0]
    assert peaks.blob[best] == pytest.approx(curvatures.sum(), rel=0.05)


def test_a_tube_is_not_round():
    hu = np.full((40, 40, 40), LUNG, np.float32)
    line = Tubes(np.array([[20.0, 20, -9]]), np.array([[20.0, 20, 50]]), np.array([2.0]))
    paint_tubes(hu, line, (1, 1, 1), 0.6, 40.0)
    ball, matrix = piece_of_lung([((0.0, 0.0, 0.0), 2.5, 40.0)], noise=1.0)
    hu += np.random.default_rng(1).normal(0, 1.0, hu.shape)

    def best(array, to_ras):
        peaks = find_peaks(BlobField(array, to_ras, None, 1.0), 3.0, 12.0)
        strongest = int(np.argmax(peaks.blob))
        return measures_of(peaks, None)[strongest], nodule_odds(peaks, None)[strongest]

    (tube, tube_odds), (round_one, round_odds) = best(hu, np.eye(4)), best(ball, matrix)
    assert tube[MEASURES.index("roundness")] < 0.2 < 0.7 < round_one[MEASURES.index("roundness")]
    assert round_odds > tube_odds + 2


def test_candidates_are_values():
    array, matrix = piece_of_lung([((0.0, 0.0, 0.0), 4.0, 0.0)])
    candidate = find_candidates(array, matrix, None)[0]
    assert all(isinstance(value, float) for value in (*candidate.center_ras, candidate.diameter_mm))
    with pytest.raises(dataclasses.FrozenInstanceError):
        candidate.kind = "solid"


# -- masses that are taken for the wall -------------------------------------------------------------------------------


@pytest.mark.parametrize(("center", "radius"), [((108.0, 0.0, 0.0), 20.0), ((-38.0, 10.0, 12.0), 16.0)])
def test_a_dense_mass_on_the_wall_is_a_place_though_no_cell_of_the_lungs_holds_it(center, radius):
    array, matrix, lungs = chest_with((center, radius, 40.0))
    assert lungs.share_at(center) < 0.5
    hits = [each for each in dents_of(lungs) if is_hit(each, center, radius)]
    assert len(hits) == 1 and np.isnan(hits[0].response) and 10.0 < hits[0].diameter_mm < 2.5 * radius
    assert find_candidates(array, matrix, lungs, max_diameter_mm=60.0)[-1:] == hits
    assert not any(np.isnan(each.response) for each in find_candidates(array, matrix, lungs, max_diameter_mm=10.0))


def test_whole_lungs_have_no_dents_nor_have_lungs_that_touch_each_other():
    _, _, lungs = chest_with()
    assert dents_of(lungs) == []
    bridge = lungs.mask.copy()
    k, j = (np.array(bridge.shape[:2]) // 2).tolist()
    bridge[k - 4 : k + 4, j - 4 : j + 4, :] |= True
    assert dents_of(dataclasses.replace(lungs, mask=bridge, share=None)) == []
