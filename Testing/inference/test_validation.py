from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.inference import InputError, SamPredictor3D
from SAMMed3DLib.inference.validation import check_box, check_image, check_points, hounsfield_doubt, looks_like_labels

from .fakes import ThresholdModel
from .volumes import grid, rotation

SHAPE = (20, 30, 40)
MATRIX = grid(SHAPE, (1.0, 1.0, 2.0))


def broken(value):
    array = np.zeros(SHAPE, np.float32)
    array[7, 3, 2] = value
    return array


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 20, 30, 40), np.int16), "4D"),
        (np.zeros((20, 30, 40, 3), np.uint8), "RGB"),
        (np.zeros((64, 64, 3), np.uint8), "RGB"),
        (np.zeros((30, 40), np.int16), r"\(1, j, i\)"),
        (np.zeros((0, 3, 3), np.int16), "empty"),
        (np.zeros((3, 3, 3), complex), "plain numbers"),
        (np.full((3, 3, 3), "a"), "plain numbers"),
        (np.zeros((3, 3, 3), [("r", "u1"), ("g", "u1"), ("b", "u1")]), "plain numbers"),
        (broken(np.nan), "NaN or infinite.*slice 7"),
        (broken(np.inf), "NaN or infinite"),
        (broken(-np.inf).astype(np.float64), "NaN or infinite"),
    ],
)
def test_unusable_volumes(array, words):
    with pytest.raises(InputError, match=words):
        check_image(array)
    with pytest.raises(InputError, match=words):
        SamPredictor3D(ThresholdModel()).set_image(array, MATRIX)


def labels_of(*values, dtype):
    array = np.zeros(SHAPE, dtype)
    for index, value in enumerate(values):
        array[index + 3, 5:9, 5:9] = value
    return array


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (labels_of(1, dtype=np.uint8), True),
        (labels_of(255, dtype=np.uint8), True),
        (labels_of(1, 2, 3, 9, dtype=np.int16), True),
        (labels_of(1, dtype=np.int64), True),
        (labels_of(1, dtype=bool), True),
        (labels_of(1, 2, dtype=np.uint16)[::-1, :, ::-1], True),
        (np.zeros(SHAPE, np.int16), False),
        (np.full(SHAPE, 3, np.uint8), False),
        (labels_of(100, dtype=np.int16), False),
        (labels_of(-1000, dtype=np.int16), False),
        (labels_of(1, dtype=np.float32), False),
        (np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8), False),
        (np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16), False),
    ],
)
def test_labels_are_told_from_images(array, expected):
    assert looks_like_labels(array) is expected
    if expected:
        with pytest.raises(InputError, match="pick the CT"):
            check_image(array)
    else:
        check_image(array)


def test_large_finite_values_are_not_infinite():
    check_image(np.full((4, 4, 4), 3e38, np.float32))


def test_the_volume_is_not_copied():
    array = np.zeros(SHAPE, np.int16)[::-1]
    assert np.shares_memory(check_image(array), array)


def test_a_point_outside_names_itself_and_the_volume():
    words = r"R 100\.0, A 0\.0, S 5\.0.*R -20\.5 to 19\.5, A -15\.5 to 14\.5, S -21\.0 to"
    with pytest.raises(InputError, match=words):
        check_points([[0, 0, 0], [100.0, 0.0, 5.0]], [1, 1], SHAPE, MATRIX)


def test_a_point_in_the_bounding_box_of_an_oblique_volume_is_still_outside():
    matrix = grid(SHAPE, (1.0, 1.0, 2.0), rotation(45.0))
    with pytest.raises(InputError, match="outside"):
        check_points([[-20.0, -20.0, 0.0]], [1], SHAPE, matrix)


@pytest.mark.parametrize(
    ("points", "labels", "words"),
    [
        ([[np.nan, 0, 0]], [1], "NaN"),
        ([[0, 0, np.inf]], [1], "NaN or infinite"),
        ([[0, 0]], [1], r"\(n, 3\)"),
        ([["a", 0, 0]], [1], "numbers"),
        ([[0, 0, 0]], [2], "1 .inside. or 0"),
        ([[0, 0, 0]], [-1], "1 .inside. or 0"),
        ([[0, 0, 0]], [1, 0], "1 points need as many labels, not 2"),
        (None, [1], "without points"),
    ],
)
def test_unusable_points(points, labels, words):
    with pytest.raises(InputError, match=words):
        check_points(points, labels, SHAPE, MATRIX)


