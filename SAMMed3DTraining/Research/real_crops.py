"""Measures one-click and few-click segmentation on real nodules: crops of LIDC-IDRI with every reader's own mask.

    python -m Research.real_crops --shared ../shared [--checkpoint F ...] [--split validation] [--out DIR]

Reads ``data/lidc_voi`` of the shared folder, surrounds each crop with plausible lung by the rule that comes with the
data, and takes the nodules that the crop shows with at least one slice of margin at both ends. Simulated users click:

* ``challenge``: ten clicks, each in the most interior voxel of the largest error (the CVPR 2025 challenge's rule);
* ``inner``: eight random first clicks in the inner half of the nodule, which also tell how much the volume depends on
  the click (coefficient of variation); the first of them is corrected up to five clicks;
* ``border``: a random first click in the outer third, corrected up to five clicks;
* ``outside``: a random first click one voxel outside in the slice, corrected up to five clicks; two voxels once.

Every mask is compared with the consensus of the readers (half of them or more) and with each reader. Several
checkpoints are measured side by side. Exit code 2 when the data is not there or an option cannot be used.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from SAMMed3DLib.files.output_files import check_folder, whole_file
from SAMMed3DLib.inference import InputError, SamPredictor3D, measure_nodule
from SAMMed3DLib.inference.geometry import PlacedMask, voxel_spacing
from SAMMed3DLib.inference.prediction import Prediction
from SAMMed3DLib.model import CheckpointError, DeviceError, load_model
from SAMMed3DLib.weights import default_checkpoint
from SAMMed3DTrainingLib.data.clicks import ClickSimulator
from SAMMed3DTrainingLib.evaluate.evaluation import NoduleResult, common_frame, dice, evaluate_nodule
from SAMMed3DTrainingLib.evaluate.metrics import bootstrap_interval, surface_dice, variation

from .real_nodules import largest_drop
from .real_samples import consensus_of

logger = logging.getLogger(__name__)

MARGIN_MM = 24.0
CLICKS = 10
CORRECTED = 5
FIRST_CLICKS = 8
SHOWN = (1, 2, 3, 5, 10)
FAILURE = 0.5
NOTE = "A crop shows a nodule with 5-20 voxels of its own surroundings; what lies beyond is made up."
#: Strata: the index's column, and (name, at least, below).
STRATA: dict[str, tuple[str, tuple[tuple[str, float, float], ...]]] = {
    "diameter": (
        "equivalent_diameter_mm",
        (("3-6 mm", 0, 6), ("6-10 mm", 6, 10), ("10-20 mm", 10, 20), ("20-30 mm", 20, 30), ("> 30 mm", 30, 999)),
    ),
    "texture": ("texture", (("ground glass (< 2.5)", 0, 2.5), ("part-solid (2.5-4)", 2.5, 4), ("solid (4-5)", 4, 9))),
    "margin": ("margin", (("blurred (< 3.5)", 0, 3.5), ("in between (3.5-4.5)", 3.5, 4.5), ("sharp (4.5-5)", 4.5, 9))),
    "spiculation": ("spiculation", (("none (< 2)", 0, 2), ("some (2-3)", 2, 3), ("spiculated (3-5)", 3, 9))),
    "slices": ("slice_spacing_mm", (("to 1.25 mm", 0, 1.3), ("above 1.25 mm", 1.3, 99))),
}
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class RealNodule:
    """A nodule of the index, in a volume with surroundings.

    Attributes:
        facts: its row of the index.
        hu: (K, J, I) int16.
        ijk_to_ras: 4x4.
        readers: (n, K, J, I), each reader's mask, the drawn outline excluded.
        consensus: (K, J, I), voxels of at least half of the readers.
    """

    facts: Mapping[str, str]
    hu: NDArray[np.int16]
    ijk_to_ras: NDArray[np.float64]
    readers: BoolArray
    consensus: BoolArray

    @property
    def name(self) -> str:
        """Name of its file, without ending."""
        return self.facts["name"]

    @property
    def spacing_kji(self) -> NDArray[np.float64]:
        """Voxel size along k, j, i in mm."""
        return voxel_spacing(self.ijk_to_ras)[::-1]

    @property
    def readers_dice(self) -> float:
        """Mean Dice over all pairs of readers; NaN of one reader."""
        pairs = [dice(first, second) for number, first in enumerate(self.readers) for second in self.readers[:number]]
        return _mean(pairs)

    @property
    def left_out(self) -> list[tuple[BoolArray, BoolArray]]:
        """Each of four readers, and the consensus of the others; empty of fewer readers, where half is one of two."""
        if len(self.readers) < 4:
            return []
        return [(reader, consensus_of(np.delete(self.readers, n, axis=0))) for n, reader in enumerate(self.readers)]


def read_nodules(
    folder: Path, split: str, limit: int | None = None, enlarge_to_mm: float = 0.0
) -> Iterator[RealNodule]:
    """The nodules of a split with at least one slice of margin above and below, in the index's order.

    Args:
        folder: ``lidc_voi``.
        split: "train" or "validation".
        limit: take the first so many.
        enlarge_to_mm: give each nodule of 12 mm or more this equivalent diameter by stretching its voxels, to stand in
            for masses, which the crops lack; smaller nodules are left out. 0 takes all nodules as they are.

    Raises:
        InputError: no index, or no nodule of this split.
    """
    index = folder / "index.csv"
    if not index.is_file():
        raise InputError(f"there is no {index}: name the folder that holds data/lidc_voi with --shared")
    with index.open(encoding="utf-8", newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["split"] == split
            and int(row["slices_below"]) >= 1
            and int(row["slices_above"]) >= 1
            and (not enlarge_to_mm or float(row["equivalent_diameter_mm"]) >= 12.0)
        ]
    if not rows:
        raise InputError(f"{index} lists no nodule of split {split!r} with margin on both sides")
    for row in rows[:limit]:
        with np.load(folder / f"{row['name']}.npz") as stored:
            hu, count = stored["hu"], int(stored["nvotes"])
            bits = np.unpackbits(stored["votes"])[: count * hu.size]
            matrix = stored["affine"].astype(np.float64)
        readers = bits.reshape(count, *hu.shape).astype(bool)
        if enlarge_to_mm:
            matrix[:3] *= enlarge_to_mm / float(row["equivalent_diameter_mm"])
        yield surround(row, hu, readers, matrix)


def surround(
    facts: Mapping[str, str], hu: NDArray[np.int16], readers: BoolArray, ijk_to_ras: NDArray, seed: int = 1
) -> RealNodule:
    """Surrounds a crop with 24 mm of plausible lung, by the data's own rule so that figures compare.

    In the slice the crop's edge is repeated with noise; above and below the last slice is repeated and the nodule's
    shadow in it replaced by lung texture.

    Args:
        facts: the nodule's row of the index.
        hu: (K, J, I) the crop.
        readers: (n, K, J, I) masks.
        ijk_to_ras: (4, 4) of the crop.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    pads = [int(np.ceil(MARGIN_MM / step)) for step in voxel_spacing(ijk_to_ras)[::-1]]
    width = [(pad, pad) for pad in pads]
    lung = hu[(hu < -600) & (hu > -1000)]
    level, deviation = -850.0, 30.0
    if lung.size > 50:
        level = float(np.median(lung))
        deviation = min(60.0, float(hu[np.abs(hu - level) < 120].std()))
    filled = np.pad(hu, width, mode="edge").astype(np.float32)
    shadow = np.pad(ndimage.binary_dilation(readers.any((0, 1)), iterations=3), width[1:])
    for block in (filled[: pads[0]], filled[pads[0] + len(hu) :]):
        noise = ndimage.gaussian_filter(rng.normal(0, 1, block.shape), (0.4, 0.7, 0.7))
        replaced = shadow[None] & (block < -200)
        block[replaced] = (level + noise * (deviation / noise.std()))[replaced]
    beside = np.ones(filled.shape, bool)
    beside[:, pads[1] : -pads[1], pads[2] : -pads[2]] = False
    filled[beside] += rng.normal(0, deviation / 2, filled.shape)[beside].astype(np.float32)
    matrix = np.array(ijk_to_ras, dtype=np.float64)
    matrix[:3, 3] -= matrix[:3, :3] @ np.array(pads[::-1])
    readers = np.pad(readers, [(0, 0), *width])
    hu = np.clip(np.rint(filled), -1024, 3071).astype(np.int16)
    return RealNodule(facts, hu, matrix, readers, consensus_of(readers))


