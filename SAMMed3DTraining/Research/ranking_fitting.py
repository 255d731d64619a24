"""Fits the weights that rank blobs (:mod:`SAMMed3DLib.finding.blob_ranking`).

    python -m Research.ranking_fitting [--shared ../shared] [--rounds 4] [--write finding.json]

Nodules are painted into the backgrounds that training may use. Peaks near the center of one and of its size are
positive, peaks far from all are negative, and those between or on the scans' own lesions are left out. All peaks of one
nodule weigh as much as those of another. Leaving out one background at a time tells how good it is; no real nodule and
nothing of the held-out background enters.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from SAMMed3DLib.finding.blob_field import BlobField
from SAMMed3DLib.finding.blob_pyramid import Peaks, find_peaks
from SAMMed3DLib.finding.blob_ranking import MEASURES, measures_of
from SAMMed3DLib.finding.candidates import CELL_MM, best_of_each
from SAMMed3DLib.finding.lungs import find_lungs
from SAMMed3DLib.finding.regression import Regression
from SAMMed3DLib.inference.geometry import transform_points

from .backgrounds import Background, training_backgrounds
from .detection_scans import DetectionScan, painted_scan
from .logistic import fit_logistic, write_section
from .real_samples import training_shapes

logger = logging.getLogger(__name__)

DIAMETERS_MM = (4.0, 30.0)
NODULES_PER_SCAN = 24
LIMITS = (50, 100, 200, 400, 800)
"""How many false candidates a scan may have in the report."""
_NODULE_WEIGHT = 30.0
"""Weight of all peaks of a nodule together; one peak elsewhere weighs 1."""
_NEGATIVES_PER_SCAN = 12_000
_PENALTY = 3.0


@dataclass(frozen=True)
class PeaksOfScan:
    """The peaks of one painted scan.

    Attributes:
        background: its number.
        peaks: all of them.
        measures: (n, measures) of the ranking.
        nodule: (n,) the nodule that a positive peak is on, -1 of negatives, -2 of those left out.
        distances: (n, nodules) mm to the nodules' centers.
        radii: (nodules,) mm.
    """

    background: int
    peaks: Peaks
    measures: np.ndarray
    nodule: np.ndarray
    distances: np.ndarray
    radii: np.ndarray


def within_lungs(background: Background, margin_mm: float = 4.0) -> Background:
    """Removes the mattress from a background, which a threshold on density takes for lung too.

    The lungs are those that are found before anything is painted, with a margin: a nodule that is lost when it is
    painted still counts as missed.
    """
    lungs = find_lungs(background.hu, background.ijk_to_ras)
    cell = float(np.linalg.norm(lungs.grid_to_ras[:3, 0]))
    wide = dataclasses.replace(
        lungs, share=None, mask=ndimage.binary_dilation(lungs.mask, iterations=max(1, round(margin_mm / cell)))
    )
    sites = {
        kind: places[wide.share_at(transform_points(background.ijk_to_ras, places)) > 0.5]
        for kind, places in background.sites.items()
    }
    return dataclasses.replace(background, sites=sites)


def peaks_of(scan: DetectionScan, background: int) -> PeaksOfScan:
    """Finds and labels the peaks of a painted scan."""
    lungs = find_lungs(scan.array_kji, scan.ijk_to_ras)
    field = BlobField(scan.array_kji, scan.ijk_to_ras, lungs, CELL_MM)
    peaks = find_peaks(field, 3.0, 30.0)
    if peaks is None:
        raise ValueError(f"nothing stands out in {scan.name}")
    label, distances, radii = label_places(scan, peaks.ras, peaks.radius)
    logger.info("%s: %d peaks, %d on nodules", scan.name, len(peaks), int((label >= 0).sum()))
    return PeaksOfScan(background, peaks, measures_of(peaks, lungs), label, distances, radii)


def label_places(
    scan: DetectionScan, centers_ras: np.ndarray, radii_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels places: (n,) the nodule that a place is on, -1 far from all, -2 to leave out; their distances to the
    nodules' centers (n, nodules) in mm; and the nodules' radii."""
    centers = np.array([nodule.center_ras for nodule in scan.nodules])
    radii = np.array([nodule.diameter_mm / 2 for nodule in scan.nodules])
    distances = np.linalg.norm(centers_ras[:, None] - centers[None], axis=2)
    nearest = np.argmin(distances / radii, axis=1)
    reach = distances[np.arange(len(centers_ras)), nearest] / radii[nearest]
    size = radii_mm / radii[nearest]
    label = np.full(len(centers_ras), -1)
    label[(reach < 1.6) | (distances < radii + 3.0).any(axis=1)] = -2
    label[[scan.ignores(center) for center in centers_ras]] = -2
    positive = (reach < 0.6) & (size > 0.45) & (size < 1.8)
    label[positive] = nearest[positive]
    return label, distances, radii


