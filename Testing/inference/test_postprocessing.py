from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.inference import postprocessing
from SAMMed3DLib.inference.field import OUTSIDE_LOGIT, Part, cells_to_crop, corrected, prior_logits, sample_parts
from SAMMed3DLib.inference.geometry import transform_points
from SAMMed3DLib.inference.mask_prompt import logits_of_mask, mask_block, mask_extent
from SAMMed3DLib.inference.postprocessing import Clicks, fill_holes, keep_components, tight_block, voxelize
from SAMMed3DLib.inference.preprocessing import Crop, crop_at
from SAMMed3DLib.model.profile import PROFILES

from .volumes import ORIENTATIONS, grid, rotation, world_of

PROFILE = PROFILES["nodule"]
NO_VOXELS = np.zeros((0, 3), dtype=np.int64)


def part_with(logits_of_world, center=(0.0, 0.0, 0.0), spacing=1.0):
    crop = crop_at(center, spacing, PROFILE, np.eye(4))
    part = Part(crop, np.zeros((32, 32, 32), np.float32), np.array(center))
    cells = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), axis=-1)
    return Part(crop, logits_of_world(transform_points(part.cells_to_ras, cells)).astype(np.float32), np.array(center))


def ball(center, radius):
    return lambda world: 3.0 * (radius - np.linalg.norm(world - np.array(center), axis=-1))


# -- components and holes ---------------------------------------------------------------------------------------------


def test_components_that_hold_a_seed():
    mask = np.zeros((5, 5, 9), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True  # joined by a corner
    mask[4, 4, 4] = True
    mask[2, 2, 7:9] = True
    kept = keep_components(mask, np.array([[0, 0, 0], [2, 2, 7]]))
    assert np.argwhere(kept).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 7], [2, 2, 8]]
    assert np.array_equal(keep_components(mask, NO_VOXELS), mask)
    largest = keep_components(np.pad(mask, 1), NO_VOXELS, largest_only=True)
    assert largest.sum() == 2


def test_holes_are_filled_but_for_those_with_a_negative_click():
    mask = np.ones((5, 5, 9), bool)
    mask[2, 2, 2] = mask[2, 2, 6] = False
    mask[0, 2, 4] = False  # open to the outside
    filled = fill_holes(mask, np.array([[2, 2, 6], [30, 0, 0], [-1, 0, 0]]))
    assert filled[2, 2, 2] and not filled[2, 2, 6] and not filled[0, 2, 4]
    assert fill_holes(mask, NO_VOXELS)[2, 2, 6]


def test_organs_are_labeled_on_a_coarser_grid_with_the_same_result():
    shape = (150, 161, 170)
    world = world_of(shape, grid(shape, (1.0, 1.0, 1.0)))
    near, far = (np.linalg.norm(world - (x, 0, 0), axis=-1) for x in (-40.0, 40.0))
    hollow = (near < 35) & (near > 10)
    mask = hollow | (far < 30)
    seeds = np.array([[75, 80, 85 - 60]])
    assert np.array_equal(keep_components(mask, seeds), hollow)
    assert np.array_equal(keep_components(mask, NO_VOXELS, largest_only=True), hollow)
    assert np.array_equal(fill_holes(hollow, NO_VOXELS), near < 35)
    assert np.array_equal(fill_holes(hollow, np.array([[75, 80, 45]])), hollow)


def test_tight_block():
    mask = np.zeros((6, 7, 8), bool)
    mask[2:4, 3, 5:8] = True
    block, start = tight_block(mask)
    assert block.shape == (2, 1, 3) and start.tolist() == [2, 3, 5] and block.all()
    block, start = tight_block(np.zeros((2, 2, 2), bool))
    assert block.shape == (1, 1, 1) and not block.any()


# -- field to voxels --------------------------------------------------------------------------------------------------


def test_cells_lie_where_torch_puts_them():
    """align_corners=False: the first of 32 cells over 64 voxels is centered between voxels 0 and 1."""
    affine = cells_to_crop((64, 128, 32), (32, 32, 32))
    assert np.allclose(transform_points(affine, [0, 0, 0]), [0.5, 1.5, 0.0])
    assert np.allclose(transform_points(affine, [31, 31, 31]), [62.5, 125.5, 31.0])


