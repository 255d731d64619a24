"""Measures the gain of fine-tuning on shifted data: outlines 1 mm further out or in, thick slices, a sharp kernel.

    python -m Research.domain_shifts [--shared DIR] [--work_dir DIR] [--shifts NAME ...] [--presets NAME ...]

The data are real crops of LIDC-IDRI (``lidc_voi``), shifted. It trains on patients of its training part, other patients
of it choose, and the test is on patients of its validation part, who train nothing. What the tuned model has forgotten
is measured on the same test nodules as they were. A run that is there is not repeated. Exit code 2 without data.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SAMMed3DLib.files.volume_io import Volume, write_volume
from SAMMed3DLib.inference import InputError
from SAMMed3DLib.inference.geometry import voxel_spacing
from SAMMed3DLib.weights import default_checkpoint
from SAMMed3DTrainingLib.evaluate.metrics import bootstrap_interval
from shared_data import shared_dir

from .demonstration_data import averaged_slices
from .fine_tuning import command
from .real_crops import RealNodule, read_nodules

NATIVE = "as_it_was"
THICK_MM, SHIFT_MM, NOISE_HU, SHARPENING = 5.0, 1.0, 40.0, 1.5
#: Largest number of nodules of a patient, so that the counts of patients mean something.
_MOST_OF_A_PATIENT = 2
_HEAD = (
    "| shift | preset | nodules of patients | Dice at one click | change (95 % by patient) | volume bias "
    "| change as it was | minutes (processor) |\n|---|---|---|---|---|---|---|---|"
)
Shifted = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]
Shift = Callable[[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]], Shifted]


def _unchanged(hu: NDArray[np.float32], mask: NDArray[np.bool_], ijk_to_ras: NDArray[np.float64]) -> Shifted:
    return hu, mask, ijk_to_ras


def moved_outline(by_mm: float) -> Shift:
    """Makes a shift that moves outlines so many mm outwards, inwards where negative. The image stays."""

    def shift(hu: NDArray[np.float32], mask: NDArray[np.bool_], ijk_to_ras: NDArray[np.float64]) -> Shifted:
        step = voxel_spacing(ijk_to_ras)[::-1]
        outside, inside = (ndimage.distance_transform_edt(where, sampling=step) for where in (~mask, mask))
        # Between the centers of the voxels on both sides of it lies the outline: half a voxel from either.
        signed = np.where(mask, -inside, outside) + np.where(mask, 0.5, -0.5) * float(np.cbrt(np.prod(step)))
        return hu, signed <= by_mm, ijk_to_ras

    return shift


def thick_slices(hu: NDArray[np.float32], mask: NDArray[np.bool_], ijk_to_ras: NDArray[np.float64]) -> Shifted:
    """Averages slices to about 5 mm; a voxel is inside where at least half of it is."""
    slice_mm = float(voxel_spacing(ijk_to_ras)[2])
    thickness = max(1, round(THICK_MM / slice_mm)) * slice_mm
    thick, matrix = averaged_slices(hu, ijk_to_ras, thickness)
    share, _ = averaged_slices(mask, ijk_to_ras, thickness)
    return thick, share >= 0.5 - 1e-6, matrix


def sharp_kernel(hu: NDArray[np.float32], mask: NDArray[np.bool_], ijk_to_ras: NDArray[np.float64]) -> Shifted:
    """Imitates a sharp kernel: details finer than 0.8 mm are amplified, correlated noise of 40 HU is added."""
    step = voxel_spacing(ijk_to_ras)[::-1]
    rng = np.random.default_rng(int(np.abs(hu).sum()) % 2**32)
    sharp = hu + SHARPENING * (hu - ndimage.gaussian_filter(hu, 0.8 / step))
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 0.4 / step)
    return (sharp + NOISE_HU * noise / noise.std()).astype(np.float32), mask, ijk_to_ras


SHIFTS: dict[str, tuple[str, Shift]] = {
    "outline_out": ("outlines 1 mm further out", moved_outline(SHIFT_MM)),
    "outline_in": ("outlines 1 mm further in", moved_outline(-SHIFT_MM)),
    "thick": ("slices of 5 mm", thick_slices),
    "sharp": ("sharp kernel, noise of 40 HU", sharp_kernel),
}


@dataclass(frozen=True)
class Parts:
    """Numbers of nodules that train, choose and test; no patient is in two of them."""

    train: int = 24
    val: int = 10
    test: int = 30


def chosen(nodules: Iterator[RealNodule], counts: Sequence[int]) -> list[list[RealNodule]]:
    """Deals the first nodules to parts of so many each; all nodules of a patient, two at most, go to one part."""
    parts: list[list[RealNodule]] = [[] for _ in counts]
    owner: dict[str, int] = {}
    for nodule in nodules:
        patient = nodule.facts["patient"]
        open_parts = [n for n, part in enumerate(parts) if len(part) < counts[n]]
        if not open_parts:
            break
        number = owner.setdefault(patient, open_parts[0])
        taken = sum(each.facts["patient"] == patient for each in parts[number])
        if number in open_parts and taken < _MOST_OF_A_PATIENT:
            parts[number].append(nodule)
    return parts


def write_data(crops: Path, folder: Path, shift: Shift, parts: Parts) -> tuple[int, int]:
    """Writes a data set of shifted crops in nnU-Net's layout. Returns the nodules and the patients of its test.

    Nodules of which the shift leaves nothing are left out.

    Raises:
        InputError: the crops are not there.
    """
    train, val = chosen(read_nodules(crops, "train"), (parts.train, parts.val))
    (test,) = chosen(read_nodules(crops, "validation"), (parts.test,))
    patients: dict[str, str] = {}
    tested = []
    for part, nodules in (("Tr", train), ("Val", val), ("Ts", test)):
        for nodule in nodules:
            hu, mask, matrix = shift(nodule.hu.astype(np.float32), nodule.consensus, nodule.ijk_to_ras)
            if not mask.any():
                continue
            image = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
            for kind, values, end in (("images", image, "_0000"), ("labels", mask.astype(np.uint8), "")):
                path = folder / f"{kind}{part}" / f"{nodule.name}{end}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_volume(path, Volume(values, matrix, nodule.name, path))
            patients[nodule.name] = nodule.facts["patient"]
            tested += [nodule.facts["patient"]] if part == "Ts" else []
    description = {"labels": {"background": 0, "nodule": 1}, "patients": patients}
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return len(tested), len(set(tested))


def train(work: Path, shift: str, preset: str, options: Sequence[str]) -> tuple[Path, dict[str, float]]:
    """Trains a run; returns its best weights and its cost in minutes by the clock and of processor time."""
    name = f"{shift}_{preset}"
    folder = work / "runs" / name
    took = folder / "took.json"
    if not took.exists():
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        resume = ["--resume"] if (folder / "training_state.pth").exists() else []
        words = ["--task_name", name, "--data", str(work / shift), "--work_dir", str(work / "runs")]
        command("train", *words, "--preset", preset, *options, *resume)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        took.write_text(json.dumps({"clock": (time.monotonic() - begun) / 60, "processor": used / 60}))
    return folder / "sam_model_dice_best.pth", json.loads(took.read_text())


@dataclass(frozen=True)
class Scores:
    """Scores of the test nodules, by name: Dice after one click, relative error of the volume then, and the patient."""

    dice: dict[str, float]
    volume: dict[str, float]
    patient: dict[str, str]


def evaluate(work: Path, data: str, name: str, checkpoint: Path) -> Scores:
    """Evaluates one click on each test nodule of a data set."""
    results = work / "results" / f"{name}_on_{data}"
    if not (results / "results.json").exists():
        words = ["-vp", str(results), "-tdp", str(work / data), "-cp", str(checkpoint), "-dt", "Ts", "-nc", "1"]
        command("evaluate", *words, "--first_clicks", "0", "--worst", "0")
    rows = json.loads((results / "results.json").read_text(encoding="utf-8"))["nodules"]
    key = {id(row): f"{row['case']}/{row['nodule']}" for row in rows}
    return Scores(
        {key[id(row)]: row["dice"][0] for row in rows},
        {key[id(row)]: row["volumes_mm3"][0] / row["truth_mm3"] - 1 for row in rows},
        {key[id(row)]: row["patient"] for row in rows},
    )


def row_of(title: str, preset: str, before: Scores, after: Scores, native: float, took: dict[str, float]) -> str:
    """A line of the table: counts, Dice and volume before and after, and the change with its interval by patient."""
    names = list(before.dice)
    change = [after.dice[name] - before.dice[name] for name in names]
    patients = [before.patient[name] for name in names]
    interval = bootstrap_interval(change, patients)
    shown = "" if interval is None else f" ({interval[0]:+.3f} to {interval[1]:+.3f})"
    dice = [float(np.mean(list(each.dice.values()))) for each in (before, after)]
    volume = [100 * float(np.mean(list(each.volume.values()))) for each in (before, after)]
    return (
        f"| {title} | {preset} | {len(names)} of {len(set(patients))} | {dice[0]:.3f} -> {dice[1]:.3f} | "
        f"{np.mean(change):+.3f}{shown} | {volume[0]:+.1f} % -> {volume[1]:+.1f} % | {native:+.3f} | "
        f"{took['clock']:.1f} ({took['processor']:.1f}) |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=shared_dir(), help="folder with data/lidc_voi")
    parser.add_argument("--work_dir", type=Path, default=Path("domain_shifts"), help="data sets, runs and results")
    parser.add_argument("--shifts", nargs="+", choices=tuple(SHIFTS), default=list(SHIFTS))
    parser.add_argument("--presets", nargs="+", default=["5min"], help="of train.py")
    parser.add_argument("--train_options", nargs=argparse.REMAINDER, default=[], help="further options of train.py")
    options = parser.parse_args(arguments)
    if options.shared is None or not (options.shared / "data" / "lidc_voi").is_dir():
        print("the crops are not there: name the folder that holds data/lidc_voi with --shared", file=sys.stderr)
        return 2
    work, crops = options.work_dir, options.shared / "data" / "lidc_voi"
    parts = Parts()
    for name, shift in ((NATIVE, _unchanged), *((name, SHIFTS[name][1]) for name in options.shifts)):
        if not (work / name / "dataset.json").exists():
            print(f"writing {name} ...", file=sys.stderr, flush=True)
            try:
                write_data(crops, work / name, shift, parts)
            except InputError as error:
                print(error, file=sys.stderr)
                return 2
    start = default_checkpoint()
    untouched = evaluate(work, NATIVE, "before", start)
    print(_HEAD)
    for name in options.shifts:
        before = evaluate(work, name, "before", start)
        for preset in options.presets:
            tuned, took = train(work, name, preset, options.train_options)
            after = evaluate(work, name, f"{name}_{preset}", tuned)
            kept = evaluate(work, NATIVE, f"{name}_{preset}", tuned)
            native = float(np.mean([kept.dice[each] - untouched.dice[each] for each in untouched.dice]))
            print(row_of(SHIFTS[name][0], preset, before, after, native, took), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
