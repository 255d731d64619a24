"""Fits the score that tells nodules from vessels (:mod:`SAMMed3DLib.inference.nodule_score`).

    python -m SAMMed3DTrainingLib.score_fitting [--shared ../shared] [--rounds 2] [--samples F.npz] [--write F.py]

Nodules are painted into the backgrounds that training may use; what the generator looks at there, at candidates and at
the painted nodules themselves, is positive where the mask is that of a nodule (Dice above 0.4), negative where it has
nothing of one, and left out between and on the scans' own lesions. Positives are weighted down to four nodules a scan,
so that the probabilities are those of a usual scan. Leaving out one background at a time tells how good it is and
where the slider's thresholds lie. No real nodule and nothing of the held-out background enters.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SAMMed3DLib.inference import SamAutomaticMaskGenerator3D, SamPredictor3D
from SAMMed3DLib.inference.candidates import Candidate, find_candidates
from SAMMed3DLib.inference.lungs import find_lungs
from SAMMed3DLib.inference.mask_nms import common_voxels
from SAMMed3DLib.inference.nodule_score import BASIC, PAIRS, basic_inputs, combined
from SAMMed3DLib.model import load_model
from SAMMed3DLib.synthesis import NoduleShapes
from SAMMed3DLib.weights import default_checkpoint

from .backgrounds import training_backgrounds
from .detection_scans import DetectionScan, painted_scan

logger = logging.getLogger(__name__)

DIAMETERS_MM = (3.5, 25.0)
NODULES_PER_SCAN = 12
USUAL_PER_SCAN = 4.0
LIMIT = 150
"""Candidates looked at in each scan, besides the painted nodules."""
PENALTY = 20.0
FEW_RATE, USUAL_RATE = 0.5, 3.0
"""False positives a scan at the slider's lower end and in its middle."""


@dataclass(frozen=True)
class Samples:
    """What was looked at.

    Attributes:
        coarse, fine: (n, basic inputs) of both looks.
        positive: (n,) whether it is a nodule.
        scan: (n,) number of the scan.
        background: (n,) number of its background.
        nodule: (n,) which nodule of the scan; -1 of negatives.
        response: (n,) of the blob filter; NaN of painted nodules that were looked at without it.
    """

    coarse: np.ndarray
    fine: np.ndarray
    positive: np.ndarray
    scan: np.ndarray
    background: np.ndarray
    nodule: np.ndarray
    response: np.ndarray

    def only(self, which: np.ndarray) -> Samples:
        """Those that a boolean (n,) picks."""
        return Samples(**{name: values[which] for name, values in vars(self).items()})


def scans(shared: Path, cache: Path, rounds: int, seed: int) -> Iterator[tuple[int, DetectionScan]]:
    """The number of the background and the scan painted into it."""
    shapes = NoduleShapes.load()
    for repeat in range(rounds):
        for number, background in enumerate(training_backgrounds(shared / "data", cache)):
            rng = np.random.default_rng([seed, repeat, number, 3])
            yield number, painted_scan(background, "training", rng, NODULES_PER_SCAN, shapes, DIAMETERS_MM)


def gather(numbered: Iterator[tuple[int, DetectionScan]], predictor: SamPredictor3D, seed: int) -> Samples:
    """Looks at candidates and nodules of scans."""
    rows: list[tuple] = []
    rng = np.random.default_rng(seed)
    for number, (background, scan) in enumerate(numbered):
        predictor.set_image(scan.array_kji, scan.ijk_to_ras)
        lungs = find_lungs(scan.array_kji, scan.ijk_to_ras)
        places = find_candidates(scan.array_kji, scan.ijk_to_ras, lungs, limit=LIMIT)
        places += [
            Candidate(
                tuple(np.array(nodule.center_ras) + rng.normal(0.0, 0.12 * nodule.diameter_mm, 3)),
                float(nodule.diameter_mm * np.exp(rng.normal(0.0, 0.2))), math.nan, nodule.kind,
            )
            for nodule in scan.nodules
        ]
        generator = SamAutomaticMaskGenerator3D(
            predictor, point_candidates=places, lungs=lungs, min_score=0.0, pred_iou_thresh=0.0,
            stability_score_thresh=0.0, box_nms_thresh=2.0, containment_thresh=2.0, min_diameter_mm=2.0,
            max_diameter_mm=60.0, max_masks=len(places),
        )
        before = len(rows)
        for record in generator.generate():
            nodule, positive = _label(scan, record)
            if positive is not None:
                inputs = (basic_inputs(record["coarse_features"]), basic_inputs(record["features"]))
                rows.append((*inputs, positive, number, background, nodule, record["response"]))
        logger.info("%s: %d samples, %d of nodules", scan.name, len(rows) - before, sum(r[2] for r in rows[before:]))
    return Samples(*(np.array(column) for column in zip(*rows, strict=True)))