@dataclass(frozen=True)
class FirstClicks:
    """First clicks of simulated users, as voxels (k, j, i): the same for every checkpoint.

    Attributes:
        inner: (8, 3) in the inner half by depth.
        border: in the outer third.
        outside: one voxel outside in the slice.
        further: two voxels outside in the slice.
    """

    inner: NDArray[np.int64]
    border: NDArray[np.int64]
    outside: NDArray[np.int64]
    further: NDArray[np.int64]


def first_clicks(nodule: RealNodule) -> FirstClicks:
    """Draws the first clicks, seeded with the nodule's name, so that a subset of the nodules gets the same clicks."""
    rng = np.random.default_rng(zlib.crc32(nodule.name.encode()))
    # The volume goes on around the nodule, so that no border of the array counts as outside too early.
    depth = ndimage.distance_transform_edt(nodule.consensus, sampling=nodule.spacing_kji)
    rim = nodule.consensus & (depth <= depth.max() / 3.0)
    if not rim.any():  # hardly larger than a voxel
        rim = nodule.consensus & (depth <= depth[nodule.consensus].min())
    cross = np.zeros((3, 3, 3), dtype=bool)
    cross[1, 1, :] = cross[1, :, 1] = True
    once = ndimage.binary_dilation(nodule.consensus, cross)
    twice = ndimage.binary_dilation(once, cross)

    def draw(where: BoolArray, count: int) -> NDArray[np.int64]:
        found = np.argwhere(where)
        return found[rng.integers(len(found), size=count)]

    inner = draw(depth > depth.max() / 2.0, FIRST_CLICKS)
    return FirstClicks(inner, draw(rim, 1)[0], draw(once & ~nodule.consensus, 1)[0], draw(twice & ~once, 1)[0])


