"""Measures the search for all nodules: FROC curves as in LUNA16, and the Dice of the found nodules' masks.

    python -m Research.froc [--shared ../shared] [--sets held-out procedural phantom lidc real] [--json F]
        [--classifiers DIR --samples F.npz]

Five sets, fixed here: nodules of 4-20 mm painted into the held-out lungs, which nothing was ever trained or tuned on,
and into the lungs of synthetic chests; those chests with the nodules they come with; the real LIDC scans; and
real nodules of validation patients put into the held-out lungs and into each of those that training may use, beside
painted ones. What was fitted has seen the latter, unless DIR (of ``classifier_fitting``) and the samples (of
``score_fitting``) are given: then each lung is judged by a classifier and a score that have not.

The hit rule is LUNA16's (Setio et al., Med Image Anal 2017): a detection hits a nodule when its center lies closer to
the nodule's center than the nodule's radius; further hits of the same nodule count as nothing, and so does whatever
lies on lesions that fewer than two readers marked or that have no reference at all. Sensitivity is read off at 1/8,
1/4, 1/2, 1, 2, 4 and 8 false positives a scan; their mean is the CPM. Exit code 1 when a target is missed, 2 when the
data is not there or an option cannot be used.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from SAMMed3DLib.files.output_files import check_writable, whole_file
from SAMMed3DLib.finding.appearance import appearance_of
from SAMMed3DLib.finding.mask_nms import common_voxels
from SAMMed3DLib.inference import InputError, SamAutomaticMaskGenerator3D, SamPredictor3D
from SAMMed3DLib.model import CheckpointError, DeviceError, load_model
from SAMMed3DLib.model.nodule_classifier import load_classifier
from SAMMed3DLib.synthesis import NoduleShapes
from SAMMed3DLib.weights import default_checkpoint

from .backgrounds import HELD_OUT, TRAINING, cached_background
from .classifier_fitting import without
from .detection_scans import (
    KINDS,
    LIDC_SCANS,
    DetectionScan,
    KnownNodule,
    lidc_scan,
    painted_scan,
    phantom_scan,
    procedural_scan,
    real_nodules,
    with_real_nodules,
)
from .ranking_fitting import within_lungs
from .score_fitting import score_without

logger = logging.getLogger(__name__)

SETS = ("held-out", "procedural", "phantom", "lidc", "real")
DEFAULT_SETS = SETS[:4]
"""Without the scans of all lungs, which take long."""
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a scan at which sensitivity is read off."""
SIZES_MM = ((4, 6), (6, 10), (10, 20))
NOTE = "Few patients and synthesis: a development and regression set, never a benchmark."
FOLDERS = {"held-out": "data/background", "lidc": "data/lidc_idri", "real": "data/lidc_voi"}
REAL_PER_SCAN, RESAMPLINGS = 8, 1000
TARGETS = {"held-out": (0.85, 4.0), "lidc": (1.0, 8.0), "real": (0.9, 4.0)}
"""Set: least sensitivity, at so many false positives a scan, for nodules of at least 4 mm (a painted one may come out
smaller than it was drawn); of lidc, for the nodules that four readers marked; of real, but for painted ones."""
LEAST_DICE = 0.7


@dataclass(frozen=True)
class Found:
    """The result for one nodule: whether a detection hit it, and how good its mask is.

    Attributes:
        nodule: which.
        is_candidate: whether the search looked at it at all.
        score: of its best detection; -inf where there is none.
        dice: of that detection; 0 where there is none.
    """

    nodule: KnownNodule
    is_candidate: bool
    score: float = -math.inf
    dice: float = 0.0


@dataclass(frozen=True)
class ScanResult:
    """One scan: its nodules, and the scores of its false positives."""

    scan: str
    source: str
    found: tuple[Found, ...]
    false_positives: tuple[float, ...]
    seconds: float = 0.0


