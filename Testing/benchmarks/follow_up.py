"""Made-up follow-ups: are the right nodules matched, places found again, intervals true; and how long it takes.

    python Testing/benchmarks/follow_up.py matching [--cases 20] [--ct FILE]
    python Testing/benchmarks/follow_up.py growth [--pairs 200] [--model]
    python Testing/benchmarks/follow_up.py time [--slices 300]

`matching` moves whole chests (the synthetic one, or a CT) and asks for pairs and expected places. `growth` paints one
nodule twice into made-up lung, with other noise, kernel, place in the grid and slice thickness, and measures it:
outlines are those of the truth, or with `--model` one click of the bundled model each. `time` runs `sammed3d compare`
on two scans of 512 x 512 voxels with segmentations. Exit code 1 when a target is missed; seconds of the processor are
told beside those of the clock, which say little on a machine that others use.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "SAMMed3D"), str(ROOT / "Testing")]

from report.made_up_follow_ups import FACTORS, KINDS, SHARES, made_up_follow_up  # noqa: E402
from SAMMed3DLib.files.segmentation_io import write_segmentation  # noqa: E402
from SAMMed3DLib.files.volume_io import Volume, read_volume, write_volume  # noqa: E402
from SAMMed3DLib.finding.lungs import find_lungs  # noqa: E402
from SAMMed3DLib.inference.geometry import Block, transform_points  # noqa: E402
from SAMMed3DLib.inference.measurements import measure_nodule  # noqa: E402
from SAMMed3DLib.report.follow_up import change, doubling_time, follow_up, is_measurable, register  # noqa: E402
from SAMMed3DLib.report.measuring import (  # noqa: E402
    contrast_hu,
    measure_scan,
    nodule_type,
    repeat_limit,
    segments_of,
    volume_interval,
)
from SAMMed3DLib.report.scan_facts import scan_of  # noqa: E402
from SAMMed3DLib.synthesis.nodules import correlated_noise, paint_nodule, random_appearance  # noqa: E402
from SAMMed3DLib.synthesis.phantom import chest_phantom  # noqa: E402
from SAMMed3DLib.synthesis.shapes import NoduleShapes  # noqa: E402

#: Targets.
MATCHED, PLACE_MM, COVERED, FALSE_GROWTH, SECONDS = 0.98, 5.0, (0.90, 0.97), 0.05, 20.0
#: Seeds from here on were not looked at while the method was made; the intervals were fitted to pairs 3000 to 3119.
FIRST_SEED = 5000


def main() -> int:
    """Runs one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(required=True)
    matching_ = what.add_parser("matching")
    matching_.add_argument("--cases", type=int, default=20)
    matching_.add_argument("--ct", type=Path)
    matching_.set_defaults(run=lambda options: matching(options.cases, options.ct))
    growth_ = what.add_parser("growth")
    growth_.add_argument("--pairs", type=int, default=200)
    growth_.add_argument("--model", action="store_true")
    growth_.add_argument("--seed", type=int, default=FIRST_SEED)
    growth_.set_defaults(run=lambda options: growth(options.pairs, options.model, options.seed))
    time_ = what.add_parser("time")
    time_.add_argument("--slices", type=int, default=300)
    time_.set_defaults(run=lambda options: compare_time(options.slices))
    options = parser.parse_args()
    return options.run(options)


def matching(cases: int, ct: Path | None) -> int:
    """Whole chests: matched pairs, new and gone nodules, expected places."""
    if ct is None:
        phantom = chest_phantom(FIRST_SEED, (96, 130, 180), (2.4, 2.0, 2.0), nodules=())
        base, matrix = phantom.array_kji, phantom.ijk_to_ras
    else:
        volume = read_volume(ct)
        base, matrix = volume.array_kji, volume.ijk_to_ras
    right = total = failed = 0
    errors: list[float] = []
    begun = time.process_time()
    for case in range(cases):
        made = made_up_follow_up(base, matrix, FIRST_SEED + case, count=12)
        scans = (made.current, made.prior)
        lungs = tuple(find_lungs(scan.array_kji, scan.ijk_to_ras) for scan in scans)
        found = register(*((scan.array_kji, scan.ijk_to_ras) for scan in scans), lungs)
        there = [each for each in made.nodules if each.prior_ras is not None]
        total += len(made.nodules)
        if found.prior_to_current is None:
            failed += 1
            print(f"case {case}: {found.message}", flush=True)
            continue
        places = np.array([each.prior_ras for each in there])
        expected = transform_points(found.prior_to_current, places)
        errors += list(np.linalg.norm(expected - made.to_current(places), axis=1))
        measured = [
            measure_scan(
                scan_of(scan.array_kji, scan.ijk_to_ras, name),
                scan.array_kji,
                scan.ijk_to_ras,
                segments_of(scan.labels_kji),
            )
            for name, scan in zip(("now", "then"), scans, strict=True)
        ]
        result = follow_up(measured[0], measured[1], found)
        truths = {each.label: each for each in made.nodules}
        for pair in result.follow_up.pairs:
            now, then = result.nodule(pair.current_uid), result.prior_nodule(pair.prior_uid)
            if now is not None and then is not None:
                right += now.label == then.label
            else:
                truth = truths[(now or then).label]
                right += (truth.prior_ras is None) if then is None else (truth.current_ras is None)
        print(
            f"case {case}: {right} of {total} right, places {np.median(errors):.1f} mm median, {np.max(errors):.1f} "
            f"at worst, {(time.process_time() - begun) / (case + 1):.0f} s of the processor a case",
            flush=True,
        )
    share = right / max(total, 1)
    within = float(np.mean(np.array(errors) <= PLACE_MM)) if errors else 0.0
    print(
        f"{cases} cases, {failed} registrations failed: {right} of {total} nodules right ({100 * share:.1f} %, "
        f"target {100 * MATCHED:.0f}); expected places: median {np.median(errors):.2f} mm, 95 % below "
        f"{np.percentile(errors, 95):.2f}, worst {np.max(errors):.2f}; within {PLACE_MM:g} mm {100 * within:.1f} %"
    )
    return int(share < MATCHED or max(errors) > PLACE_MM)


