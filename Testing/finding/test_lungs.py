from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from inference.volumes import ORIENTATIONS, grid, rotation, world_of
from SAMMed3DLib.finding.lungs import LungMask, find_lungs
from SAMMed3DLib.inference.errors import InputError, PredictionCancelled
from SAMMed3DLib.inference.geometry import transform_points
from SAMMed3DLib.synthesis.procedural import procedural_block

from .simple_chest import FOAM, LUNG, SHAPE, TISSUE, chest, ellipsoid, true_lungs


def dice(lungs: LungMask, shape=SHAPE, matrix=None, wanted=true_lungs) -> float:
    """Agreement with the truth at the voxels of a volume."""
    world = world_of(shape, matrix)
    found, truth = lungs.share_at(world) > 0.5, wanted(world)
    return 2.0 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))


def test_both_lungs_without_mattress_and_air():
    array, matrix = chest()
    lungs = find_lungs(array, matrix)
    assert lungs.found and "liters" in lungs.message
    assert dice(lungs, array.shape, matrix) > 0.95
    assert lungs.share_at((0.0, -90.0, 0.0)) == 0.0, "the mattress is no lung"
    assert lungs.share_at((0.0, 120.0, 0.0)) == 0.0, "the air is no lung"
    liters = np.count_nonzero(lungs.mask) * abs(np.linalg.det(lungs.grid_to_ras[:3, :3])) / 1e6
    assert liters == pytest.approx(2 * 4 / 3 * np.pi * 45 * 65 * 80 / 1e6, rel=0.05)


@pytest.mark.parametrize("name", ["oblique", "gantry tilt", "left-handed", "sagittal"])
def test_orientations_and_tilt(name):
    _, _, directions = ORIENTATIONS[name]
    shape = (70, 70, 70)
    array, matrix = chest(shape, (4.2, 4.2, 4.2), directions)
    assert dice(find_lungs(array, matrix), shape, matrix) > 0.94


def test_a_patient_who_lies_aslant():
    shape = (70, 70, 80)
    array, matrix = chest(shape, (4.2, 4.2, 4.2), rotation(20.0, (0.0, 1.0, 0.0)))
    turned = grid(shape, (4.2, 4.2, 4.2))  # the array as it is, its matrix forgotten
    lungs = find_lungs(array, turned)
    world = world_of(shape, matrix)
    found = lungs.share_at(world_of(shape, turned)) > 0.5
    truth = true_lungs(world)
    assert 2.0 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth)) > 0.94


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 5.0), (2.5, 2.5, 0.5)])
def test_thick_and_thin_slices(spacing):
    shape = (int(200 / spacing[2]), int(270 / spacing[1]), int(330 / spacing[0]))
    if spacing[2] < 1:
        shape = (80, shape[1], shape[2])  # 4 cm of thin slices
    array, matrix = chest(shape, spacing)
    assert dice(find_lungs(array, matrix), shape, matrix) > 0.94


@pytest.mark.parametrize("padding", [-1024, -2000, -3024, 0])
def test_padding_outside_the_field_of_view(padding):
    array, matrix = chest()
    world = world_of(array.shape, matrix)
    array[np.hypot(world[..., 0], world[..., 1]) > 130.0] = padding
    assert dice(find_lungs(array, matrix), array.shape, matrix) > 0.95


@pytest.mark.parametrize("padding", [-1024, -1000, -2000, -3024, -32768, 0])
@pytest.mark.parametrize("view", ["circle", "circle aside", "box"])
def test_padding_that_cuts_the_lungs_is_not_the_air_around_the_patient(padding, view):
    """Both lungs are found, as far as they are in the field of view, and what is missing is said."""
    array, matrix = chest()
    world = world_of(array.shape, matrix)
    outside = {
        "circle": np.hypot(world[..., 0], world[..., 1]) > 105.0,
        "circle aside": np.hypot(world[..., 0] - 12.0, world[..., 1] - 4.0) > 100.0,
        "box": (np.abs(world[..., 0] - 6.0) > 102.0) | (np.abs(world[..., 1]) > 90.0),
    }[view]
    array[outside] = padding
    lungs = find_lungs(array, matrix)
    assert lungs.found
    found, truth = lungs.share_at(world) > 0.5, true_lungs(world) & ~outside
    assert 2.0 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth)) > 0.93
    assert any("the field of view cuts the lungs" in note for note in lungs.notes)


