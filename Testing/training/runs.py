"""Small training runs for tests, in this process or as a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from SAMMed3DTrainingLib.train.training_config import TrainingConfig, parse_training_options

from .dataset_files import balls, write_case

ROOT = Path(__file__).resolve().parents[2]


def write_data(folder: Path, cases: int = 4) -> Path:
    """A data set of that many patients with two nodules each."""
    for n in range(cases):
        write_case(folder, f"P{n}", balls((8, 12, 12), (16, 28, 28), radius_mm=2.5 + 0.5 * n), seed=n)
    return folder


def options(work_dir: Path, data: Path, *more: str, name: str = "run") -> list[str]:
    """A run of a small ViT from scratch: two epochs of nine samples."""
    return [
        "--task_name",
        name,
        "--data",
        str(data),
        "--work_dir",
        str(work_dir),
        "--checkpoint",
        "from scratch",
        "--model_type",
        "vit_tiny",
        "--num_epochs",
        "2",
        "--samples_per_nodule",
        "1",
        "--batch_size",
        "2",
        "--replay",
        "0",
        "--empty_share",
        "0.3",
        "--num_workers",
        "0",
        "--val_clicks",
        "1",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        *more,
    ]


def config(work_dir: Path, data: Path, *more: str, name: str = "run") -> TrainingConfig:
    """The same as a configuration."""
    return parse_training_options(options(work_dir, data, *more, name=name))


def events(work_dir: Path, kind: str = "", name: str = "run") -> list[dict[str, Any]]:
    """The raw lines of a run's events, which may still be going on: a line half written is left out."""
    path = work_dir / name / "events.jsonl"
    written = path.read_bytes() if path.exists() else b""
    lines = [json.loads(line) for line in written[: written.rfind(b"\n") + 1].splitlines()]
    return [line for line in lines if not kind or line["event"] == kind]


def start(arguments: list[str], group: bool = False, **environment: str) -> subprocess.Popen[str]:
    """``python -m SAMMed3DTrainingLib train`` on one thread a process; ``group``: as the head of a process group."""
    path = os.pathsep.join(str(ROOT / part) for part in ("SAMMed3D", "SAMMed3DTraining"))
    return subprocess.Popen(
        [sys.executable, "-m", "SAMMed3DTrainingLib", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        start_new_session=group,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", **environment},
    )