def _label(scan: DetectionScan, record: dict) -> tuple[int, bool | None]:
    """Which nodule a record shows (-1: none), and whether it is a positive sample; None: neither."""
    prediction = record["prediction"]
    center = record["measurements"].centroid_ras
    if scan.ignores(center) or scan.ignores(record["point_coords"][0]):
        return -1, None
    overlap = [
        2.0 * common_voxels(nodule, prediction) / (np.count_nonzero(nodule.mask) + prediction.voxels)
        for nodule in scan.nodules
    ]
    best = int(np.argmax(overlap))
    if overlap[best] > 0.4:
        return best, True
    far = all(np.linalg.norm(np.subtract(center, n.center_ras)) > n.diameter_mm / 2.0 for n in scan.nodules)
    return -1, False if overlap[best] < 0.1 and far else None


@dataclass(frozen=True)
class Fit:
    """A regression on standardized inputs and their products, and on the blob filter's response."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: float
    response_weight: float = 0.0
    usual_response: float = 0.0

    def log_odds(self, samples: Samples) -> np.ndarray:
        """Mean of both looks, and the response; (n,)."""
        response = np.where(np.isnan(samples.response), self.usual_response, samples.response)
        return self.of_looks(samples) + self.response_weight * response

    def of_looks(self, samples: Samples) -> np.ndarray:
        """The part of the looks, (n,)."""
        return np.mean([
            combined((looks - self.mean) / self.scale) @ self.weights + self.intercept
            for looks in (samples.coarse, samples.fine)
        ], axis=0)


def fit(samples: Samples, penalty: float = PENALTY) -> Fit:
    """Penalized maximum likelihood in two steps.

    First all samples without the response, both looks of an object a sample each. Then, where there is a response,
    its weight, the scale of the first step's answer, and corrections of the basic inputs.
    """
    looks = np.concatenate([samples.coarse, samples.fine])
    positive = samples.positive.astype(bool)
    mean, scale = looks.mean(axis=0), looks.std(axis=0) + 1e-3
    inputs = combined((looks - mean) / scale)
    beta = _newton(inputs, np.tile(positive, 2), np.full(inputs.shape[1], penalty))
    first = Fit(mean, scale, beta[:-1], float(beta[-1]))
    asked = ~np.isnan(samples.response)
    if not (positive & asked).any():
        return first
    some = samples.only(asked)
    count = len(mean)
    basic = np.mean([combined((look - mean) / scale)[:, :count] for look in (some.coarse, some.fine)], axis=0)
    inputs = np.column_stack([first.of_looks(some), some.response, basic])
    answer, response, *changes, constant = _newton(
        inputs, positive[asked], np.array([0.01, 0.01, *[penalty] * count])
    ).tolist()
    weights = answer * first.weights
    weights[:count] += changes
    weight = np.where(positive[asked], USUAL_PER_SCAN / NODULES_PER_SCAN, 1.0)
    usual = float(np.average(some.response, weights=weight))
    return Fit(mean, scale, weights, answer * first.intercept + constant, response, usual)


def _newton(inputs: np.ndarray, positive: np.ndarray, penalty: np.ndarray, steps: int = 60) -> np.ndarray:
    """Weights of the inputs (penalized) and a constant, positives weighted down to a usual scan."""
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    target = positive.astype(float)
    weight = np.where(positive, USUAL_PER_SCAN / NODULES_PER_SCAN, 1.0)
    ridge = np.append(penalty, 1e-6)
    beta = np.zeros(inputs.shape[1])
    for _ in range(steps):
        expected = 1.0 / (1.0 + np.exp(-np.clip(inputs @ beta, -30.0, 30.0)))
        hessian = inputs.T @ (inputs * (weight * expected * (1.0 - expected))[:, None]) + np.diag(ridge)
        beta += np.linalg.solve(hessian, inputs.T @ (weight * (target - expected)) - ridge * beta)
    return beta


def held_out_log_odds(samples: Samples, penalty: float = PENALTY) -> np.ndarray:
    """Each background judged by a fit on the others, (n,)."""
    values = np.empty(len(samples.positive))
    for background in np.unique(samples.background):
        own = samples.background == background
        values[own] = fit(samples.only(~own), penalty).log_odds(samples.only(own))
    return values


def threshold_at(log_odds: np.ndarray, samples: Samples, rate: float) -> float:
    """The score with at most ``rate`` false positives a scan."""
    false = np.sort(log_odds[~samples.positive.astype(bool)])[::-1]
    allowed = int(rate * len(np.unique(samples.scan)))
    return float(1.0 / (1.0 + np.exp(-false[min(allowed, len(false) - 1)])))


def sensitivity_at(log_odds: np.ndarray, samples: Samples, rate: float) -> float:
    """Share of the nodules whose best sample stands above that score."""
    level = threshold_at(log_odds, samples, rate)
    found = {
        (scan, nodule)
        for scan, nodule, value in zip(samples.scan, samples.nodule, log_odds, strict=True)
        if nodule >= 0 and 1.0 / (1.0 + np.exp(-value)) > level
    }
    return len(found) / (NODULES_PER_SCAN * len(np.unique(samples.scan)))


def as_module(fitted: Fit, few: float, usual: float, about: str) -> str:
    """The coefficients as a Python file."""
    def numbers(name: str, values: np.ndarray) -> str:
        text = textwrap.fill(", ".join(f"{value:.4f}" for value in values), 116, break_on_hyphens=False)
        return f"{name} = (\n{textwrap.indent(text, '    ')},\n)\n"

    return "\n".join([
        f'"""Coefficients of the score, made by ``python -m SAMMed3DTrainingLib.score_fitting``.\n\n{about}\n"""\n',
        "#: Of the basic inputs: " + ", ".join(BASIC[:7]) + ",\n#: " + ", ".join(BASIC[7:]) + ".",
        numbers("MEAN", fitted.mean) + numbers("SCALE", fitted.scale),
        f"#: Of the {len(BASIC)} standardized inputs and {len(PAIRS)} squares and products.",
        numbers("WEIGHTS", fitted.weights) + f"INTERCEPT = {fitted.intercept:.4f}\n"
        f"RESPONSE_WEIGHT = {fitted.response_weight:.4f}\nUSUAL_RESPONSE = {fitted.usual_response:.4f}\n",
        f"#: Scores with {FEW_RATE:g} and {USUAL_RATE:g} false positives a scan in backgrounds left out of the fit.",
        f"FEW = {few:.4f}\nUSUAL = {usual:.4f}\n",
    ])


def main(arguments: Sequence[str] | None = None) -> int:
    """Gathers samples (or takes them from a file), fits and reports; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/ (%(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("score_fitting"), help="for prepared backgrounds")
    parser.add_argument("--rounds", type=int, default=2, help="scans painted into each background (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=Path, help="keep the samples there, or take them from there")
    parser.add_argument("--write", type=Path, help="write the coefficients there")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if options.samples and options.samples.exists():
        with np.load(options.samples) as data:
            samples = Samples(**{name: data[name] for name in data.files})
    else:
        predictor = SamPredictor3D(load_model(default_checkpoint(), device="cpu", precision="auto"))
        samples = gather(scans(options.shared, options.cache, options.rounds, options.seed), predictor, options.seed)
        if options.samples:
            np.savez(options.samples, **vars(samples))
    odds = held_out_log_odds(samples)
    fitted = fit(samples)
    asked = ~np.isnan(samples.response)
    counts = f"{len(np.unique(samples.scan))} scans, {int(samples.positive.sum())} samples of nodules, "
    counts += f"{int((~samples.positive.astype(bool)).sum())} of others"
    if asked.any():  # what is looked at in use comes from the blob filter
        odds, samples = odds[asked], samples.only(asked)
    rates = (0.5, 1.0, 2.0, 4.0, 8.0)
    reached = ", ".join(f"{sensitivity_at(odds, samples, rate):.2f} at {rate:g}" for rate in rates)
    sys.stdout.write(f"{counts}\nleft-out backgrounds: sensitivity {reached} false positives a scan\n")
    few, usual = (threshold_at(odds, samples, rate) for rate in (FEW_RATE, USUAL_RATE))
    sys.stdout.write(f"thresholds: {few:.3f} few, {usual:.3f} usual\n")
    if options.write:
        about = textwrap.fill(
            f"From {counts}: nodules of {DIAMETERS_MM[0]:g}-{DIAMETERS_MM[1]:g} mm painted into the backgrounds that "
            "training may use, against everything else found there. Backgrounds left out in turn: sensitivity "
            f"{reached} false positives a scan.", 116,
        )
        options.write.write_text(as_module(fitted, few, usual, about), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
