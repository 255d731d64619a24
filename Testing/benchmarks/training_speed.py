"""Samples per second of our training beside a plain loop that reads and crops each case again, as public code does.

    python Testing/benchmarks/training_speed.py [--shared ../shared] [--data DIR] [--rounds 2]

Both train the default model with our encoder, clicks and loss, batches of four, one process that prepares samples
(``plain_training.py`` says what the plain loop does). Ours is the command line, ``python -m SAMMed3DTrainingLib
train``, and what it wrote into events.jsonl. Every candidate runs in a process of its own, in turns. The embeddings
of a frozen encoder, computed beforehand, count, spread over 20 epochs. Without data a CT of LIDC's size
is made from a synthetic chest. Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from encoder import GEMM, gemm_calls, machine, seconds

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("SAMMed3D", "SAMMed3DTraining", "Testing")]

from SAMMed3DLib.files.volume_io import Volume, write_volume  # noqa: E402
from SAMMed3DLib.synthesis import chest_phantom  # noqa: E402
from SAMMed3DTrainingLib.train.run_folder import read_events  # noqa: E402
from SAMMed3DTrainingLib.train.trainer import BANK_EPOCHS  # noqa: E402
from shared_data import shared_dir  # noqa: E402

SCANS = ("LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003")
TARGETS = {"frozen": 5.0, "full": 2.0}
EPOCHS_OF_EMBEDDINGS = 20
MOST_WAITING = 0.1
BATCH, WARM_UP = 4, 2
PLAIN = {"plain": (), "plain, resampling each time": ("--resample",)}


@dataclass
class Measured:
    """What the rounds gave: seconds a sample, and of ours the seconds of steps and those spent waiting for data."""

    per_sample: list[float] = field(default_factory=list)
    steps_s: float = 0.0
    waiting_s: float = 0.0

    @property
    def waiting(self) -> float:
        """Share of the steps' time."""
        return self.waiting_s / self.steps_s


def lidc_data(shared: Path, folder: Path) -> None:
    """The LIDC scans as a data set, all for training but the last, which validates."""
    for number, scan in enumerate(SCANS):
        part = "Val" if number == len(SCANS) - 1 else "Tr"
        for kind, source, name in (
            ("images", f"{scan}_ct.nii.gz", f"{scan}_0000.nii.gz"),
            ("labels", f"{scan}_nodules.nii.gz", None),
        ):
            place = folder / f"{kind}{part}" / (name or f"{scan}.nii.gz")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(shared / "data" / "lidc_idri" / source, place)


def phantom_data(folder: Path) -> None:
    """Two synthetic chests, enlarged to LIDC's 512 x 512 pixels."""
    for number, part in enumerate(("Tr", "Val")):
        phantom = chest_phantom(number)
        factor = -(-512 // phantom.array_kji.shape[2])
        matrix = phantom.ijk_to_ras @ np.diag([1 / factor, 1 / factor, 1.0, 1.0])
        for kind, array in (("images", phantom.array_kji), ("labels", phantom.labels_kji.astype(np.uint8))):
            path = folder / f"{kind}{part}" / (f"P{number}_0000.nii.gz" if kind == "images" else f"P{number}.nii.gz")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, Volume(array.repeat(factor, axis=1).repeat(factor, axis=2), matrix, path.name, path))


def run_plain(data: Path, options: Sequence[str]) -> float:
    """Seconds a sample of the plain loop."""
    script = Path(__file__).with_name("plain_training.py")
    run = _python([str(script), str(data), *options])
    return float(json.loads(run.splitlines()[-1])["seconds"])


