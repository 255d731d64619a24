"""What following a run costs Slicer's main thread: a poll without news, with a step's, and while a long run is read.

    python Testing/benchmarks/run_monitor.py [--rounds 400]

Everything is timed in one run; medians as a Markdown table, with the rate of a matrix product as measure of the
machine's load, and what parsing the whole file of events at every poll would cost. Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("SAMMed3D", "SAMMed3DTraining", "Testing/benchmarks")]

from targets import print_targets  # noqa: E402

from SAMMed3DTrainingLib.runs.run_files import EVENTS, hold_lock, note_process  # noqa: E402
from SAMMed3DTrainingLib.runs.run_history import RunHistory  # noqa: E402
from SAMMed3DTrainingLib.runs.run_monitor import RunMonitor  # noqa: E402

STEPS = 20_000
GEMM = 512
TARGET_MS = 0.15


def seconds(function: Callable[[], object]) -> float:
    """Time of one call."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def step(number: int) -> str:
    """A step's line."""
    return (
        json.dumps(
            {
                "event": "step",
                "time": 1e9 + number,
                "epoch": 1,
                "step": number,
                "steps": 2 * STEPS,
                "loss": 0.123456,
                "lr": 2e-4,
                "data_s": 0.001234,
                "step_s": 0.123456,
                "left_s": 1234.567,
                "dice_first": 0.71,
                "dice_last": 0.82,
                "iou_error": 0.05,
            }
        )
        + "\n"
    )


def run(rounds: int) -> dict[str, float]:
    """Medians in ms."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "run"
        folder.mkdir()
        start = {
            "event": "start",
            "time": 1e9,
            "config": {"num_epochs": 2},
            "nodules": 9,
            "cases": 3,
            "step": 0,
            "steps": 2 * STEPS,
            "resumed": False,
        }
        note_process(folder, 1, "")
        (folder / EVENTS).write_text(json.dumps(start) + "\n" + "".join(map(step, range(1, STEPS + 1))))
        with hold_lock(folder):
            monitor, reading = RunMonitor(folder), []
            while not reading or not monitor.status.caught_up:
                reading.append(seconds(monitor.poll))
            idle = [seconds(monitor.poll) for _ in range(rounds)]
            news = []
            for number in range(rounds):
                with (folder / EVENTS).open("a") as file:
                    file.write(step(STEPS + 1 + number))
                news.append(seconds(monitor.poll))

            def parse_all(file: Path = folder / EVENTS) -> None:
                for line in file.read_text(encoding="utf-8").splitlines():
                    json.loads(line)

            whole = [seconds(parse_all) for _ in range(3)]
            history = [seconds(RunHistory(Path(work)).runs) for _ in range(3)]
    medians = {
        "poll without news": idle,
        "poll with a step": news,
        "poll while a long run is read": reading,
        "parsing all of it instead": whole,
        "history, read for the first time": history,
    }
    return {name: 1e3 * statistics.median(values) for name, values in medians.items()}


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    rounds = parser.parse_args().rounds
    matrix = np.ones((GEMM, GEMM), np.float32)
    gemm = min(seconds(lambda: matrix @ matrix) for _ in range(20))
    found = run(rounds)
    print(f"matrix product: {2e-9 * GEMM**3 / gemm:.0f} GFLOP/s; a run of {STEPS} steps\n\n| | ms |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:.3f} |")
    reached = print_targets(
        [
            ("poll without news, ms", found["poll without news"], "<=", TARGET_MS),
            ("poll with a step, ms", found["poll with a step"], "<=", 2 * TARGET_MS),
            ("poll while a long run is read, ms", found["poll while a long run is read"], "<=", 30.0),
        ]
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