def match(
    scan: DetectionScan,
    records: Sequence[Mapping[str, Any]],
    candidates_ras: np.ndarray | None = None,
    seconds: float = 0.0,
) -> ScanResult:
    """Matches detections to nodules.

    Args:
        scan: with the truth.
        records: of SamAutomaticMaskGenerator3D: ``measurements``, ``score``, ``prediction``.
        candidates_ras: (n, 3) the places that were looked at; None counts the records' own.
    """
    centers = np.array([record["measurements"].centroid_ras for record in records]).reshape(-1, 3)
    looked_at = centers if candidates_ras is None else np.asarray(candidates_ras, dtype=float).reshape(-1, 3)
    is_hit = np.zeros(len(records), dtype=bool)
    found = []
    for nodule in scan.nodules:
        hits = np.flatnonzero(_within(centers, nodule))
        is_hit[hits] = True
        candidate = bool(_within(looked_at, nodule).any())
        if not len(hits):
            found.append(Found(nodule, candidate))
            continue
        best = records[max(hits.tolist(), key=lambda index: records[index]["score"])]
        prediction = best["prediction"]
        dice = 2.0 * common_voxels(nodule, prediction) / (np.count_nonzero(nodule.mask) + prediction.voxels)
        found.append(Found(nodule, candidate, float(best["score"]), dice))
    false = tuple(
        float(record["score"])
        for record, center, hit in zip(records, centers, is_hit, strict=True)
        if not hit and not scan.ignores(center) and not scan.ignores(record["point_coords"][0])
    )
    return ScanResult(scan.name, scan.source, tuple(found), false, seconds)


def _within(points: np.ndarray, nodule: KnownNodule) -> np.ndarray:
    return np.linalg.norm(points - np.asarray(nodule.center_ras), axis=1) < nodule.diameter_mm / 2.0


@dataclass(frozen=True)
class Froc:
    """A free-response (FROC) curve: sensitivity against false positives a scan.

    Attributes:
        thresholds: (n,) falling scores.
        sensitivity, false_positives: (n,) share of nodules found, and false positives a scan, at each threshold.
    """

    thresholds: np.ndarray
    sensitivity: np.ndarray
    false_positives: np.ndarray

    @classmethod
    def of(cls, found: Sequence[Found], false_positives: Sequence[float], scans: int) -> Froc:
        """Makes the curve from nodules and the scores of all false positives in ``scans`` scans."""
        hits = np.sort([each.score for each in found if each.score > -math.inf])
        false = np.sort(np.asarray(false_positives, dtype=float))
        thresholds = np.unique(np.concatenate([hits, false, [math.inf]]))[::-1]
        counts = [len(values) - np.searchsorted(values, thresholds, side="left") for values in (hits, false)]
        return cls(thresholds, counts[0] / max(len(found), 1), counts[1] / max(scans, 1))

    def sensitivity_at(self, rate: float) -> float:
        """The best sensitivity with at most ``rate`` false positives a scan."""
        return float(self.sensitivity[self.false_positives <= rate].max(initial=0.0))

    def threshold_at(self, rate: float) -> float:
        """The lowest score with at most ``rate`` false positives a scan."""
        return float(self.thresholds[self.false_positives <= rate].min(initial=math.inf))

    @property
    def cpm(self) -> float:
        """Mean sensitivity over :data:`RATES`, LUNA16's competition metric."""
        return float(np.mean([self.sensitivity_at(rate) for rate in RATES]))


def evaluate(
    scans: Iterator[DetectionScan] | Sequence[DetectionScan],
    generator: SamAutomaticMaskGenerator3D,
    clock: Callable[[], float] = time.perf_counter,
) -> list[ScanResult]:
    """Runs the generator on every scan."""
    results = []
    for scan in scans:
        generator.predictor.set_image(scan.array_kji, scan.ijk_to_ras)
        begun = clock()
        records = generator.generate()
        seconds = clock() - begun
        places = np.array([candidate.center_ras for candidate in generator.candidates])
        results.append(match(scan, records, places, seconds))
        logger.info(
            "%s: %d of %d nodules among %d candidates, %d masks, %.0f s",
            scan.name,
            sum(each.score > -math.inf for each in results[-1].found),
            len(scan.nodules),
            len(places),
            len(records),
            seconds,
        )
    return results


