"""Writing one of 30 nodules into a 512x512x300 CT: our partial write beside Slicer's whole-volume function.

    python Testing/benchmarks/segment_writer.py [--rounds 15] [--slow-rounds 3]

Needs slicer-core. Everything is timed in turns in one run; medians are printed as Markdown tables, with the rate of a
matrix product as measure of the machine's load. Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("SAMMed3D", "Testing", "Testing/benchmarks")]

import slicer.util  # noqa: E402
from targets import print_targets  # noqa: E402

from SAMMed3DLib.inference.geometry import label_map  # noqa: E402
from SAMMed3DLib.scene import nodule_segmentation as nodules  # noqa: E402
from SAMMed3DLib.scene.mask_block import MaskBlock, sameMask  # noqa: E402
from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation  # noqa: E402
from SAMMed3DLib.scene.segment_writer import SegmentWriter  # noqa: E402
from slicer_scene import SlicerScene  # noqa: E402

SHAPE = (300, 512, 512)
SPACING = (0.7, 0.7, 1.0)
NODULES = 30
GEMM = (512, 768, 3072)
TARGET_WRITE_MS, TARGET_RATIO = 5.0, 50.0


def seconds(function: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ball(diameter_mm: float) -> np.ndarray:
    """A ball's mask in the volume's voxels, uint8 [k, j, i]."""
    half = [int(np.ceil(diameter_mm / 2 / step)) for step in SPACING[::-1]]
    k, j, i = np.ogrid[tuple(slice(-n, n + 1) for n in half)]
    squares = (k * SPACING[2]) ** 2 + (j * SPACING[1]) ** 2 + (i * SPACING[0]) ** 2
    return (squares < (diameter_mm / 2) ** 2).astype(np.uint8)


def run(rounds: int, slow_rounds: int) -> dict[str, list[float]]:
    """Seconds of every candidate, taken in turns."""
    scene = SlicerScene()
    rng = np.random.default_rng(0)
    volume = scene.add_volume(np.zeros(SHAPE, np.int16), np.diag([*SPACING, 1.0]))
    node = nodules.createSegmentation(volume)
    writer = SegmentWriter(node, volume)
    blocks = []
    for _ in range(NODULES):
        mask = ball(rng.uniform(4.0, 30.0))
        offset = [int(rng.integers(0, size - count)) for size, count in zip(SHAPE, mask.shape, strict=True)]
        blocks.append(MaskBlock(mask, (offset[0], offset[1], offset[2])))
    times: dict[str, list[float]] = {"add 30 nodules": []}
    start = time.perf_counter()
    ids = [NoduleSegmentation(node).addNodule() for _ in blocks]
    for segment_id, block in zip(ids, blocks, strict=True):
        writer.write(segment_id, block)
    times["add 30 nodules"].append(time.perf_counter() - start)

    large = MaskBlock(ball(30.0), (100, 200, 200))
    before = {segment_id: writer.read(segment_id) for segment_id in ids[1:]}
    left, right = rng.standard_normal(GEMM[:2], np.float32), rng.standard_normal(GEMM[1:], np.float32)
    calls: dict[str, Callable[[], object]] = {
        "write one of 30, 30 mm": lambda: writer.write(ids[0], large),
        "read it": lambda: writer.read(ids[0]),
        "was it edited? (no)": lambda: writer.wasEdited(ids[0]),
        "take off the voxels of 29 others": lambda: writer.withoutOthers(ids[0], large),
        "GEMM": lambda: left @ right,
    }
    for _ in range(rounds):
        for name, call in calls.items():
            times.setdefault(name, []).append(seconds(call))
    writer.showSurfaces(True)
    for _ in range(rounds):
        times.setdefault("write it with all 3D surfaces shown", []).append(seconds(calls["write one of 30, 30 mm"]))
    writer.showSurfaces(False)
    if not all(sameMask(writer.read(segment_id), block) for segment_id, block in before.items()):
        raise SystemExit("a neighbor was changed")

    whole = label_map({1: large}, SHAPE)
    for _ in range(slow_rounds):
        times.setdefault("Slicer's whole-volume write", []).append(
            seconds(lambda: slicer.util.updateSegmentBinaryLabelmapFromArray(whole, node, ids[0], volume))
        )
        # Full extent, as after editing by hand: what taking over an edit costs.
        times.setdefault("read it after a whole-volume write", []).append(seconds(calls["read it"]))
        times["GEMM"].append(seconds(calls["GEMM"]))
    if not np.array_equal(label_map({1: writer.read(ids[0])}, SHAPE), whole):
        raise SystemExit("the two ways of writing differ")
    scene.close()
    return times


def report(times: dict[str, list[float]]) -> bool:
    """Print the tables; whether every target is reached."""
    median = {name: statistics.median(values) for name, values in times.items()}
    gemm = median.pop("GEMM")
    rate = 2 * GEMM[0] * GEMM[1] * GEMM[2] / 1e9 / gemm
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{os.cpu_count()} cores{load}; numpy's {'x'.join(map(str, GEMM))} product {rate:.0f} GFLOP/s\n")
    print(f"| {SHAPE[2]}x{SHAPE[1]}x{SHAPE[0]}, {NODULES} nodules | ms, median | ms, 95 % |")
    print("|---|---|---|")
    for name, value in median.items():
        print(f"| {name} | {1e3 * value:.2f} | {1e3 * float(np.percentile(times[name], 95)):.2f} |")
    write = median["write one of 30, 30 mm"]
    checks = [
        ("ms to write one of 30 nodules", 1e3 * write, "<=", TARGET_WRITE_MS),
        ("Slicer's whole-volume write against ours", median["Slicer's whole-volume write"] / write, ">=", TARGET_RATIO),
    ]
    return print_targets(checks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the quick candidates")
    parser.add_argument("--slow-rounds", type=int, default=3, help="rounds of Slicer's whole-volume write")
    options = parser.parse_args(arguments)
    return 0 if report(run(options.rounds, options.slow_rounds)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