def growth(pairs: int, model: bool, first_seed: int) -> int:
    """One nodule at two dates: is the truth in the intervals, and do unchanged nodules seem to grow?"""
    predictor = None
    if model:
        from SAMMed3DLib.inference import SamPredictor3D
        from SAMMed3DLib.model import load_model
        from SAMMed3DLib.weights import default_checkpoint

        predictor = SamPredictor3D(load_model(default_checkpoint()))
    shapes = NoduleShapes.load()
    covered = doubling = growing = beyond = unchanged = changed = 0
    widths, misses = [], []
    groups: dict[str, list[tuple[float, float]]] = {}
    for number in range(pairs):
        rng = np.random.default_rng(first_seed + number)
        kind = KINDS[rng.choice(3, p=SHARES)]
        diameter = float(np.exp(rng.uniform(np.log(5.0), np.log(16.0))))
        shape, look = shapes.random(rng, diameter), random_appearance(rng, kind, diameter)
        factor = 1.0 if number % 2 else float(rng.choice(FACTORS))
        volumes, intervals, types = [], [], []
        slice_mm = float(rng.choice([1.0, 1.25, 2.0, 2.5]))
        later_mm = slice_mm if rng.random() < 0.5 else float(rng.choice([1.0, 2.5]))
        for scale, step in ((1.0, slice_mm), (factor, later_mm)):
            array, matrix, mask = one_scan(rng, shape.scaled(scale ** (1.0 / 3.0)), look, step)
            block = Block(mask.astype(np.uint8), (0, 0, 0))
            if predictor is not None:
                predictor.set_image(array, matrix)
                block = predictor.predict(np.zeros((1, 3)), np.ones(1, int))
            if not block.mask.any():
                break
            record = measure_nodule(block, array, matrix)
            volumes.append(record.volume_mm3)
            types.append(nodule_type(block, array, matrix)[0])
            intervals.append(volume_interval(record, contrast_hu(block, array, matrix), step))
        if len(volumes) < 2:
            misses.append(np.nan)
            continue
        found = change(volumes[0], volumes[1], intervals[0], intervals[1])
        bounds, limit = found.percent_interval, max(repeat_limit(kind, volumes[0]) for kind in types)
        covered += bounds.low <= 100.0 * (factor - 1.0) <= bounds.high
        widths.append(np.log1p(bounds.high / 100.0) - np.log1p(bounds.low / 100.0))
        misses.append(np.log(volumes[1] / volumes[0] / factor))
        size = "< 8 mm" if volumes[0] < np.pi / 6.0 * 8.0**3 else ">= 8 mm"
        for group in (
            f"{'solid' if kind == 'solid' else 'subsolid'}, {size}",
            f"slices to {max(slice_mm, later_mm):g} mm",
        ):
            groups.setdefault(group, []).append((misses[-1], widths[-1] / 2.0))
        if factor == 1.0:
            unchanged += 1
            growing += found.percent > 0.0 and is_measurable(found, limit)
            beyond += bounds.low > 0.0
        else:
            changed += 1
            truth = 180.0 * np.log(2.0) / np.log(factor)
            days, interval = doubling_time(found, 180, limit)
            # without a measurable change the statement is an interval of growth only
            doubling += (
                (interval.low <= truth <= interval.high)
                if days is not None
                else bounds.low <= 100.0 * (factor - 1.0) <= bounds.high
            )
        if number % 20 == 19:
            print(
                f"{number + 1}: covered {100 * covered / len(widths):.1f} %, called growing {growing} of {unchanged}",
                flush=True,
            )
    for group, rows in sorted(groups.items()):
        missed, half = np.array(rows).T
        print(
            f"  {group}: {len(rows)} pairs, error of the ratio {100 * np.median(missed):+.1f} % median, 95 % within "
            f"{100 * np.percentile(np.abs(missed), 95):.0f} %, half width {100 * np.median(half):.0f} %, covered "
            f"{100 * np.mean(np.abs(missed) <= half):.1f} %"
        )
    errors = np.array([each for each in misses if np.isfinite(each)])
    lost = len(misses) - len(errors)
    print(
        f"{pairs} pairs ({'clicks of the model' if model else 'true outlines'}), {lost} without a mask: truth inside "
        f"the change's interval {100 * covered / len(errors):.1f} %, inside the doubling time's "
        f"{100 * doubling / changed:.1f} % of {changed} (target {100 * COVERED[0]:.0f} to {100 * COVERED[1]:.0f}); "
        f"unchanged called growing {growing} of {unchanged} ({beyond} by the interval alone); error of the ratio: "
        f"median {100 * np.median(np.abs(errors)):.1f} %, sd {100 * errors.std():.1f} %; half width of the interval "
        f"{50 * np.median(widths):.0f} %"
    )
    return int(not COVERED[0] <= doubling / changed <= COVERED[1] or growing > FALSE_GROWTH * unchanged)


