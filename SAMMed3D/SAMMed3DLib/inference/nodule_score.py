"""How likely a mask is a nodule: a calibrated probability, and the slider that trades misses for false positives.

One logistic regression over the features of a look (:mod:`.nodule_features`) and the response of the blob filter. Its
coefficients come from ``python -m SAMMed3DTrainingLib.score_fitting``: nodules painted into the backgrounds that
training may use against everything else that the blob filter found there. No real nodule and nothing of the held-out
background entered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .nodule_features import LookFeatures

#: Names of what the regression sees, in order; :func:`score_inputs` computes them.
INPUTS = (
    "iou", "stability", "diameter", "diameter2", "elongation", "slenderness", "compactness", "growth", "off_center",
    "contrast", "density", "continued", "outside", "wall", "border", "response", "size_ratio",
)


def score_inputs(features: LookFeatures, response: float, expected_mm: float) -> NDArray[np.float64]:
    """What the regression sees of a look, each about of size one.

    Args:
        features: of the look.
        response: of the blob filter; 0 where there was none.
        expected_mm: diameter that the blob filter expects, NaN where there was none.
    """
    iou = min(max(features.predicted_iou, 0.01), 0.99)
    size = math.log(features.diameter_mm / 8.0)
    return np.array([
        math.log(iou / (1.0 - iou)),
        4.0 * features.stability,
        size,
        size**2,
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
        float(features.touches_border),
        math.log(max(response, 1.0)),
        0.0 if math.isnan(expected_mm) else min(abs(math.log(features.diameter_mm / expected_mm)), 2.0),
    ])


@dataclass(frozen=True)
class NoduleScore:
    """The regression: probability = 1 / (1 + exp(-(weights . inputs + intercept)))."""

    weights: tuple[float, ...]
    intercept: float

    def __call__(self, features: LookFeatures, response: float, expected_mm: float) -> float:
        """Probability in 0..1 that a look shows a nodule."""
        value = float(np.dot(self.weights, score_inputs(features, response, expected_mm))) + self.intercept
        return 1.0 / (1.0 + math.exp(-min(max(value, -30.0), 30.0)))


DEFAULT_SCORE = NoduleScore(
    weights=(1.0, 0.5, 0.0, 0.0, -1.0, -1.0, 0.5, -0.3, -0.5, 0.2, 0.0, -0.5, -0.5, 0.0, -1.0, 0.0, -0.5),
    intercept=-1.0,
)

_SLIDER = {
    # how far the slider stands from "fewer" to "more": the lowest score that is shown
    "probability": ((0.0, 0.95), (0.5, 0.5), (1.0, 0.02)),
    "stability": ((0.0, 0.98), (0.5, 0.9), (1.0, 0.02)),
}


def score_threshold(sensitivity: float, ranking: str = "probability") -> float:
    """The lowest score to show for a slider between "fewer" (0) and "more" (1); nothing is computed anew.

    Args:
        sensitivity: 0 to 1; 0.5 is the default.
        ranking: what the scores mean: ``SamAutomaticMaskGenerator3D.ranking``.

    Returns:
        a threshold for ``record["score"]``, falling with ``sensitivity``, even steps in the odds between fixed points.
    """
    places, scores = zip(*_SLIDER[ranking], strict=True)
    odds = [math.log(score / (1.0 - score)) for score in scores]
    value = float(np.interp(min(max(sensitivity, 0.0), 1.0), places, odds))
    return 1.0 / (1.0 + math.exp(-value))
