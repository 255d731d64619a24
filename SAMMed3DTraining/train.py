"""Fine-tunes a checkpoint on nnU-Net style data: ``python SAMMed3DTraining/train.py --task_name TAG --data DIR``.

For a checkout; the installed modules start ``python -m SAMMed3DTrainingLib train``, which is the same. Several GPUs:
``--multi_gpu --gpu_ids 0 1``, or ``torchrun --nproc_per_node N SAMMed3DTraining/train.py ...``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [str(ROOT / "SAMMed3D"), str(ROOT / "SAMMed3DTraining")]


class train:
    """Slicer takes each script beside a module for a module and asks for a class of its name: this one hides itself.

    (qSlicerScriptedLoadableModuleFactory; a script that begins with ``#!`` it would start as a command line module.)
    """

    def __init__(self, parent: Any) -> None:
        parent.title, parent.hidden = "train.py", True


if __name__ == "__main__":
    sys.path[:0] = FOLDERS
    # Also for the processes that are started from here.
    os.environ["PYTHONPATH"] = os.pathsep.join([*FOLDERS, *filter(None, [os.environ.get("PYTHONPATH")])])
    from SAMMed3DLib.torch_setup.loading import wait_shortly
    from SAMMed3DTrainingLib.commands import train as run
    from SAMMed3DTrainingLib.runs.progress import accept_any_letters

    wait_shortly()
    accept_any_letters()
    sys.exit(run(sys.argv[1:]))
