"""Evaluates real nodules click by click, beside the readers' agreement and a classic region-growing tool.

    python -m Research.real_nodules [--shared ../shared] [--checkpoint F] [--clicks 10] [--json F]

Takes the nodules of LIDC-IDRI-0001, -0002 and -0003 that at least two readers marked. The first click is the
reference's most interior voxel, the next ones go where the simulated user sends them. Exit code 1 when a target is
missed, 2 when the data is not there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SAMMed3DLib.files.volume_io import Volume, read_labels, read_volume
from SAMMed3DLib.inference import SamPredictor3D
from SAMMed3DLib.inference.geometry import PlacedMask, transform_points, voxel_spacing
from SAMMed3DLib.inference.mask_regions import components, most_interior_voxel
from SAMMed3DLib.model import load_model
from SAMMed3DLib.weights import default_checkpoint
from SAMMed3DTrainingLib.data.clicks import ClickSimulator, bounding_box
from SAMMed3DTrainingLib.evaluate.baselines import region_growing
from SAMMed3DTrainingLib.evaluate.evaluation import NoduleResult, common_frame, dice, evaluate_nodule
from shared_data import shared_dir

SCANS = ("LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003")
# Mean Dice over all pairs of readers' own contours, which the votes alone do not give; from shared/data/README.md.
READERS_DICE = {
    ("LIDC-IDRI-0001", 1): 0.88,
    ("LIDC-IDRI-0002", 1): 0.76,
    ("LIDC-IDRI-0003", 1): 0.77,
    ("LIDC-IDRI-0003", 2): 0.76,
    ("LIDC-IDRI-0003", 3): 0.86,
}
SHOWN = (1, 2, 3, 5, 10)
TARGETS = {1: 0.77, 5: 0.85}
ALLOWED_DROP = 0.01
NOTE = "Few patients: a development and regression set, never a benchmark."


@dataclass(frozen=True)
class MarkedNodule:
    """One reference nodule with the readers' agreement."""

    scan: str
    label: int
    readers: int
    truth: np.ndarray
    agreement: float
    volume: Volume

    @property
    def name(self) -> str:
        """Short name for the table."""
        return f"LIDC-{self.scan[-4:]} #{self.label}"

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size along [k, j, i], mm."""
        return voxel_spacing(self.volume.ijk_to_ras)[::-1]

    def ras(self, voxel: Sequence[int]) -> np.ndarray:
        """Position of a voxel (k, j, i) in RAS mm."""
        return transform_points(self.volume.ijk_to_ras, np.asarray(voxel)[::-1])


def nodules_of(folder: Path, scan: str) -> Iterator[MarkedNodule]:
    """The nodules of a scan that at least two readers marked."""
    volume = read_volume(folder / f"{scan}_ct.nii.gz")
    labels = read_labels(folder / f"{scan}_nodules.nii.gz").array_kji
    votes = read_labels(folder / f"{scan}_readers.nii.gz").array_kji
    for entry in json.loads((folder / f"{scan}.json").read_text(encoding="utf-8"))["nodules"]:
        label, readers = int(entry["label"]), int(entry["readers"])
        if readers < 2:
            continue
        agreement = READERS_DICE.get((scan, label))
        if agreement is None:
            marked, _ = components(votes > 0)
            agreement = reader_agreement(np.where(np.isin(marked, marked[labels == label]), votes, 0), readers)
        yield MarkedNodule(scan, label, readers, labels == label, agreement, volume)


def segmentation_dice(truth_kji: np.ndarray, segmentation: PlacedMask) -> float:
    """Dice of a mask block and a reference in the whole volume [k, j, i], computed on the block both need."""
    box = bounding_box(np.asarray(truth_kji) != 0)
    if box is None:
        return float(not np.any(segmentation.mask))
    origin = np.array([part.start for part in box])
    truth, predicted, _ = common_frame(np.asarray(truth_kji)[box] != 0, origin, segmentation)
    return dice(truth, predicted)


def reader_agreement(votes: np.ndarray, readers: int) -> float:
    """Dice between readers, from nothing but the number of readers who marked each voxel.

    Sums over all pairs of readers before it divides: 2 sum |A and B| / sum (|A| + |B|), which is the mean of the
    pairs' Dice weighted with their sizes, and for two readers exactly their Dice.

    Args:
        votes: readers who marked each voxel, any shape.
        readers: how many marked the nodule at all, at least 2.

    Raises:
        ValueError: fewer than two readers, more votes than readers, or no votes.
    """
    votes = np.asarray(votes, dtype=np.int64)
    if readers < 2 or votes.max(initial=0) > readers or not votes.any():
        raise ValueError(f"agreement needs two readers or more and their votes, not {readers} readers")
    return float(np.sum(votes * (votes - 1)) / ((readers - 1) * np.sum(votes)))


def largest_drop(dice_per_click: Sequence[float]) -> float:
    """Computes how far the worst single click lowered a curve of Dice values; 0 where it never fell."""
    values = np.asarray(dice_per_click, dtype=float)
    return float(max(0.0, -np.diff(values).min(initial=0.0)))


def missed_targets(mean: Sequence[float]) -> list[str]:
    """Lists the targets that the mean Dice per click misses; empty when all are reached."""
    missed = [
        f"mean Dice at {click} click{'s' if click > 1 else ''} is {mean[click - 1]:.3f}, below {target}"
        for click, target in TARGETS.items()
        if click <= len(mean) and mean[click - 1] < target
    ]
    if largest_drop(mean) > ALLOWED_DROP:
        missed.append(f"a click lowers the mean Dice by {largest_drop(mean):.3f}, more than {ALLOWED_DROP}")
    return missed


def print_table(nodules: list[MarkedNodule], results: list[NoduleResult], grown: list[float]) -> None:
    """One line per nodule and the mean."""
    shown = [click for click in SHOWN if click <= len(results[0].dice)]
    heads = "".join(f"{f'@{click}':>7}" for click in shown)
    print(f"{'nodule (readers)':<22}{'mm':>6}{'readers':>9}{'growing':>9} |{heads} | {'first ms':>9}{'next ms':>9}")
    for nodule, result, classic in zip(nodules, results, grown, strict=True):
        diameter = np.cbrt(6 * result.truth_mm3 / np.pi)
        values = "".join(f"{result.dice[click - 1]:7.3f}" for click in shown)
        later = 1000 * np.mean(result.seconds[1:]) if len(result.seconds) > 1 else np.nan
        name = f"{nodule.name} ({nodule.readers})"
        print(
            f"{name:<22}{diameter:6.1f}{nodule.agreement:9.2f}{classic:9.3f} |{values} | "
            f"{1000 * result.seconds[0]:9.0f}{later:9.0f}"
        )
    means = "".join(f"{np.mean([result.dice[click - 1] for result in results]):7.3f}" for click in shown)
    readers = np.mean([nodule.agreement for nodule in nodules])
    print(f"{'mean':<22}{'':6}{readers:9.2f}{np.mean(grown):9.3f} |{means} |")


def print_first_clicks(nodules: list[MarkedNodule], trials: list[list[NoduleResult]]) -> None:
    """Prints the effect of the first click's place: mean and worst over the trials of each nodule."""
    shown = [click for click in (1, 5) if click <= len(trials[0][0].dice)]
    print(f"\n{len(trials[0])} random first clicks (inner half of the nodule): mean and worst Dice")
    print(f"{'nodule':<22}" + "".join(f"{f'mean @{click}':>10}{f'worst @{click}':>10}" for click in shown))
    rows = [[[result.dice[click - 1] for result in results] for click in shown] for results in trials]
    for nodule, row in zip(nodules, rows, strict=True):
        cells = "".join(f"{np.mean(values):10.3f}{np.min(values):10.3f}" for values in row)
        print(f"{nodule.name:<22}{cells}")
    cells = "".join(
        f"{np.mean([row[column] for row in rows]):10.3f}{np.mean([min(row[column]) for row in rows]):10.3f}"
        for column in range(len(shown))
    )
    print(f"{'mean':<22}{cells}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the evaluation; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=shared_dir(), help="folder with data/lidc_idri")
    parser.add_argument("--checkpoint", type=Path, help="default: the model that ships with the module")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--clicks", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--method",
        choices=("challenge", "random", "jitter"),
        default="challenge",
        help="where the clicks after the first go",
    )
    parser.add_argument(
        "--first-clicks",
        type=int,
        default=0,
        metavar="N",
        help="also try N random first clicks per nodule and print their mean and worst Dice",
    )
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args(arguments)
    folder = options.shared and options.shared / "data" / "lidc_idri"
    if not folder or not folder.is_dir():
        print("the LIDC scans are not there: name the folder that holds data/lidc_idri with --shared", file=sys.stderr)
        return 2
    checkpoint = options.checkpoint or default_checkpoint()
    predictor = SamPredictor3D(load_model(checkpoint, device=options.device, precision=options.precision))
    nodules, results, grown, trials = [], [], [], []
    for scan in SCANS:
        for number, nodule in enumerate(nodules_of(folder, scan)):
            if number == 0:
                predictor.set_image(nodule.volume.array_kji, nodule.volume.ijk_to_ras)
            matrix, first = nodule.volume.ijk_to_ras, most_interior_voxel(nodule.truth, tuple(nodule.spacing))
            classic = region_growing(nodule.volume.array_kji, matrix, nodule.ras(first))
            grown.append(segmentation_dice(nodule.truth, classic))
            nodules.append(nodule)
            results.append(
                evaluate_nodule(
                    predictor,
                    nodule.truth,
                    matrix,
                    options.clicks,
                    ClickSimulator(options.method, options.seed),
                    first_voxel=first,
                )
            )
            starts = ClickSimulator("random", options.seed)
            tried = []
            for _ in range(options.first_clicks):
                start = starts.next_click(nodule.truth, np.zeros_like(nodule.truth), nodule.spacing)
                assert start is not None
                tried.append(
                    evaluate_nodule(
                        predictor,
                        nodule.truth,
                        matrix,
                        options.clicks,
                        ClickSimulator(options.method, options.seed),
                        first_voxel=start[0],
                    )
                )
            trials.append(tried)
    mean = np.mean([result.dice for result in results], axis=0)
    print(f"{checkpoint}, clicks: {options.method}, seed {options.seed}; Dice after n clicks")
    print_table(nodules, results, grown)
    print(f"largest drop of the mean between consecutive clicks: {largest_drop(mean):.3f}")
    if options.first_clicks > 0:
        print_first_clicks(nodules, trials)
    print(NOTE)
    missed = missed_targets(mean)
    for line in missed:
        print(f"MISSED: {line}", file=sys.stderr)
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "checkpoint": str(checkpoint),
                    "method": options.method,
                    "seed": options.seed,
                    "note": NOTE,
                    "mean_dice": mean.tolist(),
                    "largest_drop": largest_drop(mean),
                    "missed": missed,
                    "nodules": [
                        {
                            "scan": nodule.scan,
                            "label": nodule.label,
                            "readers": nodule.readers,
                            "readers_dice": nodule.agreement,
                            "region_growing_dice": classic,
                            "truth_mm3": result.truth_mm3,
                            "dice": result.dice,
                            "volumes_mm3": result.volumes_mm3,
                            "seconds": result.seconds,
                            "first_click_trials": [trial.dice for trial in others],
                        }
                        for nodule, result, classic, others in zip(nodules, results, grown, trials, strict=True)
                    ],
                },
                indent=1,
            ),
            encoding="utf-8",
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
