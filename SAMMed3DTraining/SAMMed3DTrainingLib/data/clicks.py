"""Simulates clicks: training, evaluation and benchmarks ask it where a user would click next.

Methods, and where they come from:

* ``"challenge"``: the most interior voxel of the largest 26-connected component of the error, as in the evaluation of
  the CVPR 2025 challenge "Foundation Models for Interactive 3D Biomedical Image Segmentation".
* ``"random"``: the deeper of the missed and of the wrongly marked voxels (by the maximum of the distance transform),
  a random voxel of its inner half, as RITM trains (Sofiiuk et al., ICIP 2022).
* ``"jitter"``: the challenge's click as a hand places it: displaced by a Gaussian, but still on the error that the
  user aims at (RClicks, Antonov et al., NeurIPS 2024: clicks in the very center overrate a model).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from SAMMed3DLib.inference.mask_regions import components

ClickMethod = Literal["challenge", "random", "jitter"]
Click = tuple[tuple[int, ...], bool]


class ClickSimulator:
    """Says where the next click goes, given the truth and what has been predicted so far.

    Args:
        seed: seed, or a numpy Generator to draw from. The same seed and the same masks give the same clicks.
        jitter: standard deviation of the "jitter" method, as a fraction of the error component's inscribed radius.

    Raises:
        ValueError: unknown method, or a jitter that is not positive.
    """

    def __init__(
        self, method: str = "challenge", seed: int | np.random.Generator | None = 0, jitter: float = 0.5
    ) -> None:
        if method not in get_args(ClickMethod):
            raise ValueError(f"unknown click method {method!r}; there are: {', '.join(get_args(ClickMethod))}")
        if not jitter > 0:
            raise ValueError(f"jitter must be positive, not {jitter}")
        self.method = method
        self.jitter = jitter
        self._rng = np.random.default_rng(seed)

    def next_click(
        self, truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float] | np.ndarray | None = None
    ) -> Click | None:
        """The next click; the first one has an empty prediction.

        Args:
            truth, prediction: masks of one shape, any number of axes, non-zero inside the object.
            spacing: voxel size along each axis of the arrays, in mm; None counts in voxels.

        Returns:
            (index, positive): one index per axis, and True where the object was missed, False where there is none;
            None when truth and prediction agree everywhere.

        Raises:
            ValueError: shapes differ, or the spacing does not fit them.
        """
        truth, prediction = _mask(truth), _mask(prediction)
        if truth.shape != prediction.shape:
            raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} differ in shape")
        step = _spacing(spacing, truth.ndim)
        box = bounding_box(truth != prediction)
        if box is None:
            return None
        choose = self._random if self.method == "random" else self._center
        local = choose(truth[box], prediction[box], step)
        index = tuple(int(position) + part.start for position, part in zip(local, box, strict=True))
        return index, bool(truth[index])

    def _center(self, truth: np.ndarray, prediction: np.ndarray, step: tuple[float, ...]) -> np.ndarray:
        component = largest_component(truth != prediction)
        distance = interior_distance(component, step)
        deepest = distance.max()
        center = self._pick(distance >= deepest * (1 - 1e-6))
        if self.method == "challenge":
            return center
        # A Gaussian cut off at the component's edge, drawn from the component's own voxels: nothing to reject.
        voxels = np.argwhere(component)
        offsets = (voxels - center) * np.asarray(step)
        weights = np.exp(-0.5 * np.sum(offsets**2, axis=1) / (self.jitter * deepest) ** 2)
        return voxels[self._rng.choice(len(voxels), p=weights / weights.sum())]

    def _random(self, truth: np.ndarray, prediction: np.ndarray, step: tuple[float, ...]) -> np.ndarray:
        missed = interior_distance(truth & ~prediction, step)
        wrong = interior_distance(prediction & ~truth, step)
        distance = missed if missed.max() >= wrong.max() else wrong
        return self._pick(distance > distance.max() / 2)

    def _pick(self, candidates: np.ndarray) -> np.ndarray:
        flat = np.flatnonzero(candidates)
        return np.asarray(np.unravel_index(flat[self._rng.integers(len(flat))], candidates.shape))


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest component of a boolean mask, voxels touching by face, edge or corner (26-connected in 3D)."""
    labels, count = components(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """Smallest block that holds every True voxel, or None when there is none."""
    box = []
    for axis in range(mask.ndim):
        # Each axis looks only at the block that the axes before it have left.
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(used):
            return None
        part = slice(int(used[0]), int(used[-1]) + 1)
        mask = mask[(slice(None),) * axis + (part,)]
        box.append(part)
    return tuple(box)


def interior_distance(mask: np.ndarray, spacing: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
    """Exact Euclidean distance of each True voxel to the nearest voxel outside; the array's border counts as outside.

    One axis at a time, as the lower envelope of parabolas (Felzenszwalb and Huttenlocher, 2012), taken by shifted
    minima: no parabola from further away than the largest distance so far can matter, so that the small masks of
    click simulation cost a fraction of a general transform.

    Args:
        mask: boolean, any number of axes.
        spacing: voxel size along each axis; None counts in voxels.

    Returns:
        float32 array of the mask's shape, 0 outside.
    """
    step = _spacing(spacing, mask.ndim)
    squared = _squared_distance_along_last_axis(mask, step[-1])
    for axis in range(mask.ndim - 1):
        lines = np.moveaxis(squared, axis, 0)
        # The border: a voxel at position p is p + 1 steps from it.
        position = np.arange(1, len(lines) + 1, dtype=np.float32)
        border = (np.minimum(position, position[::-1]) * step[axis]) ** 2
        envelope = np.minimum(lines, border.reshape((-1,) + (1,) * (mask.ndim - 1)))
        for shift in range(1, len(lines)):
            height = (shift * step[axis]) ** 2
            if height >= envelope.max():
                break
            raised = lines + np.float32(height)
            np.minimum(envelope[shift:], raised[:-shift], out=envelope[shift:])
            np.minimum(envelope[:-shift], raised[shift:], out=envelope[:-shift])
        squared = np.moveaxis(envelope, 0, axis)
    return np.sqrt(squared)


def _squared_distance_along_last_axis(mask: np.ndarray, step: float) -> np.ndarray:
    length = mask.shape[-1]
    position = np.arange(length, dtype=np.int32)
    before = np.maximum.accumulate(np.where(mask, np.int32(-1), position), axis=-1)
    after = np.minimum.accumulate(np.where(mask, np.int32(length), position)[..., ::-1], axis=-1)[..., ::-1]
    return (np.minimum(position - before, after - position).astype(np.float32) * np.float32(step)) ** 2


def _mask(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return values if values.dtype == bool else values != 0


def _spacing(spacing: Sequence[float] | np.ndarray | None, axes: int) -> tuple[float, ...]:
    step = (1.0,) * axes if spacing is None else tuple(float(value) for value in spacing)
    if len(step) != axes or not all(np.isfinite(value) and value > 0 for value in step):
        raise ValueError(f"spacing must be {axes} positive numbers, not {spacing}")
    return step
