"""How likely a mask is a nodule: a calibrated probability, and the slider that trades misses for false positives.

One logistic regression over the features of a look (:mod:`.nodule_features`), their squares and products, and the
response of the blob filter that named the place (:mod:`.candidates`). What it was fitted on is said beside its
coefficients (:mod:`.nodule_score_coefficients`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import nodule_score_coefficients as coefficients
from .nodule_features import LookFeatures

#: What the regression sees first, in order; :func:`basic_inputs` computes it.
BASIC = (
    "iou", "stability", "diameter", "elongation", "slenderness", "compactness", "growth", "off_center", "contrast",
    "density", "continued", "outside", "wall",
)
#: Those whose squares and products it sees too.
COMBINED = ("iou", "stability", "diameter", "compactness", "growth", "contrast", "density", "wall")
PAIRS = tuple(itertools.combinations_with_replacement([BASIC.index(name) for name in COMBINED], 2))
_FARTHEST = 3.0


def basic_inputs(features: LookFeatures) -> NDArray[np.float64]:
    """The features as the regression takes them, each bounded and about of size one."""
    iou = min(max(features.predicted_iou, 0.01), 0.99)
    return np.array([
        math.log(iou / (1.0 - iou)),
        4.0 * features.stability,
        math.log(features.diameter_mm / 8.0),
        math.log(features.elongation),
        math.log(features.slenderness),
        4.0 * features.compactness,
        min(features.growth, 4.0),
        min(features.off_center, 2.0),
        features.contrast_hu / 200.0,
        features.mean_hu / 200.0,
        3.0 * features.continued,
        2.0 * features.outside_lung,
        2.0 * features.near_wall,
    ])


def combined(standardized: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardized basic inputs (..., n), bounded, with the products of :data:`PAIRS` behind them."""
    bounded = np.clip(standardized, -_FARTHEST, _FARTHEST)
    first, second = zip(*PAIRS, strict=True)
    return np.concatenate([bounded, bounded[..., first] * bounded[..., second]], axis=-1)


@dataclass(frozen=True)
class NoduleScore:
    """The regression.

    Attributes:
        mean, scale: (n,) of the basic inputs.
        weights: of the standardized inputs and their products.
        intercept: added to them.
        response_weight: of the blob filter's response.
        usual_response: taken where there is none.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    response_weight: float = 0.0
    usual_response: float = 0.0

    def log_odds(self, features: LookFeatures) -> float:
        """Natural log of the odds that a look shows a nodule, the blob filter not yet asked."""
        inputs = combined((basic_inputs(features) - self.mean) / self.scale)
        return float(inputs @ self.weights) + self.intercept

    def __call__(self, *looks: LookFeatures, response: float = math.nan) -> float:
        """Probability in 0..1 that an object is a nodule.

        Args:
            looks: at it; the mean of their log odds counts.
            response: of the blob filter there; NaN where it was not asked.
        """
        mean = sum(self.log_odds(look) for look in looks) / len(looks)
        return probability(mean + self.response_weight * (self.usual_response if math.isnan(response) else response))


def probability(log_odds: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1.0 / (1.0 + math.exp(-min(max(log_odds, -30.0), 30.0)))


DEFAULT_SCORE = NoduleScore(
    coefficients.MEAN, coefficients.SCALE, coefficients.WEIGHTS, coefficients.INTERCEPT, coefficients.RESPONSE_WEIGHT,
    coefficients.USUAL_RESPONSE,
)

#: Scores below this are hardly ever nodules; the slider's "more" goes no further.
LOWEST_SCORE = 0.01

_SLIDER = {
    # how far the slider stands from "fewer" to "more": the lowest score that is shown
    "probability": ((0.0, coefficients.FEW), (0.5, coefficients.USUAL), (1.0, LOWEST_SCORE)),
    "stability": ((0.0, 0.98), (0.5, 0.9), (1.0, LOWEST_SCORE)),
}


def score_threshold(sensitivity: float, ranking: str = "probability") -> float:
    """The lowest score to show for a slider between "fewer" (0) and "more" (1); nothing is computed anew.

    Args:
        sensitivity: 0 to 1; 0.5 is the default.
        ranking: what the scores mean: ``SamAutomaticMaskGenerator3D.ranking``.

    Returns:
        a threshold for ``record["score"]``, falling with ``sensitivity``, even steps in the odds between fixed points.
    """
    places, odds = _slider_in_odds(ranking)
    return probability(float(np.interp(min(max(sensitivity, 0.0), 1.0), places, odds)))


def shown_from(score: float, ranking: str = "probability") -> float:
    """The slider's place, 0 to 1, from which on a score is shown: the inverse of :func:`score_threshold`."""
    places, odds = _slider_in_odds(ranking)
    bounded = min(max(score, 1e-9), 1.0 - 1e-9)
    return float(np.interp(-math.log(bounded / (1.0 - bounded)), [-value for value in odds], places))


def _slider_in_odds(ranking: str) -> tuple[tuple[float, ...], list[float]]:
    places, scores = zip(*_SLIDER[ranking], strict=True)
    return places, [math.log(score / (1.0 - score)) for score in scores]