def test_the_block_holds_the_whole_mask():
    """Against the full volume interpolated at once, in every orientation."""
    rng = np.random.default_rng(0)
    for shape, spacing, directions in ORIENTATIONS.values():
        matrix = grid(shape, spacing, directions)
        noise = rng.normal(0, 4, (32, 32, 32))
        part = part_with(lambda world, noise=noise: ball((3, 2, -4), 12)(world) * 0.3 + noise)
        clicks = Clicks.of(np.zeros((0, 3)), np.zeros(0), shape, matrix)
        mask, offset = voxelize([part], np.zeros(shape, np.int16), matrix, clicks)
        to_ras = matrix @ np.eye(4)[:, [2, 1, 0, 3]]
        full = sample_parts([part], to_ras, shape) > 0
        block, start = tight_block(full)
        assert tuple(start) == offset
        filled = fill_holes(block, NO_VOXELS)
        assert np.array_equal(mask, filled)
        # and with a click, only its component, found from preselected cells
        click = np.array([[3.0, 2.0, -4.0]])
        mask, offset = voxelize([part], np.zeros(shape, np.int16), matrix, Clicks.of(click, [True], shape, matrix))
        seed = Clicks.of(click, [True], shape, matrix).kji
        if full[tuple(seed[0])]:
            block, start = tight_block(keep_components(full, seed))
            assert tuple(start) == offset and np.array_equal(mask, fill_holes(block, NO_VOXELS))


def test_thick_slices_do_not_break_a_component():
    """Voxels ten cells apart are neighbors all the same."""
    shape = (9, 40, 40)
    matrix = grid(shape, (1.0, 1.0, 6.0))

    def layers(world):
        return np.where(np.abs(world[..., 2] % 6 - 3) > 2, 5.0, -5.0) - 0.1 * np.abs(world[..., 0])

    part = part_with(layers, spacing=0.5)
    click = Clicks.of(np.zeros((1, 3)), [True], shape, matrix)
    mask, offset = voxelize([part], np.zeros(shape, np.int16), matrix, click)
    assert mask.shape[0] >= 5


def test_an_empty_field_is_one_voxel_of_zero():
    part = part_with(lambda world: np.full(world.shape[:3], -2.0), center=(500.0, 0.0, 0.0))
    clicks = Clicks.of(np.zeros((0, 3)), np.zeros(0), (9, 9, 9), np.eye(4))
    mask, offset = voxelize([part], np.zeros((9, 9, 9), np.int16), np.eye(4), clicks)
    assert mask.tolist() == [[[0]]] and offset == (0, 0, 8)


@pytest.mark.parametrize(("voxel", "kept"), [((20, 20, 26), True), ((20, 20, 20), True), ((20, 20, 29), False)])
def test_a_click_taken_back_in_its_own_voxel_leaves_the_object_beside_it(voxel, kept):
    shape, array = (41, 41, 41), np.zeros((41, 41, 41), np.int16)
    matrix = grid(shape, (1.0, 1.0, 1.0))
    part = part_with(ball(transform_points(matrix, (20, 20, 20)), 5.5), transform_points(matrix, (20, 20, 20)))
    point = transform_points(matrix, voxel[::-1])
    twice = Clicks.of(np.stack([point, point]), np.array([True, False]), shape, matrix)
    mask, offset = voxelize([part], array, matrix, twice)
    assert bool(mask.sum() > 300) == kept
    taken = np.array(voxel) - offset
    assert np.any(taken < 0) or np.any(taken >= mask.shape) or mask[tuple(taken)] == 0


def test_a_far_negative_click_does_not_enlarge_the_block():
    shape = (60, 60, 400)
    matrix = grid(shape, (1.0, 1.0, 1.0))
    clicks = Clicks.of(np.array([[0, 0, 0], [150.0, 0, 0]]), [True, False], shape, matrix)
    mask, _ = voxelize([part_with(ball((0, 0, 0), 6))], np.zeros(shape, np.int16), matrix, clicks)
    assert mask.shape == (11, 11, 11) or mask.shape[2] <= 13


# -- several parts ----------------------------------------------------------------------------------------------------


def test_overlapping_parts_blend_without_a_step():
    """Two crops that disagree everywhere: the field changes gradually from one opinion to the other."""
    first = part_with(lambda world: np.full(world.shape[:3], 6.0))
    second = part_with(lambda world: np.full(world.shape[:3], -6.0), center=(30.0, 0.0, 0.0))
    line = np.eye(4)
    line[:3, :3] *= 0.25
    line[:3, 3] = (-40.0, 0.1, 0.1)
    field = sample_parts([first, second], line, (440, 1, 1))[:, 0, 0]
    position = -40 + 0.25 * np.arange(440)
    assert np.allclose(field[(position > -32) & (position < -2.6)], 6.0)
    assert np.allclose(field[(position > 31.6) & (position < 61)], -6.0)
    between = field[(position > -32) & (position < 61)]
    assert np.abs(np.diff(between)).max() < 0.35
    assert (np.diff(between) <= 1e-5).all()
    assert (field[(position < -33) | (position > 62)] == OUTSIDE_LOGIT).all()


def test_priors():
    part = part_with(ball((0, 0, 0), 8))
    assert prior_logits([part], part.crop) is part.logits
    moved = crop_at((20.0, 0.0, 0.0), 0.5, PROFILE, np.eye(4))
    prior = prior_logits([part], moved)
    assert np.abs(prior).max() <= 20.0
    cells = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), axis=-1)
    world = transform_points(moved.crop_to_ras @ cells_to_crop(moved.shape, (32, 32, 32)), cells)
    outside = world[..., 0] > 32.0
    assert outside.any() and (prior[outside] == 0.0).all()
    near = np.linalg.norm(world, axis=-1) < 14
    assert np.abs(prior[near] - ball((0, 0, 0), 8)(world[near])).max() < 1.0


