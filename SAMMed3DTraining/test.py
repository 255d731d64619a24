"""Evaluates a checkpoint: ``python test.py --seed 2023 -vp RESULTS -cp CHECKPOINT -tdp DATA -nc 10``.

For a checkout; the installed modules start ``python -m SAMMed3DTrainingLib evaluate``, which is the same. The 2D models
and classic tools that a checkpoint is compared with are chosen with ``--model``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class test:
    """For Slicer, which takes this script for a module: there is nothing to show (see ``train.py``)."""

    def __init__(self, parent: Any) -> None:
        parent.title, parent.hidden = "test.py", True


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "SAMMed3D"), str(ROOT / "SAMMed3DTraining")]
    from SAMMed3DLib.torch_setup.loading import wait_shortly
    from SAMMed3DTrainingLib.commands import evaluate
    from SAMMed3DTrainingLib.runs.progress import accept_any_letters

    wait_shortly()
    accept_any_letters()
    sys.exit(evaluate(sys.argv[1:], "test.py"))