def fit(scans: Sequence[PeaksOfScan], centers: np.ndarray, scales: np.ndarray, rng: np.random.Generator) -> Regression:
    """Fits the regression by penalized maximum likelihood (Newton's method)."""
    ranking = Regression(MEASURES, tuple(centers), tuple(scales))
    inputs, targets, weights = [], [], []
    for scan in scans:
        positive, negative = np.flatnonzero(scan.nodule >= 0), np.flatnonzero(scan.nodule == -1)
        negative = rng.choice(negative, min(_NEGATIVES_PER_SCAN, len(negative)), replace=False)
        inputs.append(ranking.terms(scan.measures[np.concatenate([positive, negative])]))
        targets += [np.ones(len(positive)), np.zeros(len(negative))]
        per_nodule = np.bincount(scan.nodule[positive], minlength=len(scan.radii))
        weights += [_NODULE_WEIGHT / per_nodule[scan.nodule[positive]], np.ones(len(negative))]
    x = np.concatenate(inputs)
    fitted = fit_logistic(x, np.concatenate(targets), np.concatenate(weights), np.full(x.shape[1], _PENALTY))
    return dataclasses.replace(ranking, weights=tuple(fitted))


def false_before_hit(scan: PeaksOfScan, odds: np.ndarray, limit: int = 2000) -> np.ndarray:
    """Counts for each nodule the false candidates ranked above its first hit (LUNA16's rule); infinity if missed."""
    kept = best_of_each(scan.peaks, odds, limit)
    return before_first_hit(scan.nodule[kept] == -1, scan.distances[kept] < scan.radii)


def before_first_hit(is_false: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Counts the false candidates before the first hit of each nodule, (nodules,); infinity without a hit.

    Args:
        is_false: (n,) of the candidates, best first.
        hits: (n, nodules) whether a candidate hits a nodule.
    """
    return np.where(hits.any(axis=0), np.cumsum(is_false)[np.argmax(hits, axis=0)].astype(float), np.inf)


def painting_parser(description: str | None) -> argparse.ArgumentParser:
    """Makes the parser of scripts that learn from painted scans."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/ (%(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("score_fitting"), help="for prepared backgrounds")
    parser.add_argument("--rounds", type=int, default=4, help="scans painted into each background (%(default)s)")
    return parser


def fitting_parser(description: str | None) -> argparse.ArgumentParser:
    """Makes the parser of scripts that fit a section of ``finding.json``."""
    parser = painting_parser(description)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE.json",
        help="write what was fitted there: SAMMed3D/Resources/Models/finding.json, or a copy",
    )
    return parser


def painted_scans(options: argparse.Namespace, stream: int) -> Iterator[tuple[int, DetectionScan]]:
    """Yields the number of the background and a painted scan, ``options.rounds`` times for each background.

    Args:
        options: of :func:`fitting_parser`.
        stream: of random numbers; what is fitted on top of another fit must not see its scans.
    """
    shapes = training_shapes(options.shared / "data")
    for number, background in enumerate(training_backgrounds(options.shared / "data", options.cache)):
        background = within_lungs(background)
        for repeat in range(options.rounds):
            rng = np.random.default_rng([options.seed, repeat, number, stream])
            yield number, painted_scan(background, "training", rng, NODULES_PER_SCAN, shapes, DIAMETERS_MM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Paints, fits and reports; returns the exit code."""
    options = fitting_parser(__doc__).parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    scans = [peaks_of(scan, number) for number, scan in painted_scans(options, stream=5)]
    rng = np.random.default_rng(options.seed)
    sample = np.concatenate(
        [s.measures[s.nodule >= 0] for s in scans] + [s.measures[s.nodule == -1][::20] for s in scans]
    )
    centers, scales = sample.mean(axis=0), sample.std(axis=0)
    ranks = []
    for number in sorted({scan.background for scan in scans}):
        ranking = fit([s for s in scans if s.background != number], centers, scales, rng)
        for scan in scans:
            if scan.background == number:
                ranks.append(false_before_hit(scan, ranking.log_odds(scan.measures))[scan.radii < 10.0])
    first = np.concatenate(ranks)
    recall = ", ".join(f"{np.mean(first < limit):.3f} before {limit}" for limit in LIMITS)
    report = f"{len(scans)} scans; backgrounds left out in turn: recall of {len(first)} nodules of 4-20 mm {recall} "
    report += "false candidates"
    sys.stdout.write(report + "\n")
    if options.write:
        fitted = {"peak": fit(scans, centers, scales, rng)}
        write_section(options.write, "blob_ranking", "python -m Research.ranking_fitting", f"{report}.", fitted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
