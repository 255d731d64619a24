"""Fits the weights of the second ranking of blobs, by rays (:mod:`SAMMed3DLib.finding.blob_ranking`).

    python -m Research.ray_fitting [--shared ../shared] [--rounds 4] [--write finding.json]

The best blobs of the first ranking (``ranking_fitting``) are asked, in scans with nodules painted into the lungs of the
backgrounds that training may use. Leaving out one background at a time tells how good it is; no real nodule and nothing
of the held-out background enters.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from SAMMed3DLib.finding.blob_field import BlobField
from SAMMed3DLib.finding.blob_ranking import RAY_MEASURES
from SAMMed3DLib.finding.candidates import CELL_MM, rayed_places
from SAMMed3DLib.finding.lungs import find_lungs
from SAMMed3DLib.finding.regression import Regression

from .detection_scans import DetectionScan
from .logistic import fit_logistic, write_section
from .ranking_fitting import before_first_hit, fitting_parser, label_places, painted_scans

logger = logging.getLogger(__name__)

LIMITS = (25, 50, 100, 200, 300)
"""How many false candidates a scan may have in the report."""
_NODULE_WEIGHT = 10.0
"""Weight of all places on a nodule together; one elsewhere weighs 1."""
_PENALTY, _PRODUCT_PENALTY = 3.0, 30.0


@dataclass(frozen=True)
class PlacesOfScan:
    """The places of one painted scan that rays were sent from, the best of the first ranking first.

    Attributes:
        background: its number.
        measures: (n, measures).
        nodule: (n,) the nodule that a place is on, -1 of negatives, -2 of those left out.
        distances: (n, nodules) mm to the nodules' centers.
        radii: (nodules,) mm.
    """

    background: int
    measures: np.ndarray
    nodule: np.ndarray
    distances: np.ndarray
    radii: np.ndarray


def places_of(scan: DetectionScan, background: int) -> PlacesOfScan:
    """Sends rays from the best blobs of a painted scan."""
    lungs = find_lungs(scan.array_kji, scan.ijk_to_ras)
    field = BlobField(scan.array_kji, scan.ijk_to_ras, lungs, CELL_MM)
    places = rayed_places(field, lungs, 3.0, 30.0)
    if places is None:
        raise ValueError(f"nothing stands out in {scan.name}")
    label, distances, radii = label_places(scan, places.centers_ras, places.radii_mm)
    logger.info("%s: %d places, %d on nodules", scan.name, len(label), int((label >= 0).sum()))
    return PlacesOfScan(background, places.measures, label, distances, radii)


def fit(scans: Sequence[PlacesOfScan], centers: np.ndarray, scales: np.ndarray) -> Regression:
    """Fits the regression by penalized maximum likelihood (Newton's method)."""
    ranking = Regression(RAY_MEASURES, tuple(centers), tuple(scales))
    inputs, targets, weights = [], [], []
    for scan in scans:
        used = scan.nodule > -2
        nodule = scan.nodule[used]
        positive = nodule >= 0
        per_nodule = np.bincount(nodule[positive], minlength=len(scan.radii))
        weight = np.ones(len(nodule))
        weight[positive] = _NODULE_WEIGHT / per_nodule[nodule[positive]]
        inputs.append(ranking.terms(scan.measures[used]))
        targets.append(positive)
        weights.append(weight)
    x = np.concatenate(inputs)
    count = len(centers)
    penalty = np.concatenate([[1e-6], np.full(count, _PENALTY), np.full(x.shape[1] - count - 1, _PRODUCT_PENALTY)])
    fitted = fit_logistic(x, np.concatenate(targets), np.concatenate(weights), penalty, steps=15)
    return dataclasses.replace(ranking, weights=tuple(fitted))


def false_before_hit(scan: PlacesOfScan, odds: np.ndarray) -> np.ndarray:
    """Counts for each nodule the false places ranked above its first hit (LUNA16's rule); infinity if missed."""
    order = np.argsort(-odds, kind="stable")
    return before_first_hit(scan.nodule[order] == -1, scan.distances[order] < scan.radii)


def main(arguments: Sequence[str] | None = None) -> int:
    """Paints, fits and reports; returns the exit code."""
    options = fitting_parser(__doc__).parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    scans = [places_of(scan, number) for number, scan in painted_scans(options, stream=9)]
    sample = np.concatenate([s.measures[s.nodule >= 0] for s in scans] + [s.measures[::10] for s in scans])
    centers, scales = sample.mean(axis=0), sample.std(axis=0) + 1e-3
    first, rayed = [], []
    for number in sorted({scan.background for scan in scans}):
        ranking = fit([scan for scan in scans if scan.background != number], centers, scales)
        for scan in scans:
            if scan.background == number:
                small = scan.radii < 10.0
                first.append(false_before_hit(scan, -np.arange(len(scan.nodule), dtype=float))[small])
                rayed.append(false_before_hit(scan, ranking.log_odds(scan.measures))[small])
    before, after = np.concatenate(first), np.concatenate(rayed)
    recall = ", ".join(
        f"{np.mean(after < limit):.3f} before {limit} (without rays {np.mean(before < limit):.3f})" for limit in LIMITS
    )
    report = f"{len(scans)} scans; backgrounds left out in turn: recall of {len(after)} nodules of 4-20 mm {recall} "
    report += "false candidates"
    sys.stdout.write(report + "\n")
    if options.write:
        fitted = {"blob": fit(scans, centers, scales)}
        write_section(options.write, "blob_rays", "python -m Research.ray_fitting", f"{report}.", fitted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
