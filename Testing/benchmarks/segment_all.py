"""All nodules of a chest CT of 512 x 512 x 300: time and peak memory, beside the speed of this machine.

    python Testing/benchmarks/segment_all.py [--ct FILE] [--slices 300] [--threads N] [--keep F.npz]

Without a CT the synthetic chest is made at that size (a minute or two, not measured). The search runs in a process of
its own, so that the peak is its own: the interpreter, PyTorch, the model, the volume and the search. Exit code 1 when a
target is missed; the times of a machine that others use say little, hence the matrix product beside.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "SAMMed3D"), str(Path(__file__).parent)]

from encoder import GEMM, gemm_calls, machine, seconds  # noqa: E402

from SAMMed3DLib.files.volume_io import read_volume  # noqa: E402
from SAMMed3DLib.finding.candidates import find_candidates  # noqa: E402
from SAMMed3DLib.finding.lungs import find_lungs  # noqa: E402
from SAMMed3DLib.inference import SamAutomaticMaskGenerator3D, SamPredictor3D  # noqa: E402
from SAMMed3DLib.model import load_model  # noqa: E402
from SAMMed3DLib.synthesis import chest_phantom  # noqa: E402
from SAMMed3DLib.weights import default_checkpoint  # noqa: E402

TARGET_SECONDS, TARGET_MB = 30.0, 2500.0


def peak_mb() -> float:
    """The most memory that this process ever held.

    On Linux a child's ``ru_maxrss`` begins with what its parent held when it was started, so that a large volume made
    there would be counted; the high-water mark of the address space begins anew with each program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return float(re.search(r"VmHWM:\s*(\d+)", status.read_text(encoding="utf-8")).group(1)) / 1024.0
    unit = 1024.0**2 if sys.platform == "darwin" else 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def gemm_gflops() -> float:
    """The faster library's matrix product in fp32, GFLOP/s."""
    rows, inner, columns = GEMM
    calls = gemm_calls(torch.float32).values()
    best = min(min(seconds(call) for _ in range(20)) for call in calls)
    return 2e-9 * rows * inner * columns / best


def measure(file: Path, precision: str) -> dict[str, Any]:
    """One search in this process."""
    with np.load(file) as data:
        array, matrix = data["array"], data["matrix"]
    predictor = SamPredictor3D(load_model(default_checkpoint(), device="cpu", precision=precision))
    before = gemm_gflops()
    times: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            result = function(*args, **options)
            times[name] = time.perf_counter() - begun
            return result

        return call

    generator = SamAutomaticMaskGenerator3D(
        predictor, lung_finder=timed("lungs", find_lungs), candidate_finder=timed("candidates", find_candidates)
    )
    predictor.set_image(array, matrix)
    records: list[dict[str, Any]] = []
    cpu = time.process_time()
    first: list[float] = []
    begun = time.perf_counter()

    def progress(_done: int, _total: int) -> None:
        if generator.found_so_far and not first:
            first.append(time.perf_counter() - begun)

    total = seconds(lambda: records.extend(generator.generate(progress)))
    cpu = time.process_time() - cpu
    return {
        "shape": array.shape,
        "seconds": total,
        "cpu": cpu,
        "times": times,
        "clicked": generator.clicked,
        "tflop": generator.tflop,
        "first": first[0] if first else total,
        "records": len(records),
        "shown": sum(record["shown_from"] <= 0.5 for record in records),
        "peak_mb": peak_mb(),
        "gflops": (before + gemm_gflops()) / 2.0,
        "message": generator.message,
    }


def volume_of(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The CT asked for, or a phantom of the size asked for."""
    if options.ct:
        volume = read_volume(options.ct)
        return np.asarray(volume.array_kji), np.asarray(volume.ijk_to_ras)
    phantom = chest_phantom(3, (options.slices, 512, 512), (300.0 / options.slices, 0.7, 0.7))
    return phantom.array_kji, phantom.ijk_to_ras


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", help="a CT instead of the synthetic chest")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--keep", type=Path, help="keep the volume there (.npz) and take it from there the next time")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        torch.set_num_threads(options.threads)
        print(json.dumps(measure(options.measure, options.precision)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        file = options.keep or Path(folder) / "volume.npz"
        if not file.exists():
            array, matrix = volume_of(options)
            np.savez(file, array=array, matrix=matrix)
        command = [
            sys.executable,
            __file__,
            "--measure",
            str(file),
            "--precision",
            options.precision,
            "--threads",
            str(options.threads),
        ]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(answer.splitlines()[-1])
    looks = found["seconds"] - sum(found["times"].values())
    print(f"{machine(options.threads)}; {found['gflops']:.0f} GFLOP/s in fp32 around the search\n")
    print(f"| {' x '.join(map(str, found['shape'][::-1]))} | s |\n|---|---|")
    for name, value in (
        *found["times"].items(),
        ("classifier, clicks and masks", looks),
        ("first nodules", found["first"]),
        ("all", found["seconds"]),
        ("processor time of all threads", found["cpu"]),
    ):
        print(f"| {name} | {value:.1f} |")
    print(
        f"\n{found['clicked']} places clicked, {found['tflop'] or 0.0:.2f} TFLOP, {found['records']} masks, "
        f"{found['shown']} shown by default; "
        f"peak {found['peak_mb']:.0f} MB {found['message']}"
    )
    reached = found["seconds"] <= TARGET_SECONDS and found["peak_mb"] <= TARGET_MB
    print(f"target {TARGET_SECONDS:.0f} s and {TARGET_MB:.0f} MB: {'reached' if reached else 'missed'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
