"""Fine-tunes a checkpoint on nnU-Net style data: ``python SAMMed3DTraining/train.py --task_name TAG --data DIR``.

For a checkout; the installed modules start ``python -m SAMMed3DTrainingLib train``, which is the same. Several GPUs:
``--multi_gpu --gpu_ids 0 1``, or ``torchrun --nproc_per_node N SAMMed3DTraining/train.py ...``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [str(ROOT / "SAMMed3D"), str(ROOT / "SAMMed3DTraining")]
sys.path[:0] = FOLDERS
# Also for the processes that are started from here.
os.environ["PYTHONPATH"] = os.pathsep.join([*FOLDERS, *filter(None, [os.environ.get("PYTHONPATH")])])

if __name__ == "__main__":
    from SAMMed3DTrainingLib.commands import train

    sys.exit(train(sys.argv[1:]))