def measure(predictor: SamPredictor3D, nodule: RealNodule, clicks: int = CLICKS) -> dict[str, Any]:
    """Measures one nodule; returns plain numbers and lists for JSON."""
    predictor.set_image(nodule.hu, nodule.ijk_to_ras)
    first = first_clicks(nodule)

    def click(voxel: NDArray[np.int64] | None, count: int) -> NoduleResult:
        return evaluate_nodule(
            predictor,
            nodule.consensus,
            nodule.ijk_to_ras,
            min(count, clicks),
            ClickSimulator("challenge", 0),
            first_voxel=voxel,
        )

    started = time.perf_counter()
    challenge = click(None, CLICKS)
    inner = [click(voxel, CORRECTED if number == 0 else 1) for number, voxel in enumerate(first.inner)]
    border, outside, further = (
        click(voxel, count)
        for voxel, count in ((first.border, CORRECTED), (first.outside, CORRECTED), (first.further, 1))
    )
    measured = [measure_nodule(result.predictions[0], nodule.hu, nodule.ijk_to_ras).volume_mm3 for result in inner]
    one = challenge.predictions[0]
    left_out = [(reader, others) for reader, others in nodule.left_out if others.any()]
    judged = [prediction for result in (challenge, *inner, border, outside) for prediction in result.predictions]
    return {
        "name": nodule.name,
        "patient": nodule.facts["patient"],
        "readers_dice": nodule.readers_dice,
        "left_out_reader": _mean([dice(reader, others) for reader, others in left_out]),
        "left_out_mask": _mean([dice(*_frame(nodule, others, one)) for _, others in left_out]),
        "challenge": list(challenge.dice),
        "single_readers": _carried([_reader_dice(nodule, p) for p in challenge.predictions], len(challenge.dice)),
        "nsd_1mm": _carried([_surface(nodule, p) for p in challenge.predictions[:CORRECTED]], CORRECTED),
        "volume_ratio": [volume / challenge.truth_mm3 for volume in challenge.volumes_mm3],
        "inner": list(inner[0].dice),
        "inner_first": [result.dice[0] for result in inner],
        "inner_voxel_mm3": [result.volumes_mm3[0] for result in inner],
        "inner_measured_mm3": measured,
        "border": list(border.dice),
        "outside": list(outside.dice),
        "outside_2": list(further.dice),
        "predicted_iou": [getattr(p, "score", None) for p in judged],
        "true_iou": [_iou(nodule, p) for p in judged],
        "seconds": time.perf_counter() - started,
    }


