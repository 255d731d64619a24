"""Ranks blobs by how much they look like a nodule: all by their filter response, then the best of them by rays.

The filter's peak gives its response, curvatures, size and place. Rays from the middle of a blob, followed in the
volume's own voxels to two and a half radii, tell where it goes on: a vessel in two opposite directions, a nodule ends
on all sides. The dot filter of Li, Sone and Doi (Med Phys 2003) is a fixed formula of the curvatures; here a polynomial
of second degree in a few such measures is used, its weights fitted by logistic regression to nodules painted into the
training backgrounds (``python -m Research.ranking_fitting``, ``ray_fitting``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..inference.geometry import world_to_ijk
from .blob_field import BlobField
from .blob_pyramid import COARSE, MEDIAN, Peaks
from .lungs import LungMask
from .regression import fitted

MEASURES = (
    "log blob",
    "roundness",
    "flatness",
    "log radius",
    "brightness",
    "lung within 4 mm",
    "lung within 12 mm",
    "coarse",
    "median",
)
_REACHES_MM = (4.0, 12.0)
RAY_MEASURES = (
    "ahead 1.5",
    "opposite 1.5",
    "ahead 2",
    "opposite 2",
    "across 2",
    "open 1.5",
    "open 2",
    "mean 1",
    "mean 1.5",
    "mean 2",
    "uneven 1",
    "uneven 1.5",
    "uneven 2",
    "contrast",
    "brightness",
    "lung at 1.5",
    "lung at 2.5",
    "first odds",
    "log radius",
)
_RAYS = 64
#: Places on a ray, in radii of the blob.
_STEPS = (0.0, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
_CENTER, _SURFACE, _OUTSIDE = slice(0, 2), 2, slice(4, None)
#: Rays of smaller blobs are as long as those of this radius, since no scan resolves more.
_SMALLEST_MM = 2.0
#: Cosines between the brightest ray and those opposite to it, and the largest of those across.
_OPPOSITE, _ACROSS = -0.3, 0.5
_LEAST_CONTRAST = 0.05
#: A ray is open while it is brighter than this share of the contrast.
_OPEN = 0.5


def measures_of(peaks: Peaks, lungs: LungMask | None) -> NDArray[np.float32]:
    """Returns the measures of each peak for the first ranking, (n, 9) in the order of ``MEASURES``.

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
        np.log(peaks.blob + 1e-3),
        weakest / strongest,
        middle / strongest,
        np.log(peaks.radius),
        peaks.brightness,
        *around,
        peaks.channel == COARSE,
        peaks.channel == MEDIAN,
    )
    return np.stack(columns, axis=1).astype(np.float32)


def nodule_odds(peaks: Peaks, lungs: LungMask | None) -> NDArray[np.float32]:
    """Returns the log odds of each peak, (n,); across scans only their order is meaningful."""
    return fitted("blob_ranking", "peak", MEASURES).log_odds(measures_of(peaks, lungs)).astype(np.float32)


def ray_measures(
    field: BlobField, centers_ras: NDArray, radii_mm: NDArray, odds: NDArray, lungs: LungMask | None
) -> NDArray[np.float64]:
    """Returns the measures of each blob along rays, (n, 19) in the order of ``RAY_MEASURES``.

    Brightness along a ray is given as a share of the contrast between the middle and what is around. "Ahead" is the
    best ray that nothing interrupts up to so many radii, "opposite" and "across" the best of those that leave on the
    other side and sideways, "open" the share of such rays; "mean" and "uneven" are the mean and the deviation over all
    rays at so many radii.

    Args:
        field: its volume is sampled along the rays.
        centers_ras: (n, 3) mm.
        radii_mm: (n,).
        odds: (n,) of the first ranking.
        lungs: None = everything counts as lung.
    """
    directions = _directions()
    reach = np.maximum(radii_mm, _SMALLEST_MM)[:, None] * np.array(_STEPS)
    points = centers_ras[:, None, None] + directions[None, :, None] * reach[:, None, :, None]
    tone = field.brightness_at(points)
    low = np.percentile(tone[:, :, _OUTSIDE], 10, axis=(1, 2))
    middle = tone[:, :, _CENTER].mean(axis=(1, 2))
    share = np.clip((tone - low[:, None, None]) / np.maximum(middle - low, _LEAST_CONTRAST)[:, None, None], -1.0, 3.0)
    cosines = directions @ directions.T
    columns = []
    for radii, wanted in ((1.5, ("ahead", "opposite")), (2.0, ("ahead", "opposite", "across"))):
        path = share[:, :, _SURFACE : _STEPS.index(radii) + 1].min(axis=2)
        away = cosines[path.argmax(axis=1)]
        allowed = {"ahead": away > -2.0, "opposite": away < _OPPOSITE, "across": np.abs(away) < _ACROSS}
        columns += [np.where(allowed[name], path, -1.0).max(axis=1) for name in wanted]
    for radii in (1.5, 2.0):
        path = share[:, :, _SURFACE : _STEPS.index(radii) + 1].min(axis=2)
        columns.append((path > _OPEN).mean(axis=1))
    at = {radii: share[:, :, _STEPS.index(radii)] for radii in (1.0, 1.5, 2.0)}
    columns += [at[radii].mean(axis=1) for radii in at] + [at[radii].std(axis=1) for radii in at]
    columns += [middle - low, middle]
    for radii in (1.5, 2.5):
        around = points[:, :, _STEPS.index(radii)]
        columns.append(np.ones(len(points)) if lungs is None else lungs.share_at(around).mean(axis=1))
    return np.stack([*columns, odds, np.log(radii_mm / 3.0)], axis=1).astype(np.float64)


def _directions() -> NDArray[np.float64]:
    """Unit vectors all over the sphere, (rays, 3), on a spiral."""
    turn = np.arange(_RAYS) + 0.5
    height, angle = 1.0 - 2.0 * turn / _RAYS, np.pi * (1.0 + 5.0**0.5) * turn
    flat = np.sqrt(1.0 - height**2)
    return np.stack([np.cos(angle) * flat, np.sin(angle) * flat, height], axis=1)


def ray_odds(measures: NDArray) -> NDArray[np.float64]:
    """Returns the log odds of each blob, (n,)."""
    return fitted("blob_rays", "blob", RAY_MEASURES).log_odds(measures).astype(np.float64)
