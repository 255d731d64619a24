"""Scores nodules: a calibrated probability, and the slider that trades misses for false positives.

Two logistic regressions, each over its inputs, their squares and products. The first judges a place by the response of
the blob filter that named it (:mod:`.candidates`) and by its appearance (:mod:`.appearance`), before the promptable
network has seen it; the second judges the object that was clicked: it also takes its features
(:mod:`.nodule_features`), and whether clicks elsewhere in it give the same mask. What they were fitted on is said
beside their weights (:mod:`.regression`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .nodule_features import Agreement, LookFeatures
from .regression import Regression, fitted, fitted_values

#: Inputs of the first, in order; :func:`place_inputs` computes them.
PLACE = ("diameter", "response", "appearance")
#: Inputs of the second, in order; :func:`object_inputs` computes them.
OBJECT = (
    "iou",
    "stability",
    "diameter",
    "elongation",
    "slenderness",
    "compactness",
    "growth",
    "off_center",
    "contrast",
    "density",
    "continued",
    "outside",
    "wall",
    "response",
    "appearance",
    "agreement",
    "least agreement",
    "iou around",
)
#: Inputs whose squares and products both take too.
COMBINED = ("iou", "diameter", "response", "appearance", "agreement")
#: Of the fit (:func:`.regression.fitted_values`).
_SECTION = "nodule_score"


def place_inputs(diameter_mm: float, response: float, appearance: float) -> NDArray[np.float64]:
    """Computes the regressions' inputs that are known of a place before a click.

    Args:
        diameter_mm: of what is expected there.
        response: of the blob filter; NaN where it was not asked.
        appearance: log odds of the classifier; NaN where it was not asked.
    """
    usual = fitted_values(_SECTION)["usual"]
    return np.array(
        [
            math.log(diameter_mm / 8.0),
            usual["response"] if math.isnan(response) else response,
            usual["appearance"] if math.isnan(appearance) else appearance,
        ]
    )


def object_inputs(
    features: LookFeatures, response: float, appearance: float, agreement: Agreement
) -> NDArray[np.float64]:
    """Computes the second regression's inputs for an object that was clicked, each bounded and about of size one.

    Args:
        features: of the click.
        response, appearance: as in :func:`place_inputs`.
        agreement: of clicks elsewhere in it.
    """
    size, response, appearance = place_inputs(features.diameter_mm, response, appearance)
    return np.array(
        [
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
            4.0 * agreement.mean,
            4.0 * agreement.least,
            _logit(agreement.predicted_iou),
        ]
    )


def _logit(share: float) -> float:
    bounded = min(max(share, 0.01), 0.99)
    return math.log(bounded / (1.0 - bounded))


@dataclass(frozen=True)
class NoduleScore:
    """Gives the probability, 0..1, that something is a nodule.

    Attributes:
        place: judges a place before a click, its inputs named as in ``PLACE``.
        clicked: judges an object that was clicked, its inputs named as in ``OBJECT``.
    """

    place: Regression
    clicked: Regression

    def of_place(self, diameter_mm: float, response: float, appearance: float) -> float:
        """Probability for a place before a click, from the blob filter's response and the classifier's log odds."""
        return probability(float(self.place.log_odds(place_inputs(diameter_mm, response, appearance))))

    def __call__(
        self, features: LookFeatures, agreement: Agreement, response: float = math.nan, appearance: float = math.nan
    ) -> float:
        """Probability for an object that was clicked; NaN where blob filter or classifier were not asked."""
        return probability(float(self.clicked.log_odds(object_inputs(features, response, appearance, agreement))))


def probability(log_odds: float) -> float:
    """The logistic function 1 / (1 + exp(-x)), without overflow."""
    return 1.0 / (1.0 + math.exp(-min(max(log_odds, -30.0), 30.0)))


def joined(own: float, detection: float) -> float:
    """Joins our probability and that of a detector of record: the mean of both log odds.

    Nobody has fitted how far either is to be trusted, so both count alike; where the detector was not asked (NaN) it is
    ours.
    """
    if math.isnan(detection):
        return own
    low, high = 1e-6, 1.0 - 1e-6
    odds = [math.log(share / (1.0 - share)) for share in (min(max(each, low), high) for each in (own, detection))]
    return probability(sum(odds) / 2.0)


@lru_cache(maxsize=1)
def default_score() -> NoduleScore:
    """Loads the score that comes with the module. Raises InputError when its file is missing or damaged."""
    return NoduleScore(fitted(_SECTION, "place", PLACE, COMBINED), fitted(_SECTION, "click", OBJECT, COMBINED))


#: Scores below this are hardly ever nodules; the slider's "more" goes no further.
LOWEST_SCORE = 0.01
#: Stabilities at which the slider stands at "fewer" and in the middle.
_STABILITIES = (0.98, 0.9)


def score_threshold(sensitivity: float, ranking: str = "probability") -> float:
    """Returns the lowest score to show for a slider between "fewer" (0) and "more" (1).

    Args:
        sensitivity: 0 to 1; 0.5 is the default.
        ranking: what the scores mean: ``SamAutomaticMaskGenerator3D.ranking``.

    Returns:
        a threshold for ``record["score"]``, falling with ``sensitivity``, even steps in the odds between fixed points.
    """
    places, odds = _slider_in_odds(ranking)
    return probability(float(np.interp(min(max(sensitivity, 0.0), 1.0), places, odds)))


def shown_from(score: float, ranking: str = "probability") -> float:
    """Returns the slider's place, 0 to 1, from which on a score is shown: the inverse of :func:`score_threshold`."""
    places, odds = _slider_in_odds(ranking)
    bounded = min(max(score, 1e-9), 1.0 - 1e-9)
    return float(np.interp(-math.log(bounded / (1.0 - bounded)), [-value for value in odds], places))


def _slider_in_odds(ranking: str) -> tuple[tuple[float, ...], list[float]]:
    """Returns places of the slider from "fewer" to "more", and the log odds of the lowest score shown at each."""
    slider = fitted_values(_SECTION)["slider"]
    few, usual = (slider["few"], slider["usual"]) if ranking == "probability" else _STABILITIES
    return (0.0, 0.5, 1.0), [math.log(score / (1.0 - score)) for score in (few, usual, LOWEST_SCORE)]
