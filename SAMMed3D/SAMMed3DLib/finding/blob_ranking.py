"""How much a peak looks like a nodule: one number from the blob's answer, its curvatures, its size and its place.

The dot filter of Li, Sone and Doi (Med Phys 2003) is a fixed formula of the curvatures; here a polynomial of second
degree in a few such measures is used, its weights fitted by logistic regression to nodules painted into the training
backgrounds (``python -m Research.ranking_fitting``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..inference.geometry import world_to_ijk
from .blob_pyramid import COARSE, MEDIAN, Peaks
from .lungs import LungMask
from .regression import fitted

MEASURES = (
    "log blob", "roundness", "flatness", "log radius", "brightness", "lung within 4 mm", "lung within 12 mm",
    "coarse", "median",
)
_REACHES_MM = (4.0, 12.0)


def measures_of(peaks: Peaks, lungs: LungMask | None) -> NDArray[np.float32]:
    """What the ranking knows of each peak, (n, 9) in the order of ``MEASURES``.

    Roundness and flatness are the weakest and the middle curvature as shares of the strongest; the share of lung around
    a peak is 1 where no lungs are known.
    """
    strongest, middle, weakest = peaks.curvatures.T
    strongest = np.maximum(strongest, 1e-6)
    if lungs is None:
        around = [np.ones(len(peaks))] * len(_REACHES_MM)
    else:
        index = world_to_ijk(lungs.grid_to_ras, peaks.ras)[:, ::-1].T
        cell = float(np.linalg.norm(lungs.grid_to_ras[:3, 0]))
        around = [
            ndimage.map_coordinates(
                ndimage.gaussian_filter(lungs.cells, reach / cell, truncate=3.0), index, order=1, mode="nearest"
            )
            for reach in _REACHES_MM
        ]
    columns = (
        np.log(peaks.blob + 1e-3), weakest / strongest, middle / strongest, np.log(peaks.radius), peaks.brightness,
        *around, peaks.channel == COARSE, peaks.channel == MEDIAN,
    )
    return np.stack(columns, axis=1).astype(np.float32)


def nodule_odds(peaks: Peaks, lungs: LungMask | None) -> NDArray[np.float32]:
    """Log odds of each peak, (n,); only their order means something in another scan."""
    return fitted("blob_ranking", "peak", MEASURES).log_odds(measures_of(peaks, lungs)).astype(np.float32)
