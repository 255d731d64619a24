"""Evaluates a checkpoint: ``python test.py --seed 2023 -vp RESULTS -cp CHECKPOINT -tdp DATA -nc 10``.

For a checkout; the installed modules start ``python -m SAMMed3DTrainingLib evaluate``, which is the same. The 2D models
and classic tools that a checkpoint is compared with are chosen with ``--model``.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "SAMMed3D"), str(ROOT / "SAMMed3DTraining")]

if __name__ == "__main__":
    from SAMMed3DTrainingLib.commands import evaluate

    sys.exit(evaluate(sys.argv[1:], "test.py"))
