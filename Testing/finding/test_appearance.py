from __future__ import annotations

import numpy as np
import pytest
import torch

from inference.fakes import sphere_volume
from inference.volumes import ORIENTATIONS, grid, world_of
from SAMMed3DLib.finding import appearance
from SAMMed3DLib.finding.appearance import appearance_of, classifier_spacing, cube_around, shipped_classifier
from SAMMed3DLib.inference.errors import PredictionCancelled
from SAMMed3DLib.model.checkpoint import CheckpointError
from SAMMed3DLib.model.nodule_classifier import EDGE, SPACING_RANGE_MM, VOXELS_PER_DIAMETER

CENTER, RADIUS = (6.0, -4.0, 3.0), 5.0


def volume(name):
    shape, spacing, directions = ORIENTATIONS[name]
    matrix = grid(shape, spacing, directions)
    return world_of(shape, matrix), matrix


class Middle(torch.nn.Module):
    """Says how bright the middle of a crop is, and how many crops it saw at once."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, hu, spacing):
        self.seen.append((len(hu), spacing.tolist()))
        return hu[:, EDGE // 2, EDGE // 2, EDGE // 2]


def test_nodules_are_shown_at_one_size_but_for_the_smallest_and_largest():
    assert classifier_spacing([8.0, 12.0]) * VOXELS_PER_DIAMETER == pytest.approx([8.0, 12.0])
    assert classifier_spacing([1.0, 100.0]) == pytest.approx(SPACING_RANGE_MM)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_crop_is_the_same_however_the_volume_is_stored(name):
    world, matrix = volume(name)
    cube = cube_around(sphere_volume(world, CENTER, RADIUS), matrix, CENTER, 0.8)
    axis = (np.arange(EDGE) - (EDGE - 1) / 2) * 0.8
    distance = np.linalg.norm(np.stack(np.meshgrid(axis, axis, axis, indexing="ij")), axis=0)
    assert cube.shape == (EDGE, EDGE, EDGE) and cube.dtype == np.float32
    assert cube[distance < RADIUS - 2.5].min() > 50 and np.median(cube[(distance > 8) & (distance < 10)]) == -900.0


def test_the_axes_of_a_crop_are_right_anterior_superior():
    world, matrix = volume("oblique")
    cube = cube_around(world[..., 1].astype(np.float32), matrix, (0.0, 0.0, 0.0), 0.5)
    assert np.allclose(np.diff(cube, axis=1), 0.5, atol=0.02) and np.abs(np.diff(cube, axis=0)).max() < 0.02


def test_beyond_the_volume_there_is_air():
    world, matrix = volume("axial LPS")
    corner = world.reshape(-1, 3).max(axis=0)
    cube = cube_around(np.full(world.shape[:3], 40, np.int16), matrix, corner, 1.0)
    assert (cube == -1024).any() and (cube == 40).any() and set(np.unique(cube)) == {-1024.0, 40.0}


def test_places_are_judged_in_batches_and_progress_can_cancel():
    world, matrix = volume("axial LPS")
    array, network, told = sphere_volume(world, CENTER, RADIUS), Middle(), []
    centers = [CENTER] * 30 + [tuple(np.add(CENTER, 12.0))] * 10
    odds = appearance_of(array, matrix, centers, [6.3] * 40, network, lambda done, total: told.append((done, total)))
    assert odds.shape == (40,) and odds[:30].min() > 0 and odds[30:].max() < -800
    assert sum(count for count, _ in network.seen) == 40 and told[-1] == (40, 40) and len(told) > 1
    assert network.seen[0][1] == pytest.approx([6.3 / VOXELS_PER_DIAMETER] * network.seen[0][0])
    assert appearance_of(array, matrix, [], [], network).shape == (0,)

    def cancel(done, total):
        raise PredictionCancelled("stop")

    with pytest.raises(PredictionCancelled):
        appearance_of(array, matrix, centers, [6.0] * 40, Middle(), cancel)


class Corner(torch.nn.Module):
    """Says how bright one corner of a crop is."""

    def forward(self, hu, spacing):
        return hu[:, 0, 0, 0] * spacing


def test_all_mirror_images_can_be_asked_for_the_mean():
    _, matrix = volume("axial LPS")
    array = np.random.default_rng(0).normal(0.0, 100.0, ORIENTATIONS["axial LPS"][0])
    centers, sizes = [CENTER, (0.0, 0.0, 0.0), (3.0, 4.0, 5.0), (0.0, 0.0, 2.0), (1.0, 1.0, 1.0)], [10.0] * 4 + [12.5]
    corners = [
        cube_around(array, matrix, center, size / VOXELS_PER_DIAMETER)[:: EDGE - 1, :: EDGE - 1, :: EDGE - 1]
        for center, size in zip(centers, sizes, strict=True)
    ]
    expected = [each.mean() * size / VOXELS_PER_DIAMETER for each, size in zip(corners, sizes, strict=True)]
    assert appearance_of(array, matrix, centers, sizes, Corner(), mirrored=True) == pytest.approx(expected, abs=1e-3)
    expected = [each[0, 0, 0] * size / VOXELS_PER_DIAMETER for each, size in zip(corners, sizes, strict=True)]
    assert appearance_of(array, matrix, centers, sizes, Corner()) == pytest.approx(expected, abs=1e-3)


def test_the_shipped_classifier_tells_balls_from_tubes_and_from_lung():
    world, matrix = volume("axial LPS")
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 15.0, world.shape[:3])
    distance = np.linalg.norm(world - np.array(CENTER), axis=-1)
    beside = np.linalg.norm((world - np.array(CENTER))[..., :2], axis=-1)
    ball, tube, nothing = (
        np.round(-850.0 + 900.0 * np.clip(RADIUS - apart + 0.5, 0.0, 1.0) + noise).astype(np.int16)
        for apart in (distance, beside, np.full_like(distance, 99.0))
    )
    said = [float(appearance_of(each, matrix, [CENTER], [2 * RADIUS])[0]) for each in (ball, tube, nothing)]
    assert said[0] > 0 > max(said[1:])
    assert shipped_classifier() is shipped_classifier()


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_a_missing_or_damaged_file_is_named_with_the_cure(monkeypatch, tmp_path, content):
    file = tmp_path / "nodule_classifier.pth"
    if content is not None:
        file.write_bytes(content)

    def resource_path(name):
        if not file.exists():
            raise FileNotFoundError(f"{name} does not come with this installation")
        return file

    monkeypatch.setattr(appearance, "resource_path", resource_path)
    shipped_classifier.cache_clear()
    with pytest.raises(CheckpointError, match=r"nodule_classifier\.pth: install SAMMed3D again"):
        shipped_classifier()
    monkeypatch.undo()
    assert shipped_classifier() is shipped_classifier(), "what failed is not kept"