def _carried(values: list[float], count: int) -> list[float]:
    """Repeats the last value once nothing was left to correct."""
    return values + values[-1:] * (count - len(values))


def _frame(nodule: RealNodule, truth: BoolArray, prediction: PlacedMask) -> tuple[BoolArray, BoolArray]:
    box = ndimage.find_objects(truth.astype(np.uint8))[0]
    origin = np.array([part.start for part in box])
    first, second, _ = common_frame(truth[box], origin, prediction)
    return first, second


def _reader_dice(nodule: RealNodule, prediction: PlacedMask) -> float:
    return _mean([dice(*_frame(nodule, reader, prediction)) for reader in nodule.readers if reader.any()])


def _mean(values: Sequence[float]) -> float:
    """The mean, NaN of nothing."""
    return float(np.mean(values)) if values else float("nan")


def _iou(nodule: RealNodule, prediction: PlacedMask) -> float:
    value = dice(*_frame(nodule, nodule.consensus, prediction))
    return value / (2.0 - value)


def _surface(nodule: RealNodule, prediction: PlacedMask) -> float:
    return surface_dice(*_frame(nodule, nodule.consensus, prediction), nodule.spacing_kji.tolist(), (1.0,))[0]


# -- summary -----------------------------------------------------------------------------------------------------------