def test_whole_lungs_need_no_note():
    array, matrix = chest()
    assert find_lungs(array, matrix).notes == ()


def test_a_scan_that_ends_in_the_lungs_says_so():
    array, matrix = chest((24, 68, 90), center_ras=(0.0, 0.0, 70.0))
    (note,) = find_lungs(array, matrix).notes
    assert "ends within the lungs (below)" in note


@pytest.mark.parametrize(("side", "sign"), [("right", 1), ("left", -1)])
def test_a_lung_that_is_lost_is_said(side, sign):
    array, matrix = chest()
    world = world_of(array.shape, matrix)
    array[true_lungs(world) & (sign * world[..., 0] < 0)] = TISSUE  # the other one has no air
    (note,) = find_lungs(array, matrix).notes
    assert f"only the {side} lung was found" in note


def test_a_scan_cropped_to_the_lungs():
    array, matrix = chest()
    size = (41, 33, 58)
    corner = np.array([(n - m) // 2 for n, m in zip(array.shape, size, strict=True)])
    cut = array[tuple(slice(start, start + n) for start, n in zip(corner, size, strict=True))]
    matrix = matrix.copy()
    matrix[:3, 3] = transform_points(matrix, corner[::-1])
    assert dice(find_lungs(cut, matrix), cut.shape, matrix) > 0.95


def test_half_a_lung_is_found():
    array, matrix = chest((40, 60, 25), (3.0, 3.0, 3.0), center_ras=(70.0, 0.0, 40.0))
    assert dice(find_lungs(array, matrix), array.shape, matrix) > 0.93


def test_nodules_at_the_pleura_are_inside():
    # the ball reaches beyond the lung's surface
    center = (70.0 + 45.0 - 6.0, 0.0, 0.0)
    array, matrix = chest(balls=((center, 8.0, 0.0),))
    lungs = find_lungs(array, matrix)
    assert lungs.share_at(center) > 0.5
    assert lungs.share_at((70.0 + 45.0 + 8.0, 0.0, 0.0)) < 0.1, "the chest wall behind is not"


def test_vessels_and_central_nodules_are_inside():
    array, matrix = chest(balls=(((70.0, 0.0, 0.0), 12.0, 30.0),))
    assert find_lungs(array, matrix).share_at((70.0, 0.0, 0.0)) == 1.0


def test_an_effusion_stays_outside():
    array, matrix = chest()
    world = world_of(array.shape, matrix)
    fluid = ellipsoid(world, (-70.0, 0.0, 0.0), (45.0, 65.0, 80.0)) & (world[..., 2] < -30.0)
    array[fluid] = 10
    lungs = find_lungs(array, matrix)
    assert lungs.share_at((-70.0, 0.0, 0.0)) == 1.0
    assert lungs.share_at((-70.0, 0.0, -55.0)) < 0.1
    assert lungs.share_at((70.0, 0.0, -55.0)) == 1.0


def test_a_bulla_belongs_to_its_lung():
    array, matrix = chest(balls=(((70.0, 10.0, 20.0), 20.0, -1000.0),))
    assert find_lungs(array, matrix).share_at((70.0, 10.0, 20.0)) == 1.0


def test_foam_in_the_shell_of_a_table_is_no_lung():
    shape = (30, 100, 140)
    array, matrix = chest(shape, (2.5, 2.5, 4.0))
    world = world_of(shape, matrix)
    r, a = world[..., 0], world[..., 1]
    table = (np.abs(r) < 165) & (a < -86) & (a > -121)
    array[table & (array < -500)] = 0
    array[table & (np.abs(r) < 162) & (a < -89) & (a > -118)] = FOAM
    assert dice(find_lungs(array, matrix), shape, matrix) > 0.95


def test_a_mattress_in_a_tray_is_no_lung():
    shape = (30, 100, 140)
    array, matrix = chest(shape, (2.5, 2.5, 4.0))
    world = world_of(shape, matrix)
    r, a = world[..., 0], world[..., 1]
    array[(np.abs(r) < 160) & (a > -110) & (a < -55) & (array < -500)] = FOAM
    array[(((np.abs(r) >= 160) & (np.abs(r) < 163)) | (a <= -110)) & (a > -113) & (a < -50) & (np.abs(r) < 163)] = -100
    assert dice(find_lungs(array, matrix), shape, matrix) > 0.95


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_the_air_in_an_emphysematous_lung_is_lung(share):
    array, matrix = chest()
    lung = true_lungs(world_of(array.shape, matrix))
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.normal(size=array.shape), 2.0)
    airy = lung & (field > np.quantile(field[lung], 1.0 - share))
    array[airy] = rng.normal(-990, 12, np.count_nonzero(airy))
    assert dice(find_lungs(array, matrix), array.shape, matrix) > 0.93


def test_a_block_of_lung_alone_does_not_fail():
    hu, lung = procedural_block(np.random.default_rng(3), (60, 60, 60), (1.0, 1.0, 1.0))
    lungs = find_lungs(hu, np.eye(4))
    assert isinstance(lungs.found, bool) and lungs.message


def head(shape=(60, 80, 70)):
    """A skull with sinuses on a foam headrest in air."""
    matrix = grid(shape, (3.0, 3.0, 3.0))
    world = world_of(shape, matrix)
    hu = np.full(shape, -1000.0)
    hu[(np.abs(world[..., 0]) < 90) & (world[..., 1] < -60) & (world[..., 1] > -105)] = -930.0
    hu[ellipsoid(world, (0, 0, 0), (75, 95, 90))] = 900.0
    hu[ellipsoid(world, (0, 0, 0), (68, 88, 83))] = 35.0
    for center in ((15, 60, -30), (-15, 60, -30), (40, -20, -40), (-40, -20, -40)):
        hu[ellipsoid(world, center, (10, 12, 12))] = -990.0
    return hu + np.random.default_rng(1).normal(0, 10, shape), matrix


def test_a_head_has_no_lungs():
    array, matrix = head()
    lungs = find_lungs(array, matrix)
    assert not lungs.found and "no lungs" in lungs.message and not lungs.mask.any()


@pytest.mark.parametrize("value", [-1024, -850, 0, 300])
def test_constant_volumes(value):
    lungs = find_lungs(np.full((20, 30, 30), value, np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert not lungs.found and "everywhere" in lungs.message


@pytest.mark.parametrize("value", [-3024, 4000])
def test_constant_volumes_are_told_with_their_own_value(value):
    lungs = find_lungs(np.full((20, 30, 30), value, np.int16), np.eye(4))
    assert f"is {value} everywhere" in lungs.message


def test_an_image_from_0_to_1_and_a_tiny_volume_are_not_called_constant():
    rng = np.random.default_rng(0)
    image = find_lungs(rng.random((20, 30, 30), dtype=np.float32), np.eye(4))
    assert not image.found and "Hounsfield" in image.message
    tiny = find_lungs(rng.normal(-800, 100, (2, 2, 2)), np.eye(4))
    assert not tiny.found and "everywhere" not in tiny.message


def test_noisy_air():
    array = np.random.default_rng(0).normal(-1000, 15, (40, 60, 60)).astype(np.float32)
    assert not find_lungs(array, np.diag([3.0, 3.0, 3.0, 1.0])).found


def test_an_mr_is_told_from_a_ct():
    array = np.random.default_rng(0).gamma(2.0, 150.0, (30, 60, 60)).astype(np.uint16)
    lungs = find_lungs(array, np.diag([2.0, 2.0, 4.0, 1.0]))
    assert not lungs.found and "Hounsfield" in lungs.message


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 50, 50), (2, 3, 200)])
def test_small_volumes(shape):
    array = np.random.default_rng(0).normal(-800, 200, shape)
    assert not find_lungs(array, np.eye(4)).found


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_number_types_and_memory_orders_agree(dtype, order):
    array, matrix = chest()
    other = find_lungs(np.asarray(array, dtype=dtype, order=order), matrix)
    assert np.array_equal(other.mask, find_lungs(array, matrix).mask)


