"""How likely a mask is a nodule: a calibrated probability, and the slider that trades misses for false positives.

Three logistic regressions, each over its inputs, their squares and products. The first judges a place by the response
of the blob filter that named it (:mod:`.candidates`) and by its appearance (:mod:`.appearance`), before the promptable
network has seen it; the second hears the features of the first look besides (:mod:`.nodule_features`); the third judges
the object that was clicked, and hears whether clicks elsewhere in it give the same mask. What they were fitted on is
said beside their coefficients (:mod:`.nodule_score_coefficients`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import nodule_score_coefficients as coefficients
from .nodule_features import Agreement, LookFeatures

#: What the first sees, in order; :func:`place_inputs` computes it.
PLACE = ("diameter", "response", "appearance")
#: What the others see first; :func:`look_inputs` computes it.
LOOK = (
    "iou", "stability", "diameter", "elongation", "slenderness", "compactness", "growth", "off_center", "contrast",
    "density", "continued", "outside", "wall", "response", "appearance",
)
#: What the last one sees behind it; :func:`object_inputs` computes all.
OBJECT = (*LOOK, "agreement", "least agreement", "iou around")
#: Those whose squares and products they see too.
COMBINED = ("iou", "diameter", "response", "appearance", "agreement")
_FARTHEST = 3.0


def place_inputs(diameter_mm: float, response: float, appearance: float) -> NDArray[np.float64]:
    """What is known of a place before a look, as the regressions take it.

    Args:
        diameter_mm: of what is expected there.
        response: of the blob filter; NaN where it was not asked.
        appearance: log odds of the classifier; NaN where it was not asked.
    """
    return np.array([
        math.log(diameter_mm / 8.0),
        coefficients.USUAL_RESPONSE if math.isnan(response) else response,
        coefficients.USUAL_APPEARANCE if math.isnan(appearance) else appearance,
    ])


def look_inputs(features: LookFeatures, response: float, appearance: float) -> NDArray[np.float64]:
    """The features of a look as the regressions take them, each bounded and about of size one.

    Args:
        features: of the look.
        response, appearance: as in :func:`place_inputs`.
    """
    size, response, appearance = place_inputs(features.diameter_mm, response, appearance)
    return np.array([
        _logit(features.predicted_iou),
        4.0 * features.stability,
        size,
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
        response,
        appearance,
    ])


def object_inputs(
    features: LookFeatures, response: float, appearance: float, agreement: Agreement
) -> NDArray[np.float64]:
    """The same for an object that was clicked, with what clicks elsewhere in it gave."""
    around = [4.0 * agreement.mean, 4.0 * agreement.least, _logit(agreement.predicted_iou)]
    return np.append(look_inputs(features, response, appearance), around)


def _logit(share: float) -> float:
    bounded = min(max(share, 0.01), 0.99)
    return math.log(bounded / (1.0 - bounded))


def pairs_of(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Which inputs are multiplied."""
    members = [index for index, name in enumerate(names) if name in COMBINED]
    return tuple(itertools.combinations_with_replacement(members, 2))


def combined(standardized: NDArray[np.float64], names: tuple[str, ...]) -> NDArray[np.float64]:
    """Standardized inputs (..., n), bounded, with the products of :func:`pairs_of` behind them."""
    bounded = np.clip(standardized, -_FARTHEST, _FARTHEST)
    first, second = zip(*pairs_of(names), strict=True)
    return np.concatenate([bounded, bounded[..., first] * bounded[..., second]], axis=-1)


@dataclass(frozen=True)
class Regression:
    """A logistic regression.

    Attributes:
        names: of its n inputs.
        mean, scale: (n,) of them.
        weights: of the standardized inputs and their products.
        intercept: added to them.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    def log_odds(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Natural log of the odds of inputs (..., n)."""
        terms = combined((inputs - np.asarray(self.mean)) / np.asarray(self.scale), self.names)
        return terms @ np.asarray(self.weights) + self.intercept


@dataclass(frozen=True)
class NoduleScore:
    """Probabilities in 0..1 that something is a nodule.

    Attributes:
        place: judges a place before a look, its inputs named as in ``PLACE``.
        look: judges a look, its inputs named as in ``LOOK``.
        clicked: judges an object that was clicked, its inputs named as in ``OBJECT``.
    """

    place: Regression
    look: Regression
    clicked: Regression

    def of_place(self, diameter_mm: float, response: float, appearance: float) -> float:
        """Of what is expected at a place; ``response`` of the blob filter and ``appearance`` to the classifier."""
        return probability(float(self.place.log_odds(place_inputs(diameter_mm, response, appearance))))

    def of_look(self, features: LookFeatures, response: float = math.nan, appearance: float = math.nan) -> float:
        """Of what one look shows; NaN where blob filter or classifier were not asked."""
        return probability(float(self.look.log_odds(look_inputs(features, response, appearance))))

    def __call__(
        self, features: LookFeatures, agreement: Agreement, response: float = math.nan, appearance: float = math.nan
    ) -> float:
        """Of an object that was clicked."""
        return probability(float(self.clicked.log_odds(object_inputs(features, response, appearance, agreement))))


def probability(log_odds: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1.0 / (1.0 + math.exp(-min(max(log_odds, -30.0), 30.0)))


DEFAULT_SCORE = NoduleScore(
    Regression(PLACE, *coefficients.OF_PLACE),
    Regression(LOOK, *coefficients.OF_LOOK),
    Regression(OBJECT, *coefficients.OF_CLICK),
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
