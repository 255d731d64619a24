"""Looks at many points of a volume: crops are encoded once for the points that share them, masks stay coarse cells.

A look costs one decoding and no voxel of the volume is computed, so that hundreds of candidates can be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ..inference.crop_plan import plan_crops
from ..inference.field import Part
from ..inference.geometry import transform_points, voxel_index, voxel_spacing, world_to_ijk
from ..inference.postprocessing import tight_block
from ..inference.predictor import SamPredictor3D
from ..inference.sampling import sample_grid
from .lungs import LungMask
from .nodule_features import Agreement, LookFeatures, agreement_of, describe, object_at, points_within, seen_object


@dataclass(frozen=True)
class Place:
    """Where to look.

    Attributes:
        point_ras: (3,) mm, the center of a voxel.
        expected_mm: diameter of what is expected there; NaN where nothing is known.
        response: of the blob filter; NaN where there was none.
        appearance: log odds of the classifier; NaN where it was not asked.
    """

    point_ras: tuple[float, float, float]
    expected_mm: float = float("nan")
    response: float = float("nan")
    appearance: float = float("nan")


@dataclass(frozen=True, eq=False)
class Look:
    """What one look showed: the place, the network's answer and the object's features."""

    place: Place
    part: Part
    features: LookFeatures

    def contains(self, point_ras: ArrayLike) -> bool:
        """Whether a point lies in the cells of the object."""
        cells = object_at(self.part, self.place.point_ras)
        index = voxel_index(world_to_ijk(self.part.cells_to_ras, point_ras))
        inside = np.all(index >= 0) and np.all(index < np.array(self.part.logits.shape))
        return bool(cells is not None and inside and cells[tuple(index)])

    def alone(self) -> Look:
        """The same with logits of its own, not those of a whole batch, which would stay in memory with it."""
        return replace(self, part=replace(self.part, logits=self.part.logits.copy()))

    def deepest_point(self) -> NDArray[np.float64]:
        """(3,) mm, the middle of the object's thickest part: where a person would click."""
        cells = seen_object(self.part, self.place.point_ras)
        block, start = tight_block(cells)
        distance = ndimage.distance_transform_edt(np.pad(block, 1), sampling=voxel_spacing(self.part.cells_to_ras))
        deepest = np.argwhere(distance >= 0.999 * distance.max()) - 1 + start
        return transform_points(self.part.cells_to_ras, deepest.mean(axis=0))


class Looker:
    """Looks at places of a predictor's image.

    Args:
        predictor: its image is set.
        lungs: for the features that speak of the lungs; None = unknown.
        stability_offset: of the logits.
    """

    def __init__(self, predictor: SamPredictor3D, lungs: LungMask | None, stability_offset: float) -> None:
        self._predictor = predictor
        self._lungs = lungs
        self._offset = stability_offset

    def look_at_all(
        self,
        places: Sequence[Place],
        points_per_batch: int,
        overlap_ratio: float,
        done: Callable[[Sequence[Look], int], None],
    ) -> None:
        """Look at many places, crop by crop, the strongest first.

        Args:
            places: the strongest first.
            points_per_batch: decoded at once.
            overlap_ratio: see :func:`plan_crops`.
            done: told the looks of each batch that showed something, and how many places have been looked at so far.
        """
        points = np.array([place.point_ras for place in places]).reshape(-1, 3)
        expected = [place.expected_mm for place in places]
        predictor = self._predictor
        seen = 0
        for shared in plan_crops(points, expected, predictor.zoom, predictor.ijk_to_ras, overlap_ratio):
            surroundings = None
            for start in range(0, len(shared.members), points_per_batch):
                batch = [places[index] for index in shared.members[start : start + points_per_batch]]
                parts, scores = predictor.decode_clicks(
                    shared.crop, shared.anchor_ras, [place.point_ras for place in batch]
                )
                surroundings = surroundings or self._surroundings(parts[0])
                looks = [
                    self._look(place, part, score, *surroundings)
                    for place, part, score in zip(batch, parts, scores, strict=True)
                ]
                seen += len(batch)
                done([look for look in looks if look is not None], seen)

    def describe(self, place: Place, part: Part, score: float | None) -> Look | None:
        """The look that a part shows of the object at a place, or None where there is none."""
        return self._look(place, part, score, *self._surroundings(part))

    def agreement(self, look: Look) -> Agreement:
        """What two clicks elsewhere in the object give, in the crop that shows it: no encoding."""
        points = points_within(look.part, look.place.point_ras)
        parts, ious = self._predictor.decode_clicks(look.part.crop, look.part.anchor_ras, points)
        return agreement_of(look.part, look.place.point_ras, parts, points, ious)

    def _look(self, place: Place, part: Part, score: float | None, hu: NDArray, in_lung: NDArray | None) -> Look | None:
        features = describe(part, place.point_ras, score, hu, in_lung, self._offset)
        return None if features is None else Look(place, part, features)

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
