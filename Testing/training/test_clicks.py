"""The click simulator: where clicks go, that they are legal, and that they repeat."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from SAMMed3DTrainingLib.data.clicks import ClickSimulator, bounding_box, interior_distance

METHODS = ("challenge", "random", "jitter")


def ball(shape: tuple[int, ...], center: tuple[float, ...], radius: float, spacing=None) -> np.ndarray:
    step = np.ones(len(shape)) if spacing is None else np.asarray(spacing)
    offsets = (np.moveaxis(np.indices(shape), 0, -1) - np.asarray(center)) * step
    return np.sum(offsets**2, axis=-1) <= radius**2


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.9)])
def test_distance_equals_scipy_with_the_border_outside(spacing):
    rng = np.random.default_rng(3)
    for density in (0.3, 0.9, 1.0):
        mask = ndimage.gaussian_filter(rng.normal(size=(17, 23, 20)), 2) < np.quantile(rng.normal(size=1000), density)
        expected = ndimage.distance_transform_edt(np.pad(mask, 1), spacing)[1:-1, 1:-1, 1:-1]
        np.testing.assert_allclose(interior_distance(mask, spacing), expected, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(30,), (30, 28), (24, 26, 28), (9, 10, 11, 12)])
def test_click_is_on_the_error_and_says_its_sign(method, shape):
    center = tuple(length / 2 for length in shape)
    truth = ball(shape, center, min(shape) / 3)
    shifted = np.roll(truth, 2, axis=0)
    simulator = ClickSimulator(method, seed=1)
    signs = set()
    for prediction in (np.zeros_like(truth), shifted, np.ones_like(truth)) * 10:
        index, positive = simulator.next_click(truth, prediction)
        assert truth[index] != prediction[index]
        assert positive == truth[index]
        assert len(index) == len(shape) and all(type(value) is int for value in index)
        signs.add(positive)
    assert signs == {True, False}


@pytest.mark.parametrize("method", METHODS)
def test_no_error_no_click(method):
    truth = ball((12, 12, 12), (6, 6, 6), 3)
    assert ClickSimulator(method).next_click(truth, truth.astype(np.uint8) * 255) is None


def test_challenge_takes_the_largest_component_and_its_center():
    truth = ball((40, 40, 40), (12, 12, 12), 4)
    wrong = ball((40, 40, 40), (28, 27, 26), 7)
    assert ClickSimulator().next_click(truth, wrong) == ((28, 27, 26), False)
    assert ClickSimulator().next_click(truth, np.zeros_like(truth)) == ((12, 12, 12), True)


def test_components_join_over_corners():
    # Two diagonal runs touch by corners only: together they outweigh the block, apart they do not.
    truth = np.zeros((20, 20, 20), dtype=bool)
    for position in range(12):
        truth[position, position, position] = True
    truth[14:16, 2:4, 2:4] = True
    index, _ = ClickSimulator().next_click(truth, np.zeros_like(truth))
    assert len(set(index)) == 1


def test_border_counts_as_outside():
    truth = np.zeros((20, 20, 20), dtype=bool)
    truth[:9] = True
    index, _ = ClickSimulator().next_click(truth, np.zeros_like(truth))
    assert index[0] == 4


def test_spacing_decides_what_is_deep():
    # A bar of 3 x 9: in voxels its middle row is deepest; with rows 10 mm apart its middle column is.
    truth = np.zeros((3, 21), dtype=bool)
    truth[:, 6:15] = True
    empty = np.zeros_like(truth)
    rows, columns = zip(*(ClickSimulator(seed=seed).next_click(truth, empty)[0] for seed in range(20)), strict=True)
    assert set(rows) == {1} and len(set(columns)) > 3
    rows, columns = zip(
        *(ClickSimulator(seed=seed).next_click(truth, empty, (10.0, 1.0))[0] for seed in range(20)), strict=True
    )
    assert set(columns) == {10} and len(set(rows)) > 1


def test_random_uses_the_inner_half_of_the_deeper_error():
    truth = ball((40, 40, 40), (15, 20, 20), 8)
    prediction = ball((40, 40, 40), (33, 20, 20), 3)
    depth = interior_distance(truth)
    simulator = ClickSimulator("random", seed=5)
    clicks = [simulator.next_click(truth, prediction) for _ in range(60)]
    assert all(positive and depth[index] > depth.max() / 2 for index, positive in clicks)
    assert len({index for index, _ in clicks}) > 30


def test_jitter_scatters_in_millimeters_about_the_center():
    spacing = (2.0, 0.5, 0.5)
    truth = ball((25, 100, 100), (12, 50, 50), 20.0, spacing)
    simulator = ClickSimulator("jitter", seed=2, jitter=0.25)
    clicks = [simulator.next_click(truth, np.zeros_like(truth), spacing)[0] for _ in range(200)]
    offsets = (np.array(clicks) - (12, 50, 50)) * spacing
    assert np.all(np.abs(offsets.mean(axis=0)) < 1.5)
    np.testing.assert_allclose(offsets.std(axis=0), 5.0, rtol=0.25)


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_clicks(method):
    truth = ball((30, 30, 30), (15, 15, 15), 6.5)
    prediction = np.roll(truth, 3, axis=1)
    first, second, other = (
        [simulator.next_click(truth, prediction) for _ in range(8)]
        for simulator in (ClickSimulator(method, 7), ClickSimulator(method, 7), ClickSimulator(method, 8))
    )
    assert first == second
    assert first != other


def test_inputs_are_left_alone():
    truth = ball((20, 20, 20), (10, 10, 10), 5).astype(np.uint8)
    prediction = np.roll(truth, 2, axis=0)
    before = truth.copy(), prediction.copy()
    ClickSimulator("jitter").next_click(truth, prediction)
    assert np.array_equal(truth, before[0]) and np.array_equal(prediction, before[1])


def test_bounding_box_is_tight():
    mask = np.zeros((9, 8, 7), dtype=bool)
    assert bounding_box(mask) is None
    mask[2, 7, 0] = mask[5, 3, 4] = True
    assert bounding_box(mask) == (slice(2, 6), slice(3, 8), slice(0, 5))


@pytest.mark.parametrize(
    "call",
    [
        lambda: ClickSimulator("center"),
        lambda: ClickSimulator("jitter", jitter=0),
        lambda: ClickSimulator().next_click(np.zeros((3, 3)), np.zeros((3, 4))),
        lambda: ClickSimulator().next_click(np.ones((3, 3)), np.zeros((3, 3)), spacing=(1.0,)),
        lambda: ClickSimulator().next_click(np.ones((3, 3)), np.zeros((3, 3)), spacing=(1.0, 0.0)),
    ],
)
def test_bad_arguments_are_refused(call):
    with pytest.raises(ValueError, match=r"\w"):
        call()
