"""Fits the score that tells nodules from vessels (:mod:`SAMMed3DLib.finding.nodule_score`).

    python -m Research.score_fitting --classifiers DIR [--shared ../shared] [--rounds 5] [--samples F.npz]
        [--write finding.json]

DIR holds the classifiers of ``classifier_fitting``: each background is judged by the one that has not seen it. What
the generator clicks in the backgrounds that training may use is false, but for their own lesions.
Nodules are painted into the same lungs, and real ones of training patients put there; the candidates on them are
positive where the mask is that of the nodule: LUNA16's hit rule and a Dice above 0.3. All samples of a nodule weigh as
much as those of another, and all nodules of a background together as much as the four of a usual scan, so that the
probabilities are those of a usual scan. Leaving out one background at a time tells how good it is and where the
slider's thresholds lie. Nothing of the held-out background and of kept-back patients enters.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from SAMMed3DLib.finding.appearance import appearance_of
from SAMMed3DLib.finding.candidates import Candidate, find_candidates
from SAMMed3DLib.finding.lungs import find_lungs
from SAMMed3DLib.finding.mask_nms import common_voxels
from SAMMed3DLib.finding.nodule_score import COMBINED, OBJECT, PLACE, NoduleScore, object_inputs, place_inputs
from SAMMed3DLib.finding.regression import Regression
from SAMMed3DLib.inference import SamAutomaticMaskGenerator3D, SamPredictor3D
from SAMMed3DLib.model import load_model
from SAMMed3DLib.model.nodule_classifier import NoduleClassifier, load_classifier
from SAMMed3DLib.weights import default_checkpoint

from .backgrounds import TRAINING, training_backgrounds
from .classifier_crops import LARGE_MM, LARGE_PER_SCAN, SMALL_MM, SMALL_PER_SCAN, real_scan
from .classifier_fitting import without
from .detection_scans import DetectionScan, bare_scan, painted_scan, real_nodules
from .logistic import fit_logistic, write_section
from .ranking_fitting import fitting_parser, within_lungs
from .real_samples import training_shapes

logger = logging.getLogger(__name__)

ROUNDS = 5
USUAL_PER_SCAN = 4.0
CANDIDATES = 900
"""Candidates of a scan that are judged, as many as the generator judges."""
CLICKED = 300
"""Those that are clicked, the likeliest; of a painted scan those among them that are on nodules."""
_ON_NODULE = 1.3
"""Candidates closer to a nodule than that many of its radii are clicked."""
PENALTY, PRODUCT_PENALTY = 5.0, 20.0
FEW_RATE, USUAL_RATE = 0.5, 3.0
"""False positives a scan at the slider's lower end and in its middle."""


@dataclass(frozen=True)
class Samples:
    """Samples of one of the two regressions: judged places, or clicked objects.

    Attributes:
        inputs: (n, inputs) of the regression, "place" or "click".
        nodule: (n,) number of the nodule among all that were painted, -1 of what is none.
        background: (n,) number of the background.
        painted: (backgrounds,) how many nodules were painted into each.
    """

    inputs: dict[str, np.ndarray]
    nodule: np.ndarray
    background: np.ndarray
    painted: np.ndarray

    @property
    def positive(self) -> np.ndarray:
        """(n,) bool, which are nodules."""
        return self.nodule >= 0

    @property
    def weight(self) -> np.ndarray:
        """Weight of each sample, (n,): four nodules a background, and one for each false place."""
        if not self.positive.any():
            return np.ones(len(self.nodule))
        per_nodule = np.bincount(self.nodule[self.positive])
        weight = np.ones(len(self.nodule))
        share = USUAL_PER_SCAN / np.maximum(self.painted[self.background[self.positive]], 1)
        weight[self.positive] = share / per_nodule[self.nodule[self.positive]]
        return weight

    def only(self, which: np.ndarray) -> Samples:
        """Returns the samples that a boolean (n,) picks."""
        inputs = {name: values[which] for name, values in self.inputs.items()}
        return Samples(inputs, self.nodule[which], self.background[which], self.painted)


