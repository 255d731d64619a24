"""Evaluation click by click, with predictors whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from SAMMed3DLib.inference.geometry import label_map
from SAMMed3DTrainingLib.data.clicks import ClickSimulator
from SAMMed3DTrainingLib.evaluate.evaluation import dice, evaluate_nodule

# An oblique, anisotropic, left-handed volume: i, j, k do not run along R, A, S.
MATRIX = np.array(((0.0, -0.6, 0.5, 10.0), (0.8, 0.0, 0.0, -20.0), (0.0, 0.45, 2.0, 30.0), (0.0, 0.0, 0.0, 1.0)))


@dataclass
class Block:
    mask: np.ndarray
    offset_kji: tuple[int, int, int]


@dataclass
class Painter:
    """Answers each click with a ball at the click added to, or cut from, the mask so far; notes what it was given."""

    shape: tuple[int, int, int]
    radius: float
    calls: list[tuple[np.ndarray, np.ndarray, object]] = field(default_factory=list)

    def predict(self, points_ras, labels, *, previous=None):
        self.calls.append((points_ras.copy(), labels.copy(), previous))
        full = np.zeros(self.shape, dtype=np.uint8)
        if previous is not None:
            k, j, i = (slice(a, a + n) for a, n in zip(previous.offset_kji, previous.mask.shape, strict=True))
            full[k, j, i] = previous.mask
        index = np.linalg.inv(MATRIX) @ np.append(points_ras[-1], 1)
        center = index[2::-1]
        np.testing.assert_allclose(center, np.rint(center), atol=1e-6)  # a click is a voxel's center
        grid = np.moveaxis(np.indices(self.shape), 0, -1)
        full[np.linalg.norm(grid - np.rint(center), axis=-1) <= self.radius] = labels[-1]
        used = np.argwhere(full)
        low, high = used.min(axis=0), used.max(axis=0) + 1
        return Block(full[tuple(map(slice, low, high))], tuple(int(value) for value in low))


def ball(shape, center, radius):
    return np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - np.asarray(center), axis=-1) <= radius


SHAPE = (30, 32, 34)


def test_clicks_reach_the_predictor_and_the_dice_is_the_full_volumes():
    truth = ball(SHAPE, (15, 16, 17), 8)
    painter = Painter(SHAPE, 5.0)
    result = evaluate_nodule(painter, truth, MATRIX, 6)
    assert len(result.dice) == 6 and len(result.seconds) == 6
    assert [len(points) for points, _, _ in painter.calls] == [1, 2, 3, 4, 5, 6]
    assert painter.calls[0][2] is None and painter.calls[3][2] is not None
    assert result.labels[0] == 1 and np.array_equal(result.labels, painter.calls[-1][1])
    np.testing.assert_allclose(result.points_ras[0], (MATRIX @ (17, 16, 15, 1))[:3])
    assert result.dice[0] == pytest.approx(dice(truth, ball(SHAPE, (15, 16, 17), 5)))
    assert result.dice[-1] == pytest.approx(dice(truth, label_map({1: result.prediction}, SHAPE)))
    assert result.truth_mm3 == pytest.approx(truth.sum() * abs(np.linalg.det(MATRIX[:3, :3])))
    assert result.volumes_mm3[-1] == pytest.approx(result.prediction.mask.sum() * abs(np.linalg.det(MATRIX[:3, :3])))


def test_negative_clicks_where_too_much_was_marked():
    truth = ball(SHAPE, (15, 16, 17), 5)
    painter = Painter(SHAPE, 9.0)
    result = evaluate_nodule(painter, truth, MATRIX, 2)
    assert list(result.labels) == [1, 0]


def test_block_equals_volume():
    truth = ball(SHAPE, (12, 14, 20), 6)
    whole = evaluate_nodule(Painter(SHAPE, 4.0), truth, MATRIX, 4, ClickSimulator("random", 3))
    block = evaluate_nodule(
        Painter(SHAPE, 4.0), truth[3:22, 5:25, 10:30], MATRIX, 4, ClickSimulator("random", 3), offset_kji=(3, 5, 10)
    )
    assert whole.dice == block.dice
    np.testing.assert_array_equal(whole.points_ras, block.points_ras)


def test_no_error_left_carries_the_dice_forward():
    truth = ball(SHAPE, (15, 16, 17), 5)
    painter = Painter(SHAPE, 5.0)
    result = evaluate_nodule(painter, truth, MATRIX, 5)
    assert result.dice == (1.0,) * 5 and len(result.volumes_mm3) == 5
    assert len(painter.calls) == len(result.seconds) == len(result.points_ras) == 1


def test_first_voxel_and_clock():
    ticks = iter(range(100))
    result = evaluate_nodule(
        Painter(SHAPE, 4.0),
        ball(SHAPE, (15, 16, 17), 8),
        MATRIX,
        3,
        first_voxel=(12, 16, 17),
        clock=lambda: float(next(ticks)),
    )
    np.testing.assert_allclose(result.points_ras[0], (MATRIX @ (17, 16, 12, 1))[:3])
    assert result.seconds == (1.0, 1.0, 1.0)


def test_an_empty_prediction_is_no_match():
    class Nothing:
        def predict(self, points_ras, labels, *, previous=None):
            return Block(np.zeros((1, 1, 1), dtype=np.uint8), (0, 0, 0))

    assert evaluate_nodule(Nothing(), ball(SHAPE, (15, 16, 17), 4), MATRIX, 3).dice == (0.0, 0.0, 0.0)


def test_dice():
    one, two = np.zeros((4, 4)), np.zeros((4, 4))
    assert dice(one, two) == 1.0
    one[:2], two[1:3] = 7, 1
    assert dice(one, two) == 0.5
    assert dice(one, np.zeros((4, 4))) == 0.0
    with pytest.raises(ValueError, match="shape"):
        dice(one, one[:2])


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(ValueError, match="voxels"):
        evaluate_nodule(Painter(SHAPE, 4.0), np.zeros(SHAPE), MATRIX)
    with pytest.raises(ValueError, match="click"):
        evaluate_nodule(Painter(SHAPE, 4.0), np.ones(SHAPE), MATRIX, 0)