def scans_of(name: str, shared: Path, count: int = 12, repeats: int = 3, seed: int = 0) -> Iterator[DetectionScan]:
    """Yields the scans of a set, one of :data:`SETS`.

    Args:
        name: which, but for "real" (:func:`real_scans`).
        shared: folder with data/.
        count: nodules painted into each held-out or procedural scan.
        repeats: how often the held-out scan is painted anew, and number of synthetic chests.
        seed: of both.
    """
    if name == "held-out":
        shapes = NoduleShapes.load()
        for ct, masks in HELD_OUT.items():
            with tempfile.TemporaryDirectory() as folder:
                background = cached_background(
                    shared / "data" / ct, tuple(shared / "data" / mask for mask in masks), Path(folder)
                )
            background = within_lungs(background)
            for repeat in range(repeats):
                yield painted_scan(background, name, np.random.default_rng([seed, repeat, 4]), count, shapes)
    elif name == "procedural":
        shapes = NoduleShapes.load()
        for repeat in range(repeats):
            yield procedural_scan(100 * seed + repeat + 51, count, shapes)
    elif name == "phantom":
        for repeat in range(repeats):
            yield phantom_scan(100 * seed + repeat + 1)
    elif name == "lidc":
        for scan in LIDC_SCANS:
            yield lidc_scan(shared / "data" / "lidc_idri", scan)
    else:
        raise ValueError(f"there is no set {name!r} here; there are {', '.join(DEFAULT_SETS)}")


def real_scans(shared: Path, repeats: int, seed: int, cache: Path) -> Iterator[tuple[int, DetectionScan]]:
    """Yields scans with real nodules of validation patients beside as many painted ones, in every lung in turn.

    Args:
        shared: folder with data/.
        repeats: scans of each lung.
        seed: of all of them.
        cache: for prepared lungs.

    Yields:
        the number of the lung among those that training may use, -1 of a held-out one, and a scan.
    """
    shapes = NoduleShapes.load()
    crops = [crop for crop in real_nodules(shared, "validation") if SIZES_MM[0][0] <= crop.diameter_mm]
    for number, (ct, masks) in [*enumerate(TRAINING.items()), *((-1, item) for item in HELD_OUT.items())]:
        paths = tuple(shared / "data" / mask for mask in masks)
        background = within_lungs(cached_background(shared / "data" / ct, paths, cache))
        for repeat in range(repeats):
            rng = np.random.default_rng([seed, repeat, number + 1, 41])
            scan = painted_scan(background, "real", rng, REAL_PER_SCAN, shapes)
            yield number, with_real_nodules(scan, background, crops, rng, REAL_PER_SCAN)


def evaluate_real(options: argparse.Namespace, predictor: SamPredictor3D) -> list[ScanResult]:
    """Evaluates the set of real nodules; each lung is judged by models that have not seen it, if options name them."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for number, scan in real_scans(options.shared, options.repeats, options.seed, Path(folder)):
            judges: dict[str, Any] = {}
            if options.classifiers is not None and number >= 0:
                unseen = load_classifier(without(options.classifiers, number))
                judges = {
                    "classifier": partial(appearance_of, classifier=unseen),
                    "score": score_without(options.samples, number),
                }
            results += evaluate([scan], SamAutomaticMaskGenerator3D(predictor, **judges))
    return results


def interval(results: Sequence[ScanResult], rate: float, seed: int = 0) -> tuple[float, float]:
    """Computes the 95 % interval of the sensitivity at a rate, by bootstrap over the scans."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLINGS):
        drawn = [results[n] for n in rng.integers(len(results), size=len(results))]
        found = _of_wanted_size([each for result in drawn for each in result.found])
        false = [score for result in drawn for score in result.false_positives]
        values.append(Froc.of(found, false, len(drawn)).sensitivity_at(rate))
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


# -- the report -------------------------------------------------------------------------------------------------------


