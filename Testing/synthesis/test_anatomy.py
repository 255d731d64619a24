"""Blurred tubes, random fields, tissue layers and the procedural lung block."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from SAMMed3DLib.synthesis.anatomy import Tubes, grow_tree, layered_tissue, smooth_field, soft_edge, tube_occupancy
from SAMMed3DLib.synthesis.procedural import procedural_block


@pytest.mark.parametrize("radius", [0.4, 1.0, 3.0, 6.0])
def test_tube_equals_a_supersampled_blurred_cylinder(radius):
    sigma, fine = 0.6, 0.1
    j, i = np.meshgrid(np.arange(0, 24, fine), np.arange(0, 24, fine), indexing="ij")
    disk = ((j - 12) ** 2 + (i - 12) ** 2 <= radius**2).astype(float)
    expected = ndimage.gaussian_filter(disk, sigma / fine)[::10, ::10]
    tube = Tubes(np.array([[-10.0, 12, 12]]), np.array([[30.0, 12, 12]]), np.array([radius]))
    seen = tube_occupancy(tube, (3, 24, 24), (5.0, 1.0, 1.0), sigma)
    np.testing.assert_allclose(seen[1], expected, atol=0.03)
    assert seen.dtype == np.float32


def test_tube_follows_its_course_and_keeps_what_is_there():
    tube = Tubes(np.array([[2.0, 3.0, 4.0]]), np.array([[2.0, 3.0, 30.0]]), np.array([1.5]))
    seen = tube_occupancy(tube, (5, 12, 20), (1.0, 0.5, 2.0), 0.3)
    assert seen[2, 6, 2] > 0.99 and seen[2, 6, 15] > 0.99
    assert seen[2, 6, 19] == 0 and seen[2, 0, 8] == 0
    before = np.full((5, 12, 20), 0.5, dtype=np.float32)
    assert tube_occupancy(tube, (5, 12, 20), (1.0, 0.5, 2.0), 0.3, out=before) is before
    assert before.min() == 0.5 and before[2, 6, 8] > 0.99


def test_tree_obeys_murray_and_its_borders():
    rng = np.random.default_rng(0)
    tree = grow_tree(
        rng,
        np.zeros((1, 3)),
        np.array([[0.0, 0.0, 1.0]]),
        np.array([3.0]),
        lambda points: np.abs(points).max(axis=1) < 100,
        minimum_radius=0.5,
        maximum_segments=300,
    )
    assert 50 < len(tree.radii) <= 600
    assert tree.radii.max() == 3.0 and tree.radii.min() >= 0.5
    assert np.abs(tree.starts).max() < 100
    # every segment but the trunk begins where another one ends
    ends = {tuple(end) for end in tree.ends}
    assert all(tuple(start) in ends for start in tree.starts[1:])
    # no generation carries more than its parents: the sum of r^3 over the children of a point is at most theirs
    for start in {tuple(start) for start in tree.starts[1:]}:
        children = tree.radii[(tree.starts == start).all(axis=1)]
        parent = tree.radii[(tree.ends == start).all(axis=1)].max()
        assert np.sum(children**3) <= parent**3 * 1.0001


@pytest.mark.parametrize("correlation", [0.5, 2.0, 8.0])
def test_field_has_unit_variance_and_the_correlation_asked_for(correlation):
    field = smooth_field(np.random.default_rng(1), (60, 70, 80), (1.0, 0.8, 0.5), correlation)
    assert field.shape == (60, 70, 80) and field.dtype == np.float32
    assert abs(field.std() - 1) < (0.02 if correlation < 5 else 0.2)
    near = np.corrcoef(field[:, :, 1:].ravel(), field[:, :, :-1].ravel())[0, 1]
    assert (abs(near) < 0.03) if correlation == 0.5 else near > 0.9


def test_layers_and_edges():
    depth = np.linspace(-10, 20, 301)
    tissue = layered_tissue(depth, [(0.0, -850.0), (0.0, 50.0), (5.0, -100.0)], 0.5)
    assert abs(tissue[50] + 850) < 1 and abs(tissue[125] - 50) < 2 and abs(tissue[-1] + 100) < 1
    assert abs(tissue[100] + 400) < 60
    assert soft_edge(np.array(0.0), 0.5) == 0.5 and soft_edge(np.array(2.0), 0.5) > 0.99


def test_block_is_a_lung():
    rng = np.random.default_rng(4)
    walls, vessels = 0, 0
    for spacing in [(0.7, 0.7, 0.7), (1.25, 0.6, 0.6), (0.4, 0.4, 0.4)] * 8:
        hu, lung = procedural_block(rng, (40, 44, 48), spacing)
        assert hu.shape == lung.shape == (40, 44, 48) and hu.dtype == np.float32 and lung.dtype == bool
        assert np.isfinite(hu).all() and hu.min() >= -1024 and hu.max() < 2000
        assert -1000 < np.median(hu[lung]) < -600
        walls += not lung.all()
        vessels += (hu[ndimage.binary_erosion(lung, iterations=4)] > -300).any()
        beyond = ndimage.binary_erosion(~lung, iterations=2)
        if beyond.sum() > 500:
            assert np.median(hu[beyond]) > -200
    assert 5 <= walls <= 19 and vessels >= 15


def test_block_repeats_with_its_seed():
    one, two, other = (procedural_block(np.random.default_rng(seed), (20, 24, 28), (1, 1, 1))[0] for seed in (3, 3, 4))
    assert np.array_equal(one, two) and not np.array_equal(one, other)