def test_the_volume_is_not_changed():
    array, matrix = chest()
    before = array.copy()
    array.setflags(write=False)
    find_lungs(array, matrix)
    assert np.array_equal(array, before)


def test_progress_rises_to_the_total_and_cancels():
    array, matrix = chest()
    seen = []
    find_lungs(array, matrix, lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] and len(seen) > 3
    with pytest.raises(PredictionCancelled):
        find_lungs(array, matrix, lambda done, total: False)
    with pytest.raises(PredictionCancelled):
        find_lungs(array, matrix, lambda done, total: done < total)


def test_bad_matrices():
    with pytest.raises(InputError):
        find_lungs(np.zeros((3, 3, 3)), np.zeros((4, 4)))


def test_share_at_takes_any_shape_of_points():
    array, matrix = chest()
    lungs = find_lungs(array, matrix)
    points = np.array([[70.0, 0.0, 0.0], [0.0, 0.0, 0.0], [900.0, 0.0, 0.0]])
    assert lungs.share_at(points).tolist() == [1.0, 0.0, 0.0]
    assert lungs.share_at(points[0]) == 1.0
    assert lungs.share_at(points.reshape(3, 1, 3)).shape == (3, 1)
    assert lungs.share_at(np.zeros((0, 3))).shape == (0,)