def one_scan(rng, shape, look, step: float):  # noqa: ANN001, ANN201
    """A nodule in made-up lung around the origin: HU, matrix, true mask."""
    spacing = np.array([step, 0.7, 0.7])
    counts = np.ceil(72.0 / spacing).astype(int)
    matrix = np.diag([*spacing[::-1], 1.0])
    matrix[:3, 3] = -matrix[:3, :3] @ ((counts[::-1] - 1) / 2.0 + rng.uniform(-0.5, 0.5, 3))
    hu = (-860.0 + 25.0 * correlated_noise(rng, tuple(counts), spacing, 5.0)).astype(np.float32)
    mask = paint_nodule(hu, matrix, shape, np.zeros(3), dataclasses.replace(look, noise_hu=0.0), rng)
    kernel = rng.uniform(-0.5, 1.0)
    soft = ndimage.gaussian_filter(hu, np.array([0.0, 0.45, 0.45]) / spacing)
    hu += kernel * (soft - hu) + rng.uniform(6.0, 22.0) * correlated_noise(rng, tuple(counts), spacing, 1.2)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16), matrix, mask


def compare_time(slices: int) -> int:
    """`sammed3d compare` on two scans of 512 x 512 voxels with segmentations, as a user runs it."""
    phantom = chest_phantom(FIRST_SEED, (96, 130, 180), (2.4, 2.0, 2.0), nodules=())
    made = made_up_follow_up(phantom.array_kji, phantom.ijk_to_ras, FIRST_SEED, count=8, spacing_kji=(2.4, 2.0, 2.0))
    with tempfile.TemporaryDirectory() as folder:
        for name, scan in (("now", made.current), ("then", made.prior)):
            array, matrix = enlarged(scan.array_kji, scan.ijk_to_ras, slices, order=1)
            labels, _ = enlarged(scan.labels_kji, scan.ijk_to_ras, slices, order=0)
            write_volume(Path(folder) / f"{name}.nii", Volume(array, matrix, name, Path(name)))
            write_segmentation(Path(folder) / f"{name}.seg.nrrd", labels, matrix)
        words = ["compare", "now.nii", "then.nii", "--segmentations", "now.seg.nrrd", "then.seg.nrrd", "--out", "out"]
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "SAMMed3DLib.cli", *words],
            cwd=folder,
            check=True,
            env={"PYTHONPATH": str(ROOT / "SAMMed3D"), "PATH": "/usr/bin:/bin"},
        )
        wall = time.perf_counter() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"512 x 512 x {slices}, twice: {wall:.1f} s (target {SECONDS:g}), {used.ru_utime + used.ru_stime:.1f} s of "
        f"the processor, {used.ru_maxrss / 2**20:.2f} GiB at most"
    )
    return int(wall > SECONDS)


def enlarged(array: np.ndarray, matrix: np.ndarray, slices: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """A volume on 512 x 512 x ``slices`` voxels over the same place."""
    shape = np.array([slices, 512, 512])
    step = np.array(array.shape) / shape
    out = ndimage.affine_transform(
        array, step, step / 2.0 - 0.5, tuple(shape), order=order, mode="nearest", output=array.dtype
    )
    moved = np.array(matrix, dtype=float)
    moved[:3, 3] += matrix[:3, :3] @ (step[::-1] / 2.0 - 0.5)
    moved[:3, :3] = matrix[:3, :3] * step[::-1]
    return out, moved


if __name__ == "__main__":
    sys.exit(main())