def test_usable_points():
    points, positive = check_points([0, 1, 2], None, SHAPE, MATRIX)
    assert points.tolist() == [[0, 1, 2]] and positive.tolist() == [True]
    points, positive = check_points([[0, 1, 2], [3, 4, 5]], [True, 0], SHAPE, MATRIX)
    assert positive.tolist() == [True, False]
    assert check_points(None, None, SHAPE, MATRIX)[0].shape == (0, 3)
    assert check_points([], [], SHAPE, MATRIX)[0].shape == (0, 3)


def test_boxes():
    assert check_box([5, -2, 3, -5, 2, -3], SHAPE, MATRIX).tolist() == [[-5, -2, -3], [5, 2, 3]]
    for box, words in [
        ([0, 0, 0, 1, 1], "six numbers"),
        ([0, 0, 0, 1, 1, np.nan], "NaN"),
        ([0, 0, 0, 1, 0, 1], "no extent"),
        ([200, 0, 0, 240, 5, 5], "outside"),
    ]:
        with pytest.raises(InputError, match=words):
            check_box(box, SHAPE, MATRIX)


def test_labels_may_be_a_column():
    points, positive = check_points([(0, 0, 0), (1, 1, 1)], [[1], [0]], (9, 9, 9), np.eye(4))
    assert points.shape == (2, 3) and positive.tolist() == [True, False]


def chest_like(dtype=np.int16):
    """Air, lung, soft tissue and bone with noise, as HU."""
    rng = np.random.default_rng(2)
    return (rng.choice([-1000, -850, 40, 500], SHAPE, p=[0.3, 0.3, 0.3, 0.1]) + rng.normal(0, 15, SHAPE)).astype(dtype)


def padded(array, value=-3024):
    array = array.copy()
    array[:, :9] = value
    return array


@pytest.mark.parametrize(
    "make",
    [
        chest_like,
        lambda: chest_like(np.float32),
        lambda: padded(chest_like()),
        lambda: padded(chest_like(), -32768),
        lambda: np.minimum(chest_like(np.int32) * 1, 30000),
        lambda: broken(np.nan),
    ],
)
def test_hounsfield_units_raise_no_doubt(make):
    assert not hounsfield_doubt(make())


@pytest.mark.parametrize(
    ("change", "text", "certain"),
    [
        (lambda hu: (hu - hu.mean()) / hu.std(), "normalization", True),
        (lambda hu: np.clip((hu + 1000) / 1400, 0, 1), "normalization", True),
        (lambda hu: hu / 1000, "normalization", True),
        (lambda hu: (np.clip((hu + 1000) / 1400, 0, 1) * 255).astype(np.uint8), "8 bit", True),
        (lambda hu: np.clip((hu + 1000) / 1400, 0, 1) * 255, "8 bit", True),
        (lambda hu: (np.clip(hu, -160, 240) / 2).astype(np.int8), "8 bit", True),
        (lambda hu: hu * 1e38, "beyond any tissue", True),
        (lambda hu: np.full(SHAPE, -1000.0), "-1000 everywhere", True),
        (lambda hu: hu + 1100, "no negative values", False),
        (lambda hu: (hu + 1100).astype(np.uint16), "no negative values", False),
        (lambda hu: np.clip(hu, -160, 240), "nothing in it is as dark as lung", False),
        (lambda hu: hu - 1024, "darker than air", False),
        (lambda hu: padded(hu - 1024, -4048.0), "darker than air", False),
    ],
)
def test_what_cannot_be_hounsfield_units_is_doubted(change, text, certain):
    doubt = hounsfield_doubt(change(chest_like(np.float64)))
    assert text in doubt.text
    assert doubt.is_certain == certain
    assert "Hounsfield" in str(doubt)


def test_a_bright_spot_between_the_sampled_voxels_counts():
    array = np.zeros((130, 130, 130), np.float32)
    array[1, 1, 1], array[1, 1, 3] = -1000, 40  # neither lies among the voxels of the sample
    assert not hounsfield_doubt(array)


def test_the_api_warns_of_a_volume_in_other_units():
    predictor = SamPredictor3D(ThresholdModel())
    with pytest.warns(UserWarning, match="no negative values.*Hounsfield"):
        predictor.set_image(chest_like() + 1100, MATRIX)