def summarize(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over nodules with intervals by patient, failures, spread, calibration and the effect of further clicks."""
    patients = [result["patient"] for result in results]

    def curve(key: str) -> NDArray[np.float64]:
        return np.array([result[key] for result in results], dtype=np.float64)

    def figures(key: str) -> dict[str, Any]:
        values = curve(key)
        shown = [click for click in SHOWN if click <= values.shape[1]]
        return {
            str(click): {
                "mean": float(values[:, click - 1].mean()),
                "interval": bootstrap_interval(values[:, click - 1].tolist(), patients),
                "failures": float(np.mean(values[:, click - 1] < FAILURE)),
                "worst": float(values[:, click - 1].min()),
            }
            for click in shown
        }

    summary: dict[str, Any] = {"nodules": len(results), "patients": len(set(patients))}
    for key in ("challenge", "single_readers", "nsd_1mm", "inner", "border", "outside", "outside_2"):
        summary[key] = figures(key)
    ratio = curve("volume_ratio")
    summary["volume_ratio"] = {
        str(click): [float(value) for value in np.quantile(ratio[:, click - 1], (0.5, 0.1, 0.9))]
        for click in SHOWN
        if click <= ratio.shape[1]
    }
    firsts = curve("inner_first")
    summary["inner_first"] = {"mean": float(firsts.mean()), "mean_of_worst": float(firsts.min(axis=1).mean())}
    for key in ("readers_dice", "left_out_reader", "left_out_mask"):
        summary[key] = _mean([result[key] for result in results if not np.isnan(result[key])])
    for key in ("inner_voxel_mm3", "inner_measured_mm3"):
        spread = [variation(result[key]) or 0.0 for result in results]
        summary[f"variation_{key.split('_')[1]}"] = {
            "median": float(np.median(spread)),
            "p90": float(np.quantile(spread, 0.9)),
            "worst": float(max(spread)),
        }
    summary["drops"] = {}
    for key in ("challenge", "inner", "border", "outside"):
        values = curve(key)
        single = [largest_drop(row) for row in values]
        worst = int(np.argmax(single))
        summary["drops"][key] = {
            "mean": largest_drop(values.mean(axis=0)),
            "single": single[worst],
            "nodule": results[worst]["name"],
            "above_0.03": int(np.sum(np.array(single) > 0.03)),
        }
    summary["calibration"] = calibration(
        [value for result in results for value in result["predicted_iou"]],
        [value for result in results for value in result["true_iou"]],
    )
    summary["seconds"] = float(sum(result["seconds"] for result in results))
    return summary


def calibration(predicted: Sequence[float | None], true: Sequence[float]) -> dict[str, float] | None:
    """Measures how well the predicted IoU matches the true one.

    Returns:
        ``pearson``; ``expected_error``, the expected calibration error over ten bins of equal width of the prediction;
        ``absolute_error``, the mean distance. None where the checkpoint predicts none.
    """
    known = [(p, t) for p, t in zip(predicted, true, strict=True) if p is not None]
    if len(known) < 3:
        return None
    told, real = np.array(known, dtype=np.float64).T
    bins = np.minimum((told * 10).astype(int), 9)
    gaps = [abs(told[bins == n].mean() - real[bins == n].mean()) * np.mean(bins == n) for n in np.unique(bins)]
    constant = np.ptp(told) == 0 or np.ptp(real) == 0
    return {
        "pearson": 0.0 if constant else float(np.corrcoef(told, real)[0, 1]),
        "expected_error": float(np.sum(gaps)),
        "absolute_error": float(np.abs(told - real).mean()),
    }


def strata_of(nodules: Mapping[str, Mapping[str, str]], results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Divides the nodules by size, texture, margin, spiculation and slice thickness; empty strata are left out."""
    rows = []
    for kind, (column, bounds) in STRATA.items():
        for name, low, high in bounds:
            own = [result for result in results if low <= float(nodules[result["name"]][column]) < high]
            if own:
                rows.append({"kind": kind, "stratum": name, **summarize(own)})
    return rows


# -- tables ------------------------------------------------------------------------------------------------------------


def table(names: Sequence[str], summaries: Sequence[Mapping[str, Any]]) -> str:
    """All figures as a Markdown table, one column a checkpoint."""

    def clicks(key: str, figure: str = "mean") -> Callable[[Mapping[str, Any]], str]:
        return lambda summary: " / ".join(f"{values[figure]:.3f}" for values in summary[key].values())

    def spread(key: str) -> Callable[[Mapping[str, Any]], str]:
        return lambda summary: " / ".join(f"{100 * summary[key][each]:.1f} %" for each in ("median", "p90", "worst"))

    def drops(key: str) -> Callable[[Mapping[str, Any]], str]:
        return lambda summary: (
            f"{summary['drops'][key]['mean']:.3f} / {summary['drops'][key]['single']:.3f}"
            f" ({summary['drops'][key]['above_0.03']})"
        )

    def interval(summary: Mapping[str, Any]) -> str:
        bounds = summary["challenge"]["1"]["interval"]
        return "-" if bounds is None else f"{bounds[0]:.3f}-{bounds[1]:.3f}"

    def failures(summary: Mapping[str, Any]) -> str:
        keys = ("challenge", "inner", "border", "outside", "outside_2")
        return " / ".join(f"{100 * summary[key]['1']['failures']:.1f}" for key in keys)

    def head(summary: Mapping[str, Any]) -> str:
        known = summary["calibration"]
        return (
            "-"
            if known is None
            else " / ".join(f"{known[key]:.3f}" for key in ("pearson", "expected_error", "absolute_error"))
        )

    def ratio(summary: Mapping[str, Any]) -> str:
        middle, low, high = summary["volume_ratio"]["1"]
        return f"{middle:.2f} ({low:.2f}-{high:.2f})"

    shown = " / ".join(str(click) for click in SHOWN)
    corrected = " / ".join(str(click) for click in SHOWN if click <= CORRECTED)
    lines: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        (f"consensus, {shown} clicks", clicks("challenge")),
        ("95 % interval at 1, by patient", interval),
        ("readers with each other", lambda summary: f"{summary['readers_dice']:.3f}"),
        (
            "consensus without one reader: that reader, mask at 1",
            lambda summary: f"{summary['left_out_reader']:.3f}, {summary['left_out_mask']:.3f}",
        ),
        (f"single readers, {shown} clicks", clicks("single_readers")),
        (f"NSD 1 mm, {corrected}", clicks("nsd_1mm")),
        (f"random inner first click, {corrected}", clicks("inner")),
        (
            "eight inner first clicks, mean and worst",
            lambda summary: f"{summary['inner_first']['mean']:.3f} / {summary['inner_first']['mean_of_worst']:.3f}",
        ),
        (f"border first click, {corrected}", clicks("border")),
        (f"one voxel outside, {corrected}", clicks("outside")),
        ("two voxels outside, 1", clicks("outside_2")),
        ("worst nodule, challenge", clicks("challenge", "worst")),
        ("worst nodule, border", clicks("border", "worst")),
        ("failures at 1 (%): challenge / inner / border / outside 1 / 2", failures),
        (
            "failures at 3 (%): challenge / border",
            lambda summary: " / ".join(f"{100 * summary[key]['3']['failures']:.1f}" for key in ("challenge", "border")),
        ),
        ("volume ratio at 1: median (10-90 %)", ratio),
        ("volume spread, voxels: median / 90 % / worst", spread("variation_voxel")),
        ("volume spread, measured: median / 90 % / worst", spread("variation_measured")),
        ("IoU head: Pearson / expected / absolute error", head),
        *(
            (f"largest drop, {key}: mean / single (> 0.03)", drops(key))
            for key in ("challenge", "inner", "border", "outside")
        ),
        ("seconds", lambda summary: f"{summary['seconds']:.0f}"),
    ]
    rows = [["", *names], *([name, *(value(each) for each in summaries)] for name, value in lines)]
    return _markdown(rows)