def groups_of(results: Sequence[ScanResult]) -> dict[str, list[Found]]:
    """All nodules, and those of each kind, size and, where there are both, origin: real and painted."""
    found = [each for result in results for each in result.found]
    groups = {"all": found}
    wanted = _of_wanted_size(found)
    if len(wanted) < len(found):
        groups[f">= {SIZES_MM[0][0]} mm"] = wanted
    groups |= {kind: [each for each in found if each.nodule.kind == kind] for kind in KINDS}
    for low, high in SIZES_MM:
        groups[f"{low}-{high} mm"] = [each for each in found if low <= each.nodule.diameter_mm < high]
    groups["> 20 mm"] = [each for each in found if each.nodule.diameter_mm >= 20]
    real = [each for each in wanted if each.nodule.readers is not None]
    if 0 < len(real) < len(wanted):
        groups["real"] = real
        groups["real solid"] = [each for each in real if each.nodule.kind == "solid"]
        groups["real subsolid"] = [each for each in real if each.nodule.kind != "solid"]
        groups["painted"] = [each for each in wanted if each.nodule.readers is None]
    return {name: members for name, members in groups.items() if members}


def real_only(results: Sequence[ScanResult]) -> list[ScanResult]:
    """Leaves out the painted nodules."""
    return [replace(each, found=tuple(f for f in each.found if f.nodule.readers is not None)) for each in results]


def _of_wanted_size(found: Sequence[Found]) -> list[Found]:
    """Drops nodules whose painted voxels are below the smallest wanted size."""
    return [each for each in found if each.nodule.diameter_mm >= SIZES_MM[0][0]]


def table(results: Sequence[ScanResult]) -> str:
    """Tabulates the sensitivity by kind and size; false positives are those of all scans, whatever the group."""
    false = [score for result in results for score in result.false_positives]
    head = f"{'nodules':<14}{'n':>4}{'looked at':>11}" + "".join(f"{f'@{rate:g}':>7}" for rate in RATES)
    lines = [f"{head}{'CPM':>7}{'Dice':>7}"]
    for name, found in groups_of(results).items():
        froc = Froc.of(found, false, len(results))
        hits = [each.dice for each in found if each.score > -math.inf]
        cells = "".join(f"{froc.sensitivity_at(rate):7.2f}" for rate in RATES)
        looked_at = np.mean([each.is_candidate for each in found])
        mean = f"{np.mean(hits):7.2f}" if hits else f"{'-':>7}"
        lines.append(f"{name:<14}{len(found):4d}{looked_at:11.2f}{cells}{froc.cpm:7.2f}{mean}")
    seconds = np.mean([result.seconds for result in results])
    lines.append(
        f"{len(results)} scans, {len(false) / len(results):.1f} false positives each at the lowest score, "
        f"{seconds:.0f} s each; Dice: mean of the hits"
    )
    return "\n".join(lines)


def nodule_lines(results: Sequence[ScanResult]) -> str:
    """One line per nodule: how many false positives of its scan stand above it."""
    lines = [f"{'nodule':<20}{'mm':>6}{'readers':>9}{'score':>8}{'FP above':>10}{'Dice':>7}"]
    for result in results:
        for number, each in enumerate(result.found, start=1):
            above = sum(score >= each.score for score in result.false_positives)
            score = "missed" if each.score == -math.inf else f"{each.score:.2f}"
            lines.append(
                f"{f'{result.scan} #{number}':<20}{each.nodule.diameter_mm:6.1f}{each.nodule.readers or 0:9d}{score:>8}"
                f"{above:10d}{each.dice:7.2f}"
            )
    return "\n".join(lines)


def missed_targets(name: str, results: Sequence[ScanResult]) -> list[str]:
    """Lists the targets that a set misses."""
    if name not in TARGETS:
        return []
    least, rate = TARGETS[name]
    if name == "real":
        results = real_only(results)
    found = [each for result in results for each in result.found]
    false = [score for result in results for score in result.false_positives]
    missed = []
    if name == "lidc":
        for result in results:
            for number, each in enumerate(result.found, start=1):
                above = sum(score >= each.score for score in result.false_positives)
                if each.nodule.readers == 4 and (above > rate or each.dice < LEAST_DICE):
                    missed.append(f"{result.scan} #{number}: {above} false positives above it, Dice {each.dice:.2f}")
        return missed
    reached = Froc.of(_of_wanted_size(found), false, len(results)).sensitivity_at(rate)
    if reached < least:
        size = f"nodules of at least {SIZES_MM[0][0]} mm"
        missed.append(
            f"{name}: sensitivity {reached:.2f} for {size} at {rate:g} false positives a scan, below {least:.2f}"
        )
    return missed