def run_ours(data: Path, work: Path, encoder: str, epochs: int, measured: Measured) -> None:
    """A short run of an encoder that learns so; its figures are added to ``measured``."""
    name = f"{encoder}{len(measured.per_sample)}"
    _python(
        [
            "-m",
            "SAMMed3DTrainingLib",
            "train",
            "--task_name",
            name,
            "--data",
            str(data),
            "--work_dir",
            str(work),
            "--encoder",
            encoder,
            "--num_epochs",
            str(epochs),
            "--val_nodules",
            "1",
            "--val_clicks",
            "1",
            "--device",
            "cpu",
        ]
    )
    events = read_events(work / name)
    steps = [event for event in events if event["event"] == "step"][WARM_UP:]
    total = sum(step["step_s"] for step in steps)
    measured.steps_s += total
    measured.waiting_s += sum(step["data_s"] for step in steps)
    per_sample = total / (len(steps) * BATCH)
    encoding = [event for event in events if event["event"] == "encoding"]
    if len(encoding) > 1:
        first, last = encoding[0], encoding[-1]
        each = (last["time"] - first["time"]) / (last["done"] - first["done"])
        per_sample += each * BANK_EPOCHS / EPOCHS_OF_EMBEDDINGS
    measured.per_sample.append(per_sample)


def _python(arguments: list[str]) -> str:
    path = os.pathsep.join(str(ROOT / part) for part in ("SAMMed3D", "SAMMed3DTraining"))
    run = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
    )
    if run.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {run.returncode}:\n{run.stdout}\n{run.stderr}")
    return run.stdout


def report(measured: dict[str, Measured], gemm: list[float]) -> bool:
    """Prints the tables; whether every target is reached."""
    rate = 2 * GEMM[0] * GEMM[1] * GEMM[2] / 1e9 / statistics.median(gemm)
    print(f"\n{machine(torch.get_num_threads())}\nMatrix product {GEMM[0]}x{GEMM[1]}x{GEMM[2]}: {rate:.0f} GFLOP/s\n")
    print("| training of the default model | s a sample | samples/s | times the plain loop | resampling | waiting |")
    print("|---|---|---|---|---|---|")
    median = {name: statistics.median(item.per_sample) for name, item in measured.items()}
    checks: list[tuple[str, bool]] = []
    for name, item in measured.items():
        cells = ["", "", ""]
        if name in TARGETS:
            ratios = [median[plain] / median[name] for plain in PLAIN]
            cells = [f"{ratios[0]:.1f}x", f"{ratios[1]:.1f}x", f"{100 * item.waiting:.1f} %"]
            checks.append((f"{name}: {TARGETS[name]:g} times the plain loop", min(ratios) >= TARGETS[name]))
            checks.append((f"{name}: at most {100 * MOST_WAITING:g} % waiting", item.waiting <= MOST_WAITING))
        print(f"| {name} | {median[name]:.3f} | {1 / median[name]:.2f} | {' | '.join(cells)} |")
    print()
    for text, reached in checks:
        print(f"{text}: {'reached' if reached else 'MISSED'}")
    return all(reached for _, reached in checks)


@contextmanager
def data_folder(options: argparse.Namespace, work: Path) -> Iterator[Path]:
    """The data set that is asked for, LIDC's, or a synthetic one."""
    if options.data is not None:
        yield options.data
        return
    folder = work / "data"
    if options.shared is not None and (options.shared / "data" / "lidc_idri").is_dir():
        lidc_data(options.shared, folder)
        print("LIDC-IDRI-0001 and -0002")
    else:
        phantom_data(folder)
        print("a synthetic chest of LIDC's size")
    yield folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=shared_dir(), help="folder with data/lidc_idri")
    parser.add_argument("--data", type=Path, help="a data set of yours instead")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4, help="of our runs, in each round")
    parser.add_argument("--plain-steps", type=int, default=4, help="of the plain loop, in each round")
    options = parser.parse_args(arguments)
    measured = {name: Measured() for name in (*PLAIN, *TARGETS)}
    gemm_call = gemm_calls(torch.float32)["PyTorch's choice"]
    gemm: list[float] = []
    with tempfile.TemporaryDirectory(prefix="training_speed-") as part, data_folder(options, Path(part)) as data:
        for number in range(options.rounds):
            for name, flags in PLAIN.items():
                print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
                gemm += [seconds(gemm_call) for _ in range(10)]
                measured[name].per_sample.append(run_plain(data, ("--steps", str(options.plain_steps), *flags)))
            for encoder in TARGETS:
                print(f"round {number + 1} of {options.rounds}: {encoder}", file=sys.stderr, flush=True)
                gemm += [seconds(gemm_call) for _ in range(10)]
                run_ours(data, Path(part) / "work", encoder, options.epochs, measured[encoder])
        reached = report(measured, gemm)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
