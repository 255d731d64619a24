"""Measures the recall of the candidates at 100, 200 and 400 a scan, and the cost of the search.

    python -m Research.candidates [--shared ../shared] [--rounds 4] [--blocks 12] [--threads N] [--ct FILE]
        [--no-cost]

Nodules of 4-20 mm of all kinds are painted into the held-out background and into procedural blocks, and the real LIDC
scans are searched. A nodule is found when a candidate lies within its radius of its center (LUNA16's rule); "all" is
the recall before the ranking cuts anything off. The cost is that of a 512 x 512 x 300 chest in a process of its own,
beside the machine's matrix product. Exit code 1 when a target is missed, 2 when the data is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from encoder import machine
from segment_all import gemm_gflops, peak_mb, volume_of

from SAMMed3DLib.finding.candidates import find_candidates
from SAMMed3DLib.finding.lungs import find_lungs
from SAMMed3DLib.synthesis import NoduleShapes
from SAMMed3DLib.synthesis.procedural import procedural_block
from shared_data import shared_dir

from .backgrounds import HELD_OUT, Background, prepare_background
from .detection_scans import KINDS, LIDC_SCANS, DetectionScan, KnownNodule, lidc_scan, painted_scan
from .ranking_fitting import within_lungs

LIMITS = (50, 100, 200, 400)
MOST = 5000
"""Candidates a scan that stand for all."""
SIZES_MM = ((4, 6), (6, 10), (10, 20))
TARGET_RECALL, TARGET_SECONDS, TARGET_MB = 0.97, 8.0, 1000.0
NOTE = "Few patients and synthesis: a development and regression set, never a benchmark."


@dataclass(frozen=True)
class Hit:
    """One nodule: the rank of the first candidate on it (from 0; infinity if there is none)."""

    nodule: KnownNodule
    rank: float
    diameter_ratio: float


def hits_of(scan: DetectionScan) -> tuple[list[Hit], int, bool]:
    """The nodules of a scan, the number of its candidates, and whether lungs were found."""
    lungs = find_lungs(scan.array_kji, scan.ijk_to_ras)
    found = find_candidates(scan.array_kji, scan.ijk_to_ras, lungs, limit=MOST)
    centers = np.array([candidate.center_ras for candidate in found]).reshape(-1, 3)
    hits = []
    for nodule in scan.nodules:
        near = np.linalg.norm(centers - np.asarray(nodule.center_ras), axis=1) < nodule.diameter_mm / 2
        first = int(np.argmax(near)) if near.any() else -1
        ratio = found[first].diameter_mm / nodule.diameter_mm if near.any() else np.nan
        hits.append(Hit(nodule, first if near.any() else np.inf, ratio))
    return hits, len(found), lungs.found


def held_out_scans(shared: Path, rounds: int, seed: int) -> Iterator[DetectionScan]:
    """The held-out background with twelve nodules at a time."""
    shapes = NoduleShapes.load()
    for ct, masks in HELD_OUT.items():
        background = prepare_background(shared / "data" / ct, tuple(shared / "data" / mask for mask in masks))
        background = within_lungs(background)
        for repeat in range(rounds):
            yield painted_scan(background, "held-out", np.random.default_rng([seed, repeat, 6]), 12, shapes)


def procedural_scans(count: int, seed: int) -> Iterator[DetectionScan]:
    """Yields procedural blocks of lung, 120 mm high and 140 mm wide, with six nodules each."""
    shapes = NoduleShapes.load()
    for number in range(count):
        rng = np.random.default_rng([seed, number, 7])
        spacing = np.array([np.exp(rng.uniform(np.log(0.6), np.log(3.0))), *[rng.uniform(0.55, 0.9)] * 2])
        hu, lung = procedural_block(rng, tuple(np.ceil((120, 140, 140) / spacing).astype(int)), tuple(spacing))
        inside = np.argwhere(lung)
        if len(inside) < hu.size // 4:
            continue
        sites = {"lung": inside[rng.integers(len(inside), size=5000)][:, ::-1]}
        matrix = np.diag([*spacing[::-1], 1.0])
        block = Background("procedural", np.rint(hu).astype(np.int16), matrix, lung, np.zeros_like(lung), sites)
        yield painted_scan(block, "procedural", rng, 6, shapes)


def print_set(name: str, scans: Iterator[DetectionScan]) -> float:
    """Searches the scans of a set and prints its table; returns the recall of all candidates."""
    hits: list[Hit] = []
    counts, with_lungs = [], 0
    for scan in scans:
        of_scan, count, found = hits_of(scan)
        hits += of_scan
        counts.append(count)
        with_lungs += found
    if not hits:
        raise ValueError(f"no scans of the set {name}")
    rows = [("all", hits)]
    rows += [(f"{low}-{high} mm", [h for h in hits if low <= h.nodule.diameter_mm < high]) for low, high in SIZES_MM]
    rows += [(kind, [h for h in hits if h.nodule.kind == kind]) for kind in KINDS]
    places = f"{np.mean(counts):.0f} places a scan stand out"
    print(f"\n{name}: {len(counts)} scans, lungs found in {with_lungs}, {places}\n")
    print(f"| nodules | n | {' | '.join(f'{limit} a scan' for limit in LIMITS)} | all |")
    print("|---|---|" + "---|" * (len(LIMITS) + 1))
    for label, group in rows:
        if group:
            recalls = [np.mean([hit.rank < limit for hit in group]) for limit in (*LIMITS, np.inf)]
            print(f"| {label} | {len(group)} | " + " | ".join(f"{recall:.3f}" for recall in recalls) + " |")
    ratio = np.nanpercentile([hit.diameter_ratio for hit in hits], (10, 50, 90))
    print(f"\ndiameter of the first candidate / true: {ratio[1]:.2f} (10-90 %: {ratio[0]:.2f}-{ratio[2]:.2f})")
    return float(np.mean([np.isfinite(hit.rank) for hit in hits]))


def print_lidc(shared: Path) -> bool:
    """The rank of every real nodule; returns whether all are among the first 200."""
    print("\n| real nodule | readers | mm | kind | rank |\n|---|---|---|---|---|")
    ranks = []
    for name in LIDC_SCANS:
        for hit in hits_of(lidc_scan(shared / "data" / "lidc_idri", name))[0]:
            nodule = hit.nodule
            ranks.append(hit.rank)
            rank = "missed" if np.isinf(hit.rank) else f"{hit.rank + 1:.0f}"
            print(f"| {name} | {nodule.readers} | {nodule.diameter_mm:.1f} | {nodule.kind} | {rank} |")
    return max(ranks) < 200


def measure(file: Path) -> dict[str, float]:
    """One search in this process."""
    with np.load(file) as data:
        array, matrix = data["array"], data["matrix"]
    gflops = gemm_gflops()
    late: list[float] = [time.perf_counter()]

    def progress(_done: int, _total: int) -> bool:
        late.append(time.perf_counter())
        return True

    begun = time.perf_counter()
    lungs = find_lungs(array, matrix, progress)
    middle = time.perf_counter()
    found = find_candidates(array, matrix, lungs, progress=progress)
    ended = time.perf_counter()
    return {
        "lungs": middle - begun,
        "candidates": ended - middle,
        "found": len(found),
        "gflops": gflops,
        "silence": float(np.max(np.diff([*late[1:], ended]))),
        "mb": peak_mb(),
    }


def print_cost(options: argparse.Namespace) -> bool:
    """Time and memory of a whole chest; returns whether the targets are reached."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "volume.npz"
        array, matrix = volume_of(options)
        np.savez(file, array=array, matrix=matrix)
        shape = array.shape
        del array
        command = [sys.executable, __file__, "--measure", str(file), "--threads", str(options.threads)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cost = json.loads(answer.splitlines()[-1])
    print(
        f"\n{' x '.join(map(str, shape[::-1]))}: lungs {cost['lungs']:.1f} s, candidates {cost['candidates']:.1f} s, "
        f"{cost['mb']:.0f} MB at the peak (interpreter, PyTorch and the volume included), "
        f"at most {cost['silence']:.2f} s without progress; "
        f"{cost['gflops']:.0f} GFLOP/s in fp32, {machine(options.threads)}"
    )
    return cost["lungs"] + cost["candidates"] <= TARGET_SECONDS and cost["mb"] <= TARGET_MB


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=shared_dir(), help="folder with data/")
    parser.add_argument("--rounds", type=int, default=4, help="times the held-out background is painted")
    parser.add_argument("--blocks", type=int, default=12, help="procedural blocks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-cost", action="store_true", help="recall only")
    parser.add_argument("--ct", help="a CT for the cost instead of the synthetic chest")
    parser.add_argument("--slices", type=int, default=300, help="of the synthetic chest")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return 0
    if options.shared is None or not (options.shared / "data" / "background").is_dir():
        print("the scans are not there: name the folder that holds data/ with --shared", file=sys.stderr)
        return 2
    recall = print_set("held-out background", held_out_scans(options.shared, options.rounds, options.seed))
    print_set("procedural blocks", procedural_scans(options.blocks, options.seed))
    reached = {
        f"recall of all candidates >= {TARGET_RECALL}": recall >= TARGET_RECALL,
        "real nodules among the first 200": print_lidc(options.shared),
    }
    if not options.no_cost:
        reached[f"<= {TARGET_SECONDS:.0f} s and {TARGET_MB:.0f} MB"] = print_cost(options)
    print(NOTE)
    for target, is_reached in reached.items():
        print(f"target {target}: {'reached' if is_reached else 'missed'}")
    return 0 if all(reached.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
