"""Slices of volumes in any orientation, and a 2D model prompted slice by slice, whose answers are known."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest

from SAMMed3DTrainingLib.data.clicks import ClickSimulator
from SAMMed3DTrainingLib.evaluate.evaluation import dice
from SAMMed3DTrainingLib.evaluate.slicewise import AxialSlices, SlicewisePredictor, evaluate_slices

SHAPE = (12, 20, 24)
SPACING = (2.0, 0.9, 0.7)  # k, j, i of a scan that runs to R, A, S


def oriented(order: tuple[int, int, int], signs: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A volume whose values are S, A, R index numbers, stored along other axes, and its matrix."""
    s, a, r = np.indices(SHAPE)
    volume = (s * 10000 + a * 100 + r).astype(np.int32)
    matrix = np.diag((*SPACING[::-1], 1.0))
    matrix[:3, 3] = (-5.0, 3.0, 40.0)
    stored = volume.transpose(order)
    columns = [matrix[:3, 2 - axis] for axis in order]  # of the stored array's k, j, i
    origin = matrix[:3, 3].copy()
    for axis, sign in enumerate(signs):
        if sign < 0:
            stored = np.flip(stored, axis)
            origin += columns[axis] * (stored.shape[axis] - 1)
            columns[axis] = -columns[axis]
    result = np.eye(4)
    result[:3, :3] = np.stack(columns[::-1], axis=1)
    result[:3, 3] = origin
    return stored, result


ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in ((1, 1, 1), (1, -1, -1), (-1, 1, -1))
]


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_slices_look_the_same_however_they_are_stored(order, signs):
    array, matrix = oriented(order, signs)
    slices = AxialSlices(array, matrix)
    assert slices.shape == SHAPE and slices.pixel_mm == pytest.approx((0.9, 0.7))
    numbers = np.stack([slices.slice_hu(n) for n in range(slices.shape[0])])
    # Rows run to the back, columns to the left.
    assert np.all(np.diff(numbers // 100 % 100, axis=1) == -1) and np.all(np.diff(numbers % 100, axis=2) == -1)
    index = np.array([[3, 4, 5], [0, 19, 23]])
    ras = slices.ras_of(index)
    assert np.array_equal(slices.index_of(ras), index)
    for place, point in zip(index, ras, strict=True):
        value = slices.view(array)[tuple(place)]
        expected = np.array([value % 100 * 0.7 - 5.0, value // 100 % 100 * 0.9 + 3.0, value // 10000 * 2.0 + 40.0])
        np.testing.assert_allclose(point, expected)
    mask = np.zeros(SHAPE, bool)
    mask[2:4, 5:9, 7:8] = True
    block, offset = slices.block((2, 5, 7), mask[2:4, 5:9, 7:8])
    full = np.zeros(array.shape, np.uint8)
    full[tuple(slice(a, a + n) for a, n in zip(offset, block.shape, strict=True))] = block
    assert np.array_equal(slices.view(full) > 0, mask)


@dataclass
class Answer:
    mask: np.ndarray
    logits: object


@dataclass
class Discs:
    """Paints a disc of a radius at every positive click, cuts one at every negative click, fills a box."""

    radius: float
    encoded: list[int] = field(default_factory=list)
    calls: list[tuple[np.ndarray, np.ndarray, object, object]] = field(default_factory=list)

    def encode(self, slice_hu):
        self.encoded.append(int(slice_hu[0, 0]) // 10000)
        return slice_hu

    def decode(self, embedding, shape, points_xy, positive, box_xyxy, previous):
        self.calls.append((points_xy.copy(), positive.copy(), box_xyxy, previous))
        rows, columns = np.indices(shape)
        mask = np.zeros(shape, bool)
        if box_xyxy is not None:
            x0, y0, x1, y1 = box_xyxy
            mask = (columns > x0) & (columns < x1) & (rows > y0) & (rows < y1)
        for (x, y), sign in zip(points_xy, positive, strict=True):
            mask[np.hypot(rows - y, columns - x) <= self.radius] = sign
        return Answer(mask, len(points_xy))


def nodule(radius: float = 4.0) -> np.ndarray:
    grid = np.moveaxis(np.indices(SHAPE), 0, -1)
    return np.linalg.norm((grid - (6, 10, 12)) * SPACING, axis=-1) <= radius


def predictor(model: Discs) -> SlicewisePredictor:
    made = SlicewisePredictor(model)
    made.set_image(*oriented((0, 1, 2), (1, 1, 1)))
    return made


def test_each_click_counts_in_its_slice_and_slices_are_encoded_once():
    model = Discs(3.0)
    sliced = predictor(model)
    first = sliced.predict(sliced.slices.ras_of([[5, 10, 12], [7, 8, 9]]), [1, 1])
    assert sorted(model.encoded) == [5, 7] and first.mask.shape[0] == 3
    assert not first.mask[1].any() and first.mask[0].any() and first.mask[2].any()
    points = sliced.slices.ras_of([[5, 10, 12], [7, 8, 9], [5, 10, 15]])
    second = sliced.predict(points, [1, 1, 0], previous=first)
    assert sorted(model.encoded) == [5, 7] and len(model.calls) == 3
    clicks, signs, box, logits = model.calls[-1]
    assert clicks.tolist() == [[12, 10], [15, 10]] and signs.tolist() == [True, False] and box is None and logits == 1
    assert second.answers[7] is first.answers[7]
    replayed = sliced.predict(points, [1, 1, 0])
    assert np.array_equal(replayed.mask, second.mask) and replayed.offset_kji == second.offset_kji


def test_a_slice_with_only_negative_clicks_stays_empty():
    sliced = predictor(Discs(3.0))
    empty = sliced.predict(sliced.slices.ras_of([[5, 10, 12]]), [0])
    assert empty.mask.shape == (1, 1, 1) and not empty.mask.any()


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::5])
def test_every_slice_of_the_nodule_gets_its_click(order, signs):
    array, matrix = oriented(order, signs)
    truth = np.flip(nodule().transpose(order), [axis for axis, sign in enumerate(signs) if sign < 0])
    model = Discs(4.5)
    sliced = SlicewisePredictor(model)
    sliced.set_image(array, matrix)
    result = evaluate_slices(sliced, truth, (0, 0, 0), 3, ClickSimulator("challenge"))
    touched = int(nodule().any(axis=(1, 2)).sum())
    assert len(model.calls[:touched]) == touched and all(len(call[0]) == 1 for call in model.calls[:touched])
    assert touched < len(result.points_ras) <= 3 * touched
    full = np.zeros(array.shape, bool)
    block = result.prediction
    full[tuple(slice(a, a + n) for a, n in zip(block.offset_kji, block.mask.shape, strict=True))] = block.mask
    assert result.dice[-1] == pytest.approx(dice(truth, full))
    assert result.dice[0] > 0.6 and len(result.dice) == 3 and len(result.predictions) == len(result.seconds) == 3
    assert result.truth_mm3 == pytest.approx(truth.sum() * 2.0 * 0.9 * 0.7)


def test_a_block_of_the_volume_is_enough():
    sliced = predictor(Discs(3.0))
    whole = evaluate_slices(sliced, nodule(), (0, 0, 0), 2, ClickSimulator("random", 1))
    block = evaluate_slices(sliced, nodule()[3:10, 4:17, 5:20], (3, 4, 5), 2, ClickSimulator("random", 1))
    assert whole.dice == block.dice
    np.testing.assert_array_equal(whole.points_ras, block.points_ras)


def test_other_first_clicks():
    sliced = predictor(Discs(1.0))
    plain = evaluate_slices(sliced, nodule(), (0, 0, 0), 1, ClickSimulator("challenge"))
    other = evaluate_slices(
        sliced, nodule(), (0, 0, 0), 1, ClickSimulator("challenge"), first=ClickSimulator("random", 3)
    )
    assert not np.array_equal(plain.points_ras, other.points_ras)


def test_a_box_covers_the_slices_part_exactly():
    truth = np.zeros(SHAPE, bool)
    truth[4:6, 5:9, 7:13] = True
    sliced = predictor(Discs(1.0))
    result = evaluate_slices(sliced, truth, (0, 0, 0), 3, ClickSimulator("challenge"), prompt="box")
    assert result.dice == (1.0,) * 3 and len(result.points_ras) == 0 and len(result.seconds) == 1


def test_clicks_follow_a_box_only_where_the_model_takes_them():
    for corrects, calls in ((True, 2), (False, 1)):
        model = Discs(1.5)
        truth = np.zeros(SHAPE, bool)
        truth[4, 5:9, 7:13] = True
        truth[4, 5, 7] = False
        result = evaluate_slices(
            predictor(model), truth, (0, 0, 0), 2, ClickSimulator("challenge"), prompt="box", corrects_boxes=corrects
        )
        assert len(model.calls) == calls and len(result.points_ras) == calls - 1 and len(result.dice) == 2


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(ValueError, match="voxels"):
        evaluate_slices(predictor(Discs(1.0)), np.zeros(SHAPE), (0, 0, 0), 1, ClickSimulator())
    with pytest.raises(RuntimeError, match="set_image"):
        SlicewisePredictor(Discs(1.0)).predict([(0, 0, 0)], [1])