def scans(shared: Path, cache: Path, rounds: int, seed: int) -> Iterator[tuple[int, DetectionScan]]:
    """Yields the number of the background and a scan: as it is, then with painted, with large and with real nodules."""
    shapes = training_shapes(shared / "data")
    backgrounds = [within_lungs(each) for each in training_backgrounds(shared / "data", cache)]
    for number, background in enumerate(backgrounds):
        yield number, bare_scan(background, "training")
    for repeat in range(rounds):
        for number, background in enumerate(backgrounds):
            rng = np.random.default_rng([seed, repeat, number, 31])
            yield number, painted_scan(background, "training", rng, SMALL_PER_SCAN, shapes, SMALL_MM)
    for repeat in range(max(1, rounds // 3)):
        for number, background in enumerate(backgrounds):
            rng = np.random.default_rng([seed, repeat, number, 32])
            yield number, painted_scan(background, "training", rng, LARGE_PER_SCAN, shapes, LARGE_MM)
    real = real_nodules(shared, "train")
    for repeat in range(max(1, rounds // 2)):
        for number, background in enumerate(backgrounds):
            yield number, real_scan(background, real, np.random.default_rng([seed, repeat, number, 33]))


def gather(
    numbered: Iterator[tuple[int, DetectionScan]],
    predictor: SamPredictor3D,
    classifiers: Mapping[int, NoduleClassifier],
) -> tuple[Samples, Samples]:
    """Judges the candidates of scans and clicks the likeliest; where there are nodules, those on them.

    Args:
        numbered: background and scan.
        predictor: looks and clicks.
        classifiers: for each background the one that has not seen it.

    Returns:
        what was judged, and what was clicked.
    """
    places, objects = _Rows("place"), _Rows("click")
    painted: dict[int, int] = {}
    first = 0
    for number, scan in numbered:
        classify = partial(appearance_of, classifier=classifiers[number])
        predictor.set_image(scan.array_kji, scan.ijk_to_ras)
        lungs = find_lungs(scan.array_kji, scan.ijk_to_ras)
        found = find_candidates(scan.array_kji, scan.ijk_to_ras, lungs, limit=CANDIDATES)
        odds = classify(
            scan.array_kji, scan.ijk_to_ras, [each.center_ras for each in found], [each.diameter_mm for each in found]
        )
        for place, appearance in zip(found, odds, strict=True):
            nodule = _nodule_at(scan, place.center_ras)
            if nodule is not None:
                inputs = place_inputs(place.diameter_mm, place.response, float(appearance))
                places.add(inputs, nodule if nodule < 0 else first + nodule, number)
        likeliest = np.argsort([-place.response - value for place, value in zip(found, odds, strict=True)])[:CLICKED]
        chosen = [found[n] for n in likeliest if not scan.nodules or _is_on_nodule(found[n], scan)]
        generator = SamAutomaticMaskGenerator3D(
            predictor,
            point_candidates=chosen,
            lungs=lungs,
            min_score=0.0,
            pred_iou_thresh=0.0,
            stability_score_thresh=0.0,
            box_nms_thresh=2.0,
            containment_thresh=2.0,
            min_diameter_mm=2.0,
            max_diameter_mm=60.0,
            classifier=classify,
        )
        before = len(objects)
        for record in generator.generate():
            nodule = _label(scan, record)
            if nodule is not None:
                response = record["response"]
                click = object_inputs(record["features"], response, record["appearance"], record["agreement"])
                objects.add(click, nodule if nodule < 0 else first + nodule, number)
        painted[number] = painted.get(number, 0) + len(scan.nodules)
        first += len(scan.nodules)
        logger.info("%s: %d places clicked, %d samples", scan.name, len(chosen), len(objects) - before)
    counts = np.array([painted.get(number, 0) for number in range(max(painted) + 1)])
    return places.samples(counts), objects.samples(counts)


class _Rows:
    """Samples that are being gathered."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rows: list[tuple[np.ndarray, int, int]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, inputs: np.ndarray, nodule: int, background: int) -> None:
        self._rows.append((inputs, nodule, background))

    def samples(self, painted: np.ndarray) -> Samples:
        inputs, nodule, background = zip(*self._rows, strict=True)
        return Samples({self._name: np.array(inputs)}, np.array(nodule), np.array(background), painted)


def _nodule_at(scan: DetectionScan, center_ras: Sequence[float]) -> int | None:
    """Finds the nodule that a place hits by LUNA16's rule; -1 far from all, None in between."""
    if scan.ignores(center_ras):
        return None
    if not scan.nodules:
        return -1
    reach = [np.linalg.norm(np.subtract(center_ras, n.center_ras)) / (n.diameter_mm / 2.0) for n in scan.nodules]
    best = int(np.argmin(reach))
    return best if reach[best] < 1.0 else None


def _is_on_nodule(place: Candidate, scan: DetectionScan) -> bool:
    return any(
        np.linalg.norm(np.subtract(place.center_ras, nodule.center_ras)) < _ON_NODULE * nodule.diameter_mm / 2.0
        for nodule in scan.nodules
    )


def _label(scan: DetectionScan, record: dict) -> int | None:
    """Finds the nodule that a record shows; -1 where it shows none, None in between."""
    prediction = record["prediction"]
    found = None if scan.ignores(record["point_coords"][0]) else _nodule_at(scan, record["measurements"].centroid_ras)
    if found is None or found < 0:
        return found
    nodule = scan.nodules[found]
    overlap = 2.0 * common_voxels(nodule, prediction) / (np.count_nonzero(nodule.mask) + prediction.voxels)
    return found if overlap > 0.3 else None


def fit(inputs: np.ndarray, names: tuple[str, ...], samples: Samples) -> Regression:
    """Fits a regression on inputs (n, names) by penalized maximum likelihood."""
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-3
    regression = Regression(names, tuple(mean), tuple(scale), intercept=0.0, multiplied=COMBINED)
    terms = regression.terms(inputs)
    penalty = np.full(terms.shape[1] + 1, PRODUCT_PENALTY)
    penalty[: len(names)], penalty[-1] = PENALTY, 1e-6
    terms = np.column_stack([terms, np.ones(len(terms))])
    beta = fit_logistic(terms, samples.positive, samples.weight, penalty)
    return dataclasses.replace(regression, weights=tuple(beta[:-1]), intercept=float(beta[-1]))


def score_without(file: Path, background: int) -> NoduleScore:
    """Fits the score on the samples of a file (``--samples``) of all backgrounds but one."""
    fits = []
    for samples, name, names in zip(_read(file), ("place", "click"), (PLACE, OBJECT), strict=True):
        others = samples.only(samples.background != background)
        fits.append(fit(others.inputs[name], names, others))
    return NoduleScore(*fits)


def held_out_log_odds(inputs: np.ndarray, names: tuple[str, ...], samples: Samples) -> np.ndarray:
    """Judges each background by a fit on the others: log odds (n,)."""
    values = np.empty(len(samples.nodule))
    for background in np.unique(samples.background):
        own = samples.background == background
        values[own] = fit(inputs[~own], names, samples.only(~own)).log_odds(inputs[own])
    return values


def threshold_at(log_odds: np.ndarray, samples: Samples, rate: float) -> float:
    """The score with at most ``rate`` false positives a background."""
    false = np.sort(log_odds[~samples.positive])[::-1]
    allowed = int(rate * len(np.unique(samples.background)))
    return float(1.0 / (1.0 + np.exp(-false[min(allowed, len(false) - 1)])))


def sensitivity_at(log_odds: np.ndarray, samples: Samples, rate: float) -> float:
    """Share of all nodules whose best sample scores above that threshold."""
    above = 1.0 / (1.0 + np.exp(-log_odds)) > threshold_at(log_odds, samples, rate)
    return len(np.unique(samples.nodule[above & samples.positive])) / int(samples.painted.sum())


def _read(file: Path) -> tuple[Samples, Samples]:
    with np.load(file) as data:
        places, objects = (
            Samples({name: data[name]}, data[f"{kind}_nodule"], data[f"{kind}_background"], data["painted"])
            for kind, name in (("places", "place"), ("objects", "click"))
        )
    return places, objects


def _write(file: Path, places: Samples, objects: Samples) -> None:
    inputs: dict[str, Any] = {**places.inputs, **objects.inputs}
    np.savez(
        file,
        painted=places.painted,
        **inputs,
        places_nodule=places.nodule,
        places_background=places.background,
        objects_nodule=objects.nodule,
        objects_background=objects.background,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Gathers samples (or takes them from a file), fits and reports; returns the exit code."""
    parser = fitting_parser(__doc__)
    parser.set_defaults(rounds=ROUNDS)
    parser.add_argument("--classifiers", type=Path, help="work folder of classifier_fitting")
    parser.add_argument("--samples", type=Path, help="keep the samples there, or take them from there")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if options.samples and options.samples.exists():
        places, objects = _read(options.samples)
    elif options.classifiers:
        predictor = SamPredictor3D(load_model(default_checkpoint(), device="cpu", precision="auto"))
        classifiers = {n: load_classifier(without(options.classifiers, n)) for n in range(len(TRAINING))}
        numbered = scans(options.shared, options.cache, options.rounds, options.seed)
        places, objects = gather(numbered, predictor, classifiers)
        if options.samples:
            _write(options.samples, places, objects)
    else:
        parser.error("name --classifiers, or --samples that were gathered before")
    counts = f"{int(objects.painted.sum())} nodules ({int(objects.positive.sum())} samples) and "
    counts += f"{int((~objects.positive).sum())} other places in {len(objects.painted)} backgrounds"
    sys.stdout.write(f"{counts}\n")
    fitted, reached = {}, {}
    for name, names, samples in (("place", PLACE, places), ("click", OBJECT, objects)):
        inputs = samples.inputs[name]
        odds = held_out_log_odds(inputs, names, samples)
        rates = (0.5, 1.0, 2.0, 4.0, 8.0)
        reached[name] = ", ".join(f"{sensitivity_at(odds, samples, rate):.2f} at {rate:g}" for rate in rates)
        text = f"left-out backgrounds, after the {name}: sensitivity {reached[name]} false positives a scan"
        sys.stdout.write(f"{text}\n")
        fitted[name] = fit(inputs, names, samples)
    slider = (threshold_at(odds, objects, FEW_RATE), threshold_at(odds, objects, USUAL_RATE))
    sys.stdout.write(f"thresholds: {slider[0]:.3f} few, {slider[1]:.3f} usual\n")
    if options.write:
        about = (
            f"From {counts}: nodules of {SMALL_MM[0]:g}-{LARGE_MM[1]:g} mm painted, and real ones put, into the "
            "backgrounds that training may use, against what else is found there. Backgrounds left out in turn: "
            f"sensitivity {reached['click']} false positives a scan. Slider: scores with {FEW_RATE:g} and "
            f"{USUAL_RATE:g} false positives a scan in "
            "backgrounds left out of the fit. Usual: where the blob filter or the classifier was not asked."
        )
        usual = np.average(objects.inputs["click"], axis=0, weights=objects.weight)
        values = {
            **fitted,
            "usual": {name: round(float(usual[OBJECT.index(name)]), 4) for name in ("response", "appearance")},
            "slider": {"few": round(slider[0], 4), "usual": round(slider[1], 4)},
        }
        write_section(options.write, "nodule_score", "python -m Research.score_fitting", about, values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