def test_a_mask_without_shares_still_answers():
    to_ras = np.diag([2.0, 2.0, 2.0, 1.0])
    lungs = LungMask(np.pad(np.ones((2, 2, 2), bool), 1), to_ras, True, "")
    assert lungs.share_at((3.0, 3.0, 3.0)) == 1.0 and lungs.share_at((1.0, 3.0, 3.0)) == pytest.approx(0.5)


def test_the_pleura_is_found_within_a_cell():
    array, matrix = chest((12, 150, 200), (1.5, 1.5, 3.0))
    lungs = find_lungs(array, matrix)
    for depth in np.arange(-4.0, 5.0, 1.0):
        share = lungs.share_at((70.0 + 45.0 - depth, 0.0, 0.0))
        assert share > 0.9 if depth > 2.5 else share < 0.1 if depth < -2.5 else True
    assert LUNG < TISSUE


@pytest.mark.parametrize("name", ["axial LPS", "oblique", "left-handed"])
def test_the_lungs_in_a_volumes_voxels_are_what_is_more_than_half_lung(name):
    _, _, directions = ORIENTATIONS[name]
    shape = (70, 66, 74)
    array, matrix = chest(shape, (4.2, 4.2, 4.2), directions)
    lungs, told = find_lungs(array, matrix), []
    mask, offset = lungs.voxels(shape, matrix, lambda done, total: told.append(done / total))
    whole = np.zeros(shape, bool)
    whole[tuple(slice(a, a + n) for a, n in zip(offset, mask.shape, strict=True))] = mask != 0
    expected = lungs.share_at(world_of(shape, matrix)) > 0.5
    assert np.count_nonzero(whole != expected) < 1e-3 * np.count_nonzero(expected) and whole.sum() > 1000
    assert told == sorted(told) and told[-1] == 1.0 and len(told) > 3 and mask.size < array.size
    with pytest.raises(PredictionCancelled):
        lungs.voxels(shape, matrix, lambda done, total: False)


def test_no_lungs_are_no_voxels():
    lungs = LungMask(np.zeros((3, 4, 5), bool), np.eye(4), False, "none")
    mask, _offset = lungs.voxels((9, 9, 9), np.eye(4))
    assert not mask.any()
