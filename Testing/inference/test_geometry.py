from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.inference import InputError
from SAMMed3DLib.inference.geometry import (
    as_affine,
    closest_ras_axes,
    extent_ras,
    is_singular,
    length_scale,
    transform_points,
    voxel_index,
    voxel_volume,
    world_to_ijk,
)

from .volumes import ORIENTATIONS, grid, rotation


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_world_and_index_are_inverse(name):
    shape, spacing, directions = ORIENTATIONS[name]
    matrix = grid(shape, spacing, directions, (12.5, -40.0, 300.0))
    points = np.array([[0.0, 0.0, 0.0], [3.25, 7.5, 11.0]])
    assert np.allclose(world_to_ijk(matrix, transform_points(matrix, points)), points)


def test_voxel_index_sends_every_tie_up_and_forgives_rounding():
    assert voxel_index([0.5, 1.5, 2.5]).tolist() == [1, 2, 3]
    assert voxel_index([-0.5, -0.51, 0.49]).tolist() == [0, -1, 0]
    assert voxel_index([0.5 - 1e-12, 3.0 - 1e-12, 3.0 + 1e-12]).tolist() == [1, 3, 3]


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.eye(3), "4x4"),
        ("no matrix", "4x4"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
        (np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.eye(4) + np.eye(4)[[3, 0, 1, 2]], "last row"),
    ],
)
def test_bad_matrices_are_refused(matrix, words):
    with pytest.raises(InputError, match=words):
        as_affine(matrix)


def test_tiny_and_huge_spacings_are_not_singular():
    assert not is_singular(np.diag([1e-3, 1e-3, 1e-3, 1.0]))
    assert not is_singular(np.diag([1e3, 0.1, 5.0, 1.0]))
    assert is_singular(np.diag([0.0, 1.0, 1.0, 1.0]))


def test_as_affine_is_a_read_only_copy():
    given = np.eye(4)
    affine = as_affine(given)
    given[0, 3] = 5.0
    assert affine[0, 3] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        affine[0, 0] = 2.0


def test_closest_axes():
    assert closest_ras_axes(np.diag([-0.7, -0.7, 2.0, 1.0])) == ((0, 1, 2), (-1, -1, 1))
    sagittal = grid((4, 4, 4), (1, 1, 1), ORIENTATIONS["sagittal"][2])
    assert closest_ras_axes(sagittal) == ((2, 0, 1), (1, 1, 1))
    tilted = np.eye(4)
    tilted[:3, :3] = rotation(30.0)
    assert closest_ras_axes(tilted) == ((0, 1, 2), (1, 1, 1))


def test_length_scale_tells_what_measurements_depend_on():
    shape, spacing, directions = ORIENTATIONS["gantry tilt"]
    matrix = grid(shape, spacing, directions, (12.5, -40.0, 300.0))
    moved, axial = np.eye(4), np.eye(4)
    moved[:3, :3], moved[:3, 3] = rotation(20.0, (1.0, 0.3, 2.0)), (-0.5, 70.0, 3.0)
    axial[:3, :3] = rotation(90.0, (1.0, 0.0, 0.0))
    own = length_scale(matrix)
    assert length_scale(moved @ matrix) == own
    sheared = np.eye(4)
    sheared[0, 1] = 0.01
    others = [np.diag([1.01, 1.0, 1.0, 1.0]), np.diag([1.0, 1.0, 0.99, 1.0]), sheared, axial]
    assert len({own, *(length_scale(each @ matrix) for each in others)}) == 5


def test_extent_and_volume_of_a_sheared_grid():
    matrix = grid((10, 20, 30), (1.0, 2.0, 3.0))
    low, high = extent_ras((10, 20, 30), matrix)
    assert np.allclose(high - low, [30.0, 40.0, 30.0])
    assert voxel_volume(matrix) == pytest.approx(6.0)
    matrix[1, 2] = 5.0
    assert voxel_volume(matrix) == pytest.approx(6.0)