def strata_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The strata of one checkpoint as a Markdown table."""
    keys = (("challenge", "1"), ("challenge", "3"), ("challenge", "5"), ("border", "1"), ("border", "3"))
    head = ["", "stratum", "nodules", "readers", "1", "3", "5", "border 1", "border 3", "ratio", "spread"]
    cells = [
        [
            row["kind"],
            row["stratum"],
            str(row["nodules"]),
            f"{row['readers_dice']:.3f}",
            *(f"{row[key][click]['mean']:.3f}" for key, click in keys),
            f"{row['volume_ratio']['1'][0]:.2f}",
            f"{100 * row['variation_voxel']['median']:.1f} %",
        ]
        for row in rows
    ]
    return _markdown([head, *cells])


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (n + 2) for n in widths) + "|", *lines[1:]])


def draw_worst(
    predictor: SamPredictor3D,
    folder: Path,
    split: str,
    results: Sequence[Mapping[str, Any]],
    path: Path,
    count: int = 20,
    enlarge_to_mm: float = 0.0,
) -> None:
    """Draws the nodules with the lowest Dice at one click as a contact sheet: consensus (green) and mask (magenta)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    worst = {r["name"]: r for r in sorted(results, key=lambda r: r["challenge"][0])[:count]}
    columns = 5
    figure = Figure(figsize=(3 * columns, 3.2 * -(-len(worst) // columns)), layout="tight")
    FigureCanvasAgg(figure)
    chosen = [each for each in read_nodules(folder, split, None, enlarge_to_mm) if each.name in worst]
    chosen.sort(key=lambda each: worst[each.name]["challenge"][0])
    for number, nodule in enumerate(chosen, start=1):
        predictor.set_image(nodule.hu, nodule.ijk_to_ras)
        result = evaluate_nodule(predictor, nodule.consensus, nodule.ijk_to_ras, 1, ClickSimulator("challenge", 0))
        mask = cast(Prediction, result.prediction).full_mask(nodule.hu.shape)
        slice_index = int(nodule.consensus.sum(axis=(1, 2)).argmax())
        axes = figure.add_subplot(-(-len(worst) // columns), columns, number)
        axes.imshow(nodule.hu[slice_index], cmap="gray", vmin=-1200, vmax=400)
        for shown, color in ((nodule.consensus[slice_index], "lime"), (mask[slice_index] > 0, "magenta")):
            if shown.any():
                axes.contour(shown, [0.5], colors=color, linewidths=0.8)
        axes.set_title(f"{nodule.name[10:]} {result.dice[0]:.2f}, {worst[nodule.name]['challenge'][2]:.2f} @3")
        axes.set_axis_off()
    figure.savefig(path, dpi=110)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder that holds data/lidc_voi")
    parser.add_argument("--split", choices=("validation", "train"), default="validation")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="one or more, measured side by side; default: the model that ships with the module",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N nodules")
    parser.add_argument(
        "--mass",
        type=float,
        default=0.0,
        metavar="MM",
        help="enlarge the nodules of 12 mm and more to this diameter: how large ones fare",
    )
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write results.json and tables.md there")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw each checkpoint's worst twenty there")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        parser.error("--limit must be at least 1")
    if options.threads < 1:
        parser.error("--threads must be at least 1")
    if options.mass < 0:
        parser.error("--mass must be a diameter in mm")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the checkpoints and prints the tables; returns the exit code."""
    options = parse_options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(options.threads)
    try:
        return run(options)
    except (InputError, CheckpointError, DeviceError, OSError) as error:
        logger.error("%s", error)
        return 2


def run(options: argparse.Namespace) -> int:
    """Measures each checkpoint on all nodules."""
    folder = options.shared / "data" / "lidc_voi"
    for target in (options.out, options.pictures):
        if target is not None:
            target.mkdir(parents=True, exist_ok=True)
            check_folder(target)
    checkpoints = [Path(path) for path in options.checkpoint or [default_checkpoint()]]
    predictors = [
        SamPredictor3D(load_model(path, device=options.device, precision=options.precision)) for path in checkpoints
    ]
    names = [path.stem for path in checkpoints]
    facts: dict[str, Mapping[str, str]] = {}
    results: list[list[dict[str, Any]]] = [[] for _ in checkpoints]
    for number, nodule in enumerate(read_nodules(folder, options.split, options.limit, options.mass), start=1):
        facts[nodule.name] = nodule.facts
        for predictor, own in zip(predictors, results, strict=True):
            own.append(measure(predictor, nodule))
            predictor.cache.clear()
        logger.info("%3d %s  %s", number, nodule.name, "  ".join(f"{own[-1]['challenge'][0]:.3f}" for own in results))
    summaries = [summarize(own) for own in results]
    title = f"{summaries[0]['nodules']} nodules of {summaries[0]['patients']} patients, split {options.split}"
    if options.mass:
        title += f", enlarged to {options.mass:g} mm"
    parts = [f"{title}. {NOTE}", table(names, summaries)]
    strata = [strata_of(facts, own) for own in results]
    for name, rows in zip(names, strata, strict=True):
        parts += [f"{name}: Dice by stratum", strata_table(rows)]
    text = "\n\n".join(parts)
    sys.stdout.write(f"{text}\n")
    if options.out is not None:
        document = {
            "title": title,
            "note": NOTE,
            "checkpoints": [
                {"file": str(path), "summary": summary, "strata": rows, "nodules": own}
                for path, summary, rows, own in zip(checkpoints, summaries, strata, results, strict=True)
            ],
        }
        for name, content in (("results.json", json.dumps(document, indent=1)), ("tables.md", text + "\n")):
            with whole_file(options.out / name) as part:
                part.write_text(content, encoding="utf-8")
    if options.pictures is not None:
        for name, predictor, own in zip(names, predictors, results, strict=True):
            draw_worst(
                predictor,
                folder,
                options.split,
                own,
                options.pictures / f"worst_{name}.png",
                enlarge_to_mm=options.mass,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
