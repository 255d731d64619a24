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

from SAMMed3DLib.inference.geometry import transform_points, voxel_spacing, voxel_volume

from ..data.clicks import ClickSimulator, bounding_box
from .metrics import AUC_CLICKS, area_under_curve, clicks_to


class Segmentation(Protocol):
    """A mask block [k, j, i] in the volume's voxels and the index of its first voxel."""

    @property
    def mask(self) -> np.ndarray: ...

    @property
    def offset_kji(self) -> tuple[int, int, int]: ...


class Predictor(Protocol):
    """The evaluated predictor: SamPredictor3D, or anything with its ``predict``, the image already set."""

    def predict(self, points_ras: np.ndarray, labels: np.ndarray, *, previous: Any) -> Segmentation: ...


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
    prediction: Segmentation
    predictions: tuple[Segmentation, ...] = ()

    def clicks_to(self, target: float) -> int | None:
        """Number of clicks at which the Dice first reached ``target``; None where it never did."""
        return clicks_to(self.dice, target)

    def area(self, clicks: int = AUC_CLICKS) -> float | None:
        """Area under the Dice over the first ``clicks`` clicks, the challenge's DSC_AUC; None of fewer clicks."""
        return area_under_curve(self.dice, clicks)


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
    truth, origin = truth[box], np.array([part.start for part in box]) + np.asarray(offset_kji, dtype=int)
    simulator = simulator or ClickSimulator("challenge")
    spacing = voxel_spacing(ijk_to_ras)[::-1]
    voxel_mm3 = voxel_volume(ijk_to_ras)
    points, labels, seconds, dices, volumes = [], [], [], [], []
    predictions: list[Segmentation] = []
    previous: Segmentation | None = None
    for _ in range(n_clicks):
        if previous is None and first_voxel is not None:
            voxel, positive = np.asarray(first_voxel, dtype=int), True
        else:
            frame_truth, predicted, start = common_frame(truth, origin, previous)
            click = simulator.next_click(frame_truth, predicted, spacing)
            if click is None:
                break
            voxel, positive = np.asarray(click[0]) + start, click[1]
        points.append(transform_points(ijk_to_ras, voxel[::-1]))
        labels.append(int(positive))
        begun = clock()
        previous = predictor.predict(np.array(points), np.array(labels), previous=previous)
        seconds.append(clock() - begun)
        predictions.append(previous)
        frame_truth, predicted, _ = common_frame(truth, origin, previous)
        dices.append(dice(frame_truth, predicted))
        volumes.append(float(np.count_nonzero(predicted)) * voxel_mm3)
    assert previous is not None  # there was a click
    carried = n_clicks - len(dices)
    return NoduleResult(
        tuple(dices + dices[-1:] * carried),
        tuple(volumes + volumes[-1:] * carried),
        tuple(seconds),
        np.array(points),
        np.array(labels),
        float(truth.sum()) * voxel_mm3,
        previous,
        tuple(predictions),
    )


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
    truth: np.ndarray, origin: np.ndarray, segmentation: Segmentation | None
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
