"""Evaluates a predictor click by click with a simulated user.

The protocol of the CVPR 2025 challenge "Foundation Models for Interactive 3D Biomedical Image Segmentation" with other
first clicks where wanted (RClicks): every click goes where the ClickSimulator sends it, and the Dice after each click
is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from SAMMed3DLib.inference.geometry import PlacedMask, transform_points, voxel_spacing, voxel_volume

from ..data.clicks import ClickSimulator, bounding_box


class Predictor(Protocol):
    """The evaluated predictor: SamPredictor3D, or anything with its ``predict``, the image already set."""

    def predict(self, points_ras: np.ndarray, labels: np.ndarray, *, previous: Any) -> PlacedMask: ...


@dataclass(frozen=True)
class NoduleResult:
    """One nodule, click by click.

    Attributes:
        dice: after each click; once nothing is left to correct, the last one is carried forward.
        volumes_mm3: of the prediction after each click, carried forward likewise.
        seconds: of each click that was really given, so that it may be shorter than ``dice``.
        points_ras: those clicks, (n, 3) mm.
        labels: their signs, (n,), 1 in the object and 0 outside.
        truth_mm3: the reference's volume.
        prediction: the last one.
        predictions: after each click that was really given.
    """

    dice: tuple[float, ...]
    volumes_mm3: tuple[float, ...]
    seconds: tuple[float, ...]
    points_ras: np.ndarray
    labels: np.ndarray
    truth_mm3: float
    prediction: PlacedMask
    predictions: tuple[PlacedMask, ...] = ()

    def after(self, click: int) -> PlacedMask:
        """The mask after so many clicks; the last one where fewer were needed."""
        return self.predictions[min(click, len(self.predictions)) - 1]


class NoduleTrial:
    """Keeps what the clicks on one nodule have given so far, and makes their result.

    Args:
        truth: (nk, nj, ni) bool, the nodule's block.
        origin: its first voxel in the volume.
        ijk_to_ras: the volume's matrix.
        clock: measures the seconds per click.

    Attributes:
        points, labels: all clicks, RAS mm and 1 or 0.
        predictions: the answers.
    """

    def __init__(
        self, truth: np.ndarray, origin: np.ndarray, ijk_to_ras: np.ndarray, clock: Callable[[], float]
    ) -> None:
        self._truth, self._origin, self._clock = truth, origin, clock
        self._voxel_mm3 = voxel_volume(ijk_to_ras)
        self.points: list[np.ndarray] = []
        self.labels: list[int] = []
        self.predictions: list[PlacedMask] = []
        self._dices: list[float] = []
        self._volumes: list[float] = []
        self._seconds: list[float] = []

    @property
    def previous(self) -> PlacedMask | None:
        """The latest answer."""
        return self.predictions[-1] if self.predictions else None

    def frame(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Truth and latest answer as bool arrays of the smallest block that holds both, and its first voxel."""
        return common_frame(self._truth, self._origin, self.previous)

    def ask(self, predict: Callable[..., PlacedMask], **more: Any) -> None:
        """Shows all clicks to a predictor's ``predict``, with further arguments of it, and scores the answer."""
        points, labels = np.reshape(self.points, (-1, 3)), np.array(self.labels, int)
        begun = self._clock()
        self.predictions.append(predict(points, labels, previous=self.previous, **more))
        self._seconds.append(self._clock() - begun)
        truth, predicted, _ = self.frame()
        self._dices.append(dice(truth, predicted))
        self._volumes.append(float(np.count_nonzero(predicted)) * self._voxel_mm3)

    def result(self, clicks: int) -> NoduleResult:
        """The result, with the last figures carried forward to so many clicks."""
        carried = clicks - len(self._dices)
        return NoduleResult(
            tuple(self._dices + self._dices[-1:] * carried),
            tuple(self._volumes + self._volumes[-1:] * carried),
            tuple(self._seconds),
            np.reshape(self.points, (-1, 3)),
            np.array(self.labels, int),
            float(self._truth.sum()) * self._voxel_mm3,
            self.predictions[-1],
            tuple(self.predictions),
        )


def evaluate_nodule(
    predictor: Predictor,
    truth_kji: np.ndarray,
    ijk_to_ras: np.ndarray,
    n_clicks: int = 5,
    simulator: ClickSimulator | None = None,
    *,
    offset_kji: Sequence[int] = (0, 0, 0),
    first_voxel: Sequence[int] | np.ndarray | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> NoduleResult:
    """Clicks on one nodule until it is right or ``n_clicks`` are used up.

    Args:
        predictor: its image has been set.
        truth_kji: the nodule, non-zero inside; the whole volume or a block of it.
        ijk_to_ras: the volume's matrix, 4x4, (i, j, k) to RAS mm.
        n_clicks: most clicks.
        simulator: where clicks go; None takes ClickSimulator("challenge", seed=0).
        offset_kji: first voxel of ``truth_kji`` in the volume, where it is a block.
        first_voxel: (k, j, i) in the volume of the first click; None leaves it to the simulator.
        clock: measures the seconds per click.

    Raises:
        ValueError: no voxel of the nodule, or no click is wanted.
    """
    truth = np.asarray(truth_kji) != 0
    box = bounding_box(truth)
    if box is None or n_clicks < 1:
        raise ValueError("evaluation needs a nodule with voxels and at least one click")
    origin = np.array([part.start for part in box]) + np.asarray(offset_kji, dtype=int)
    simulator = simulator or ClickSimulator("challenge")
    spacing = voxel_spacing(ijk_to_ras)[::-1]
    trial = NoduleTrial(truth[box], origin, ijk_to_ras, clock)
    for _ in range(n_clicks):
        if trial.previous is None and first_voxel is not None:
            voxel, positive = np.asarray(first_voxel, dtype=int), True
        else:
            frame_truth, predicted, start = trial.frame()
            click = simulator.next_click(frame_truth, predicted, spacing)
            if click is None:
                break
            voxel, positive = np.asarray(click[0]) + start, click[1]
        trial.points.append(transform_points(ijk_to_ras, voxel[::-1]))
        trial.labels.append(int(positive))
        trial.ask(predictor.predict)
    return trial.result(n_clicks)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice coefficient 2 |A and B| / (|A| + |B|) of two masks of one shape; 1 where both are empty.

    Raises:
        ValueError: shapes differ.
    """
    first, second = np.asarray(first) != 0, np.asarray(second) != 0
    if first.shape != second.shape:
        raise ValueError(f"masks differ in shape: {first.shape} and {second.shape}")
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 1.0 if total == 0 else float(2 * np.count_nonzero(first & second) / total)


def common_frame(
    truth: np.ndarray, origin: np.ndarray, segmentation: PlacedMask | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth and prediction as bool arrays of the smallest block that holds both, and the block's first voxel."""
    if segmentation is None:
        return truth, np.zeros_like(truth), origin
    mask, offset = np.asarray(segmentation.mask) != 0, np.asarray(segmentation.offset_kji, dtype=int)
    start = np.minimum(origin, offset)
    stop = np.maximum(origin + truth.shape, offset + mask.shape)
    frames = []
    for values, first in ((truth, origin), (mask, offset)):
        frame = np.zeros(tuple(stop - start), dtype=bool)
        frame[tuple(slice(a, a + n) for a, n in zip(first - start, values.shape, strict=True))] = values
        frames.append(frame)
    return frames[0], frames[1], start
