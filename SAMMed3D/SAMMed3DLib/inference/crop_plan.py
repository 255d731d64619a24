"""Which crops to encode so that many points are each seen at their proper zoom, with as few crops as will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .preprocessing import Crop, crop_at
from .zoom import ZoomPolicy

#: A point may be seen at a spacing that differs by this factor from its own: where the zoom would stay, too.
_SPACING_TOLERANCE = 1.3


@dataclass(frozen=True, eq=False)
class SharedCrop:
    """A crop and the points that are looked at in it.

    Attributes:
        crop: centered on the strongest of its points.
        anchor_ras: (3,) that point.
        members: indices of its points, the strongest first.
    """

    crop: Crop
    anchor_ras: NDArray[np.float64]
    members: tuple[int, ...]


def plan_crops(
    points_ras: ArrayLike,
    diameters_mm: Sequence[float],
    zoom: ZoomPolicy,
    ijk_to_ras: NDArray,
    overlap_ratio: float = 0.5,
) -> list[SharedCrop]:
    """Crops for points, in the order of their strongest points.

    Args:
        points_ras: (n, 3) mm, the strongest first.
        diameters_mm: (n,) expected size of the object at each point, NaN where nothing is known of it: the first
            spacing of the profile is taken then.
        zoom: which spacing suits which size.
        ijk_to_ras: (4, 4) of the volume.
        overlap_ratio: share of a crop's edge by which neighbors would overlap on a regular grid. A point is served by
            a crop only in the middle part that is left, 1 - overlap_ratio of the edge; 1 gives each its own crop.
    """
    points = np.asarray(points_ras, dtype=np.float64).reshape(-1, 3)
    diameters = np.asarray(diameters_mm, dtype=np.float64)
    first = zoom.profile.spacing_mm
    if first is None:
        spacings = np.ones(len(points))
    else:
        spacings = np.array(
            [
                first if np.isnan(diameter) else zoom.spacing_for(diameter, np.full(3, diameter))
                for diameter in diameters
            ]
        )
    waiting = np.ones(len(points), dtype=bool)
    plan = []
    for seed in range(len(points)):
        if not waiting[seed]:
            continue
        crop = crop_at(points[seed], None if first is None else spacings[seed], zoom.profile, ijk_to_ras)
        size = np.array(crop.shape)
        inner = np.all(np.abs(crop.index_of(points) - size // 2) <= 0.5 * (1.0 - overlap_ratio) * size, axis=1)
        ratio = spacings / spacings[seed]
        served = waiting & inner & (ratio <= _SPACING_TOLERANCE) & (ratio >= 1.0 / _SPACING_TOLERANCE)
        served[seed] = True
        waiting &= ~served
        plan.append(SharedCrop(crop, points[seed], tuple(int(index) for index in np.flatnonzero(served))))
    return plan
