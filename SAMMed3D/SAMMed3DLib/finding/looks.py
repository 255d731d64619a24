"""What the network saw of an object that was clicked, on the coarse cells of its crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..inference.field import Part
from ..inference.predictor import SamPredictor3D
from ..inference.sampling import sample_grid
from .lungs import LungMask
from .nodule_features import Agreement, LookFeatures, agreement_of, describe, points_within


@dataclass(frozen=True)
class ClickPlace:
    """Where to click.

    Attributes:
        point_ras: (3,) mm, the center of a voxel.
        response: of the blob filter; NaN where there was none.
        probability: that a nodule is there, as far as can be told before the click.
    """

    point_ras: tuple[float, float, float]
    response: float = float("nan")
    probability: float = 1.0


@dataclass(frozen=True, eq=False)
class Look:
    """What one click showed: the place, the network's answer and the object's features."""

    place: ClickPlace
    part: Part
    features: LookFeatures


class Looker:
    """Describes objects of a predictor's image.

    Args:
        predictor: its image is set.
        lungs: for the features that speak of the lungs; None = unknown.
        stability_offset: of the logits.
    """

    def __init__(self, predictor: SamPredictor3D, lungs: LungMask | None, stability_offset: float) -> None:
        self._predictor = predictor
        self._lungs = lungs
        self._offset = stability_offset

    def describe(self, place: ClickPlace, part: Part, score: float | None) -> Look | None:
        """The look that a part shows of the object at a place, or None where there is none."""
        features = describe(part, place.point_ras, score, *self._surroundings(part), self._offset)
        return None if features is None else Look(place, part, features)

    def agreement(self, look: Look) -> Agreement:
        """What two clicks elsewhere in the object give, in the crop that shows it: no encoding."""
        points = points_within(look.part, look.place.point_ras)
        parts, ious = self._predictor.decode_clicks(look.part.crop, look.part.anchor_ras, points)
        return agreement_of(look.part, look.place.point_ras, parts, points, ious)

    def _surroundings(self, part: Part) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """HU and lung on the cells of a part."""
        cells, shape = part.cells_to_ras, part.logits.shape
        to_ijk = np.linalg.inv(self._predictor.ijk_to_ras) @ cells
        outside = self._predictor.profile.outside_hu
        hu = sample_grid(self._predictor.image_kji.transpose(2, 1, 0), to_ijk, shape, outside)
        if self._lungs is None:
            return hu, None
        to_grid = np.linalg.inv(self._lungs.grid_to_ras) @ cells
        return hu, sample_grid(self._lungs.mask.transpose(2, 1, 0), to_grid, shape, 0.0) > 0.5
