"""Finds places that may be nodules, without a network: bright round things in the lungs, of any size.

Blobs of all sizes are found (:mod:`.blob_pyramid`) in a field where the wall of the lungs is painted over
(:mod:`.blob_field`), so that nodules at the pleura stand free; they are ranked by shape (:mod:`.blob_ranking`), of
several on one thing the best stays, and those are ranked anew by what rays from them meet (:mod:`.blob_ranking`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from ..inference.geometry import as_affine
from .blob_field import BlobField
from .blob_pyramid import Peaks, find_peaks
from .blob_ranking import nodule_odds, ray_measures, ray_odds
from .coarse_grid import Progress
from .lungs import LungMask

LIMIT = 400
"""The most candidates by default."""

CELL_MM = 1.0
"""Edge of the cells in which small nodules are searched."""

#: Number of the best places of the first ranking that are ranked again by rays.
_RAYED = 2500
#: Two peaks are one thing if they are closer than the radius of the better one and than this many of the other's.
_SAME_THING = 1.5
#: Peaks closer than this many radii are levels of the same place.
_SAME_PLACE = 0.5
#: Number of peaks per candidate that are looked at when peaks are merged.
_PEAKS_PER_CANDIDATE = 100
#: The smoothing that fits a ball best leaves this share of its contrast at its center.
_CONTRAST_LEFT = 0.61
#: Density that tells solid nodules from subsolid ones.
_SOLID_HU = -300.0


@dataclass(frozen=True)
class Candidate:
    """A place that may be a nodule.

    Attributes:
        center_ras: (3,) RAS mm.
        diameter_mm: of the ball that fits best, within a quarter or so.
        response: how much it looks like a nodule, log odds; larger is likelier.
        kind: "solid" or "subsolid", by its density; in volumes that are no CT always "solid".
        detection: probability that a detector of record gives, NaN where none did (:mod:`.detectors`).
    """

    center_ras: tuple[float, float, float]
    diameter_mm: float
    response: float
    kind: str
    detection: float = math.nan


def find_candidates(
    array_kji: NDArray,
    ijk_to_ras: ArrayLike,
    lungs: LungMask | None,
    *,
    min_diameter_mm: float = 3.0,
    max_diameter_mm: float = 30.0,
    limit: int = LIMIT,
    progress: Progress | None = None,
) -> list[Candidate]:
    """Finds the places in the lungs that look most like nodules, solid and ground-glass.

    Args:
        array_kji: (K, J, I) in HU, any numeric dtype (without ``lungs`` other bright-on-dark images work too).
        ijk_to_ras: (4, 4).
        lungs: where to search; None, or lungs that were not found, searches the whole volume.
        min_diameter_mm, max_diameter_mm: sizes to look for.
        limit: largest number of candidates to return.
        progress: called with (done, total); returning False cancels.

    Returns:
        Candidates, strongest first; [] where nothing stands out.

    Raises:
        InputError: the matrix is none.
        PredictionCancelled: ``progress`` returned False.
    """
    affine = as_affine(ijk_to_ras)
    if lungs is not None and not lungs.found:
        lungs = None
    field = BlobField(array_kji, affine, lungs, CELL_MM)
    places = rayed_places(field, lungs, min_diameter_mm, max_diameter_mm, limit, progress)
    if places is None:
        return []
    odds = ray_odds(places.measures)
    solid = field.brightness_of(_SOLID_HU)
    return [
        Candidate(
            (float(places.centers_ras[n, 0]), float(places.centers_ras[n, 1]), float(places.centers_ras[n, 2])),
            float(2 * places.radii_mm[n]),
            float(odds[n]),
            "solid" if places.density[n] >= solid else "subsolid",
        )
        for n in np.argsort(-odds, kind="stable")[: max(limit, 0)]
    ]


@dataclass(frozen=True)
class RayedPlaces:
    """The best places of the first ranking, the best first, with their ray measures.

    Attributes:
        centers_ras: (n, 3) mm.
        radii_mm: (n,) of the ball that fits best.
        density: (n,) brightness in the middle.
        measures: (n, measures) of :mod:`.blob_ranking`.
    """

    centers_ras: NDArray[np.float64]
    radii_mm: NDArray[np.float64]
    density: NDArray[np.float64]
    measures: NDArray[np.float64]


def rayed_places(
    field: BlobField,
    lungs: LungMask | None,
    min_diameter_mm: float,
    max_diameter_mm: float,
    limit: int = LIMIT,
    progress: Progress | None = None,
) -> RayedPlaces | None:
    """The places that are ranked by rays: at least ``limit``, one for each thing; None where nothing stands out."""
    peaks = find_peaks(field, min_diameter_mm, max_diameter_mm, progress)
    if peaks is None:
        return None
    odds = nodule_odds(peaks, lungs)
    kept = best_of_each(peaks, odds, max(limit, _RAYED))
    levels = _levels_of(peaks, kept)
    density = field.background + (peaks.brightness[levels] - field.background) / _CONTRAST_LEFT
    centers, radii = peaks.ras[kept], peaks.radius[levels]
    return RayedPlaces(centers, radii, density, ray_measures(field, centers, radii, odds[kept], lungs))


def best_of_each(peaks: Peaks, odds: NDArray, limit: int) -> list[int]:
    """Indices of the best peaks, the best first, one for each thing."""
    order = np.argsort(-odds, kind="stable")[: max(limit, 0) * _PEAKS_PER_CANDIDATE]
    centers, radii = peaks.ras[order], peaks.radius[order]
    tree = cKDTree(centers)
    taken = np.zeros(len(order), bool)
    kept: list[int] = []
    for n in range(len(order)):
        if taken[n]:
            continue
        if len(kept) == limit:
            break
        kept.append(int(order[n]))
        near = np.array(tree.query_ball_point(centers[n], radii[n]), dtype=np.intp)
        distance = np.linalg.norm(centers[near] - centers[n], axis=1)
        taken[near[distance < _SAME_THING * radii[near]]] = True
    return kept


def _levels_of(peaks: Peaks, kept: list[int]) -> NDArray[np.intp]:
    """For each peak the one at its place that answers most, whose level tells the size: the best in rank is often of a
    larger level."""
    if not kept:
        return np.zeros(0, np.intp)
    near = cKDTree(peaks.ras).query_ball_point(peaks.ras[kept], _SAME_PLACE * peaks.radius[kept])
    return np.array([indices[int(np.argmax(peaks.blob[indices]))] for indices in near], dtype=np.intp)
