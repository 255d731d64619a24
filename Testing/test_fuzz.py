"""Whatever is done to files and options, they are accepted or refused: never a traceback, a hang or a signal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("kind", "count"), [("readers", 1200), ("checkpoints", 60), ("options", 400)])
def test_hostile_input_is_accepted_or_refused(kind: str, count: int) -> None:
    """In a process of its own, which a library may crash or hang."""
    folders = [ROOT / "SAMMed3D", ROOT / "SAMMed3DTraining", ROOT / "Testing"]
    run = subprocess.run(
        [sys.executable, str(ROOT / "Testing" / "fuzz.py"), kind, "2026", str(count)],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
        errors="replace",
    )
    assert run.returncode in (0, 1), f"ended with {run.returncode}: {run.stderr[-3000:]}"
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["others"] == {}, "\n".join(result["others"].values())
    assert result["accepted"] + result["refused"] == count
    assert min(result["accepted"], result["refused"]) > count / 100, "the damages are too mild or too hard"