def test_a_correction_counts_in_full_at_its_click_and_less_far_away():
    """A ball of 8 mm swells by 4 mm everywhere because of one click: half a radius away 0.7 of it is left."""
    part, before = part_with(ball((0, 0, 0), 12)), part_with(ball((0, 0, 0), 8)).logits
    click = np.array([8.5, 0.5, 0.5])
    told = corrected(part, before, click)
    share = (told.logits - before) / (part.logits - before)
    cells = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), axis=-1)
    apart = np.linalg.norm(transform_points(part.cells_to_ras, cells) - click, axis=-1)
    changed = np.abs(part.logits - before) > 1.0
    assert share[changed & (apart < 0.1)].min() > 0.999
    assert np.allclose(share[changed & (apart > 4.0)], 0.7, atol=1e-4)
    assert np.all(np.diff(share[changed][np.argsort(apart[changed])]) < 1e-4), "never more, further away"
    assert told.crop is part.crop and not told.logits.flags.writeable


# -- masks as prompts -------------------------------------------------------------------------------------------------


def test_a_mask_becomes_logits_and_back():
    for name in ("axial LPS", "oblique", "sagittal"):
        shape, spacing, directions = ORIENTATIONS[name]
        matrix = grid(shape, spacing, directions)
        truth = np.linalg.norm(world_of(shape, matrix) - (4.0, 2.0, -3.0), axis=-1) < 9.0
        block, offset = mask_block(truth.astype(np.uint8), shape)
        diameter, extent, center = mask_extent(block, offset, matrix)
        assert np.allclose(center, (4.0, 2.0, -3.0), atol=1.0) and abs(diameter - 18) < 0.6
        assert (extent >= 16.5).all()
        crop = crop_at(center, 0.75, PROFILE, matrix)
        part = Part(crop, logits_of_mask(block, offset, matrix, crop), center)
        clicks = Clicks.of(np.zeros((0, 3)), np.zeros(0), shape, matrix)
        mask, start = voxelize([part], np.zeros(shape, np.int16), matrix, clicks)
        full = np.zeros(shape, bool)
        full[tuple(slice(a, a + n) for a, n in zip(start, mask.shape, strict=True))] = mask
        assert 2 * (full & truth).sum() / (full.sum() + truth.sum()) > 0.96
        assert part.logits.max() <= 8.0 and part.logits.min() >= -8.0


def test_equal_crops_share_a_key_whatever_the_sign_of_zero():
    assert Crop(np.diag([1.0, 1.0, 1.0, 1.0]), (2, 2, 2)) == Crop(np.diag([1.0, 1.0, 1.0, 1.0]) * 1.0 - 0.0, (2, 2, 2))
    negative_zero = np.eye(4)
    negative_zero[0, 1] = -0.0
    assert Crop(negative_zero, (2, 2, 2)) == Crop(np.eye(4), (2, 2, 2))


def test_slabs_and_separate_blocks_give_the_mask_of_one_piece(monkeypatch):
    shape, matrix = (60, 70, 50), grid((60, 70, 50), (1.0, 1.0, 1.0), rotation(12.0, (1.0, 0.5, 0.2)))
    rng = np.random.default_rng(3)
    array = rng.normal(-500, 200, shape).astype(np.int16)
    part = part_with(lambda world: ball((0, 0, 0), 9)(world) + rng.normal(0, 4, world.shape[:3]))
    # two corrections overlap, one of them across slabs
    voxels = np.array([(30, 35, 25), (30, 48, 25), (33, 49, 26), (24, 35, 25)])
    clicks = Clicks(transform_points(matrix, voxels[:, ::-1]), np.array([True, True, False, False]), voxels)
    expected, offset = voxelize([part], array, matrix, clicks)
    monkeypatch.setattr(postprocessing, "_SLAB_VOXELS", 500)
    mask, start = voxelize([part], array, matrix, clicks)
    assert start == offset and np.array_equal(mask, expected)
    assert [mask[tuple(voxel - start)] for voxel in voxels] == [1, 1, 0, 0]


def test_largest_only_holds_over_separate_blocks():
    shape, matrix = (50, 50, 200), grid((50, 50, 200), (1.0, 1.0, 1.0))
    parts = [part_with(ball(center, radius), center) for center, radius in (((-60, 0, 0), 8), ((60, 0, 0), 5))]
    clicks = Clicks.of(np.zeros((0, 3)), [], shape, matrix)
    both, _ = voxelize(parts, np.zeros(shape, np.int16), matrix, clicks)
    mask, start = voxelize(parts, np.zeros(shape, np.int16), matrix, clicks, largest_only=True)
    assert both.sum() > mask.sum() > 1500
    assert start[2] < 60 and max(mask.shape) < 20
