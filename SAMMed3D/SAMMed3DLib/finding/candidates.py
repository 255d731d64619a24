"""Finds places that may be nodules, without a network: bright round things in the lungs, of any size.

Blobs of all sizes are found (:mod:`.blob_pyramid`) in a field where the wall of the lungs is painted over
(:mod:`.blob_field`), so that nodules at the pleura stand free; they are ranked by shape (:mod:`.blob_ranking`), of
several on one thing the best stays, and those are ranked anew by what rays from them meet (:mod:`.blob_ranking`).
Masses so large and dense that they are taken for the wall are no blobs of the lungs; they are looked for as dents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from ..inference.geometry import as_affine, transform_points
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
#: A lung is closed by a ball of this radius over its dents; of what that adds, at least so much is as deep in it.
_DENT_MM, _LEAST_DEPTH_MM = 30.0, 8.0
#: The cells of the lungs are joined to cells of about this edge first.
_DENT_CELL_MM = 4.0
_MOST_DENTS = 12
_SMALLEST_LUNG_MM3 = 100e3
#: Lungs are two where a sagittal plane between has less than this share of the cells of the fullest.
_LEAST_NECK = 0.25


@dataclass(frozen=True)
class Candidate:
    """A place that may be a nodule.

    Attributes:
        center_ras: (3,) RAS mm.
        diameter_mm: of the ball that fits best, within a quarter or so.
        response: how much it looks like a nodule, log odds; larger is likelier; NaN where the blob filter named none.
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
        Candidates, strongest first, dents of the lungs last; [] where nothing stands out.

    Raises:
        InputError: the matrix is none.
        PredictionCancelled: ``progress`` returned False.
    """
    affine = as_affine(ijk_to_ras)
    if lungs is not None and not lungs.found:
        lungs = None
    field = BlobField(array_kji, affine, lungs, CELL_MM)
    places = rayed_places(field, lungs, min_diameter_mm, max_diameter_mm, limit, progress)
    dents = [] if lungs is None else [each for each in dents_of(lungs) if each.diameter_mm <= max_diameter_mm][:limit]
    if places is None:
        return dents
    odds = ray_odds(places.measures)
    solid = field.brightness_of(_SOLID_HU)
    return [
        Candidate(
            (float(places.centers_ras[n, 0]), float(places.centers_ras[n, 1]), float(places.centers_ras[n, 2])),
            float(2 * places.radii_mm[n]),
            float(odds[n]),
            "solid" if places.density[n] >= solid else "subsolid",
        )
        for n in np.argsort(-odds, kind="stable")[: max(limit - len(dents), 0)]
    ] + dents


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


def dents_of(lungs: LungMask) -> list[Candidate]:
    """Where the lungs are dented as by a mass that was taken for their wall, the deepest first.

    A ball that rolls along a lung from outside passes over such places; the heart, the dome of the diaphragm and the
    spine are larger than the ball. At the hilum there are dents in healthy lungs too: the classifier judges them all.
    """
    factor = max(1, round(_DENT_CELL_MM / float(abs(lungs.grid_to_ras[0, 0]))))
    grid_to_ras = np.array(lungs.grid_to_ras)
    grid_to_ras[:3, :3] *= factor
    mask = lungs.mask[::factor, ::factor, ::factor]
    cell = float(abs(grid_to_ras[0, 0]))
    labels, _ = ndimage.label(_parted(mask))
    reach = int(np.ceil(_DENT_MM / cell)) + 1
    found: list[Candidate] = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        own = np.pad(labels[box] == number, reach)
        if np.count_nonzero(own) * cell**3 < _SMALLEST_LUNG_MM3:
            continue
        closed = ndimage.distance_transform_edt(~own, sampling=cell) <= _DENT_MM
        closed = ndimage.distance_transform_edt(closed, sampling=cell) > _DENT_MM
        inside = (slice(reach, -reach),) * 3
        depth = ndimage.distance_transform_edt(np.pad((closed & ~own)[inside] & ~mask[box], 1), sampling=cell)
        depth = depth[1:-1, 1:-1, 1:-1]
        peaks = (depth >= _LEAST_DEPTH_MM) & (depth == ndimage.maximum_filter(depth, size=5))
        places, count = ndimage.label(peaks, np.ones((3, 3, 3)))
        for middle in ndimage.center_of_mass(peaks, places, range(1, count + 1)):
            radius = float(depth[tuple(np.round(middle).astype(int))]) or _LEAST_DEPTH_MM
            start = [part.start for part in box]
            r, a, s = transform_points(grid_to_ras, np.add(middle, start)[::-1])
            found.append(Candidate((float(r), float(a), float(s)), 2.0 * radius, math.nan, "solid"))
    return sorted(found, key=lambda each: -each.diameter_mm)[:_MOST_DENTS]


def _parted(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Lungs [k, j, i] that touch each other, apart: without the sagittal plane between them that has the fewest cells.

    Closed together, they would be closed over all that lies between them.
    """
    columns = mask.sum(axis=(0, 1))
    filled = np.cumsum(columns) / max(int(columns.sum()), 1)
    middle = np.flatnonzero((filled > 0.2) & (filled < 0.8))
    if not len(middle):
        return mask
    thinnest = middle[columns[middle].argmin()]
    if columns[thinnest] > _LEAST_NECK * columns.max():
        return mask
    parted = mask.copy()
    parted[:, :, thinnest] = False
    return parted


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
