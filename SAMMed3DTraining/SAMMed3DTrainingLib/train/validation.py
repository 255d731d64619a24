"""How good a network is on the cases held out for validation: through the very predictor that users click with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from SAMMed3DLib.inference import SamPredictor3D
from SAMMed3DLib.model.sam import Sam3D

from ..data.case_cache import CachedCase
from ..data.nodule_samples import NoduleSampler
from ..evaluate.clicks import ClickSimulator
from ..evaluate.evaluation import evaluate_nodule
from .click_loop import ClickLoop

_LOSS_SAMPLES = 16
_LOSS_CLICKS = 3


@dataclass(frozen=True)
class Validation:
    """The result of an epoch.

    Attributes:
        dice: mean over the nodules after each click.
        loss: that of training, on fixed views of the same nodules.
        nodules: how many.
    """

    dice: tuple[float, ...]
    loss: float
    nodules: int

    @property
    def mean_dice(self) -> float:
        """Mean over the clicks; NaN without any nodule."""
        return float(np.mean(self.dice)) if self.dice else math.nan


class Validator:
    """Evaluates networks on the same nodules with the same clicks every time.

    Args:
        cases: held out.
        clicks: of each nodule.
        most_nodules: of more, that many are chosen once.
        seed: of the choice and the views.
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
        """Dice by click and loss of a network in evaluation mode."""
        predictor = SamPredictor3D(model, cache_bytes=64 * 2**20)
        curves = []
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
        dice = tuple(float(value) for value in np.mean(curves, axis=0)) if curves else ()
        return Validation(dice, self._loss(model), len(curves))

    def _loss(self, model: Sam3D) -> float:
        losses = []
        for case, index in self._nodules[:_LOSS_SAMPLES]:
            rngs = [np.random.default_rng([self._seed, 2, index, part]) for part in range(2)]
            sample = NoduleSampler([case], model.profile).sample(index, rngs[0])
            losses.append(float(ClickLoop(model)([sample], _LOSS_CLICKS, [rngs[1]])[0]))
        return float(np.mean(losses)) if losses else math.nan