def as_json(results: Sequence[ScanResult]) -> dict[str, Any]:
    """All figures of a set, for files."""
    false = [score for result in results for score in result.false_positives]
    groups = {}
    for name, found in groups_of(results).items():
        froc = Froc.of(found, false, len(results))
        groups[name] = {
            "nodules": len(found),
            "looked_at": float(np.mean([each.is_candidate for each in found])),
            "sensitivity": {f"{rate:g}": froc.sensitivity_at(rate) for rate in RATES},
            "cpm": froc.cpm,
            "dice_of_hits": [each.dice for each in found if each.score > -math.inf],
        }
    return {"scans": len(results), "seconds": [result.seconds for result in results], "groups": groups}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the evaluation; returns the exit code."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name, folder in FOLDERS.items():
        if name in options.sets and not (options.shared / folder).is_dir():
            logger.error("there is no %s: name the folder that holds data/ with --shared", options.shared / folder)
            return 2
    try:
        return _run(options)
    except (InputError, CheckpointError, DeviceError) as error:
        logger.error("%s", error)
        return 2


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/ (%(default)s)")
    parser.add_argument(
        "--sets",
        nargs="+",
        default=list(DEFAULT_SETS),
        metavar="SET",
        choices=SETS,
        help=f"{', '.join(SETS)} (default: all but the last)",
    )
    parser.add_argument("--classifiers", type=Path, metavar="DIR", help="for real: work folder of classifier_fitting")
    parser.add_argument("--samples", type=Path, metavar="F.npz", help="for real: samples of score_fitting")
    parser.add_argument("--checkpoint", type=Path, help="default: the model that ships with the module")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--count", type=_one_or_more, default=12, help="nodules painted into a scan (%(default)s)")
    parser.add_argument("--repeats", type=_one_or_more, default=3, help="scans of each synthetic set (%(default)s)")
    parser.add_argument("--seed", type=_whole, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="write all figures there")
    options = parser.parse_args(arguments)
    if (options.classifiers is None) != (options.samples is None):
        parser.error("--classifiers and --samples go together")
    return options


def _whole(text: str, least: int = 0) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} upward")
    return int(text)


def _one_or_more(text: str) -> int:
    return _whole(text, 1)


def _run(options: argparse.Namespace) -> int:
    if options.json is not None:
        check_writable(options.json, (".json",))
    model = load_model(options.checkpoint or default_checkpoint(), device=options.device, precision=options.precision)
    predictor = SamPredictor3D(model)
    generator = SamAutomaticMaskGenerator3D(predictor)
    figures, missed = {}, []
    for name in options.sets:
        if name == "real":
            results = evaluate_real(options, predictor)
        else:
            results = evaluate(scans_of(name, options.shared, options.count, options.repeats, options.seed), generator)
        sys.stdout.write(f"\n{name}\n{table(results)}\n")
        for what, some in (("all", results), ("real", real_only(results) if name == "real" else [])):
            if len(some) > 1:
                intervals = ((rate, interval(some, rate)) for rate in (1.0, 4.0))
                words = ", ".join(f"{low:.2f} to {high:.2f} at {rate:g}" for rate, (low, high) in intervals)
                sys.stdout.write(f"{what} >= {SIZES_MM[0][0]} mm, 95 % of scans drawn anew: {words} ")
                sys.stdout.write("false positives a scan\n")
        if name == "lidc":
            sys.stdout.write(f"{nodule_lines(results)}\n")
        missed += missed_targets(name, results)
        figures[name] = as_json(results)
    sys.stdout.write(f"{NOTE}\n")
    for line in missed:
        logger.warning("MISSED: %s", line)
    if options.json is not None:
        text = json.dumps({"note": NOTE, "missed": missed, "sets": figures}, indent=1)
        with whole_file(options.json) as part:
            part.write_text(text, encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
