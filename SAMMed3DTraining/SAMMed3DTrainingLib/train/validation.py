"""Validates a network on held-out cases, through the predictor that users click with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from SAMMed3DLib.inference import SamPredictor3D
from SAMMed3DLib.model.sam import Sam3D

from ..data.case_cache import CachedCase
from ..data.clicks import ClickSimulator
from ..data.instances import SIZES, size_group
from ..data.nodule_samples import NoduleSampler
from ..evaluate.evaluation import evaluate_nodule
from .click_loop import ClickLoop

_LOSS_SAMPLES = 16
_LOSS_CLICKS = 3
#: Loss of a size group from which on it is reported.
_FALL = 0.02


@dataclass(frozen=True)
class Validation:
    """The result of an epoch.

    Attributes:
        curves: of each nodule, Dice after each click.
        sizes: of each nodule, the name of its size group.
        loss: that of training, on fixed views of the same nodules.
    """

    curves: tuple[tuple[float, ...], ...]
    sizes: tuple[str, ...]
    loss: float

    @property
    def nodules(self) -> int:
        """The number of nodules."""
        return len(self.curves)

    @property
    def dice(self) -> tuple[float, ...]:
        """Mean over the nodules after each click; () without any nodule."""
        return tuple(float(value) for value in np.mean(self.curves, axis=0)) if self.curves else ()

    @property
    def mean_dice(self) -> float:
        """Mean over the clicks; NaN without any nodule."""
        return float(np.mean(self.dice)) if self.dice else math.nan

    @property
    def scores(self) -> list[float]:
        """Mean Dice over the clicks, one value a nodule."""
        return [float(np.mean(curve)) for curve in self.curves]


@dataclass(frozen=True)
class ValidationGain:
    """The gain of the same nodules from one validation to another, pair by pair.

    Attributes:
        mean: of the nodules' differences in Dice.
        error: its standard error; 0 of one nodule, of which it is not known.
        sizes: by size group its "nodules", mean "dice" and "change".
        falling: groups that lost more than 0.02 and, with several nodules, more than their own standard error.
    """

    mean: float
    error: float
    sizes: dict[str, dict[str, Any]]
    falling: tuple[str, ...]

    @property
    def is_gain(self) -> bool:
        """Whether the nodules gained more than one standard error."""
        return self.mean > self.error


def change_since(start: Sequence[float], now: Validation) -> ValidationGain:
    """Computes the gain of a validation's nodules over their earlier Dice ``start``, one value a nodule."""
    differences = np.array(now.scores) - np.array(start)
    sizes: dict[str, dict[str, Any]] = {}
    falling = []
    for _, name in SIZES:
        own = [n for n, size in enumerate(now.sizes) if size == name]
        if not own:
            continue
        mean, error = _mean_and_error(differences[own])
        sizes[name] = {"nodules": len(own), "dice": float(np.mean([now.scores[n] for n in own])), "change": mean}
        if mean < -max(error, _FALL):
            falling.append(name)
    return ValidationGain(*_mean_and_error(differences), sizes, tuple(falling))


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Computes the mean of some values and its standard error; 0 of one value."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
    return float(np.mean(values)), error


class Validator:
    """Evaluates networks on the same nodules with the same clicks every time.

    Args:
        most_nodules: of more, that many are chosen once.
    """

    def __init__(self, cases: Sequence[CachedCase], clicks: int, most_nodules: int, seed: int) -> None:
        nodules = [(case, n) for case in cases for n in range(len(case.nodules))]
        if len(nodules) > most_nodules:
            chosen = np.random.default_rng([seed, 1]).permutation(len(nodules))[:most_nodules]
            nodules = [nodules[n] for n in sorted(chosen.tolist())]
        self._nodules = nodules
        self._clicks = clicks
        self._seed = seed

    def __len__(self) -> int:
        """Number of nodules."""
        return len(self._nodules)

    @torch.no_grad()
    def validate(self, model: Sam3D) -> Validation:
        """Validates a network in evaluation mode: Dice by click, and loss."""
        predictor = SamPredictor3D(model, cache_bytes=64 * 2**20)
        curves, sizes = [], []
        current = None
        for case, index in self._nodules:
            if case is not current:
                predictor.set_image(case.array_kji, case.ijk_to_ras)
                current = case
            nodule = case.nodules[index]
            result = evaluate_nodule(
                predictor,
                nodule.mask,
                case.ijk_to_ras,
                self._clicks,
                ClickSimulator("challenge", seed=self._seed),
                offset_kji=nodule.offset_kji,
            )
            curves.append(result.dice)
            sizes.append(size_group(nodule.diameter_mm))
        return Validation(tuple(curves), tuple(sizes), self._loss(model))

    def _loss(self, model: Sam3D) -> float:
        losses = []
        for case, index in self._nodules[:_LOSS_SAMPLES]:
            rngs = [np.random.default_rng([self._seed, 2, index, part]) for part in range(2)]
            sample = NoduleSampler([case], model.profile).sample(index, rngs[0])
            losses.append(float(ClickLoop(model)([sample], _LOSS_CLICKS, [rngs[1]])[0]))
        return float(np.mean(losses)) if losses else math.nan
