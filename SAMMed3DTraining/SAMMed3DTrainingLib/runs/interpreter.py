"""Which Python runs the training package, and in which environment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import SAMMed3DLib

from .run_files import RunError

PACKAGE = "SAMMed3DTrainingLib"
_TRAINING_FOLDER = Path(__file__).resolve().parents[2]
_ENGINE_FOLDER = Path(SAMMed3DLib.__file__).resolve().parents[1]


@dataclass(frozen=True)
class Interpreter:
    """A Python that has the packages of training.

    Attributes:
        executable: PythonSlicer in Slicer, which finds all that belongs to Slicer; else an ordinary Python.
    """

    executable: Path

    def command(self, name: str, arguments: Sequence[str]) -> list[str]:
        """``python -m SAMMed3DTrainingLib NAME ARGUMENTS``, one string a word: no shell, no quoting."""
        return [str(self.executable), "-u", "-m", PACKAGE, name, *arguments]

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The whole environment of such a process: that of this one, which in Slicer names Slicer's libraries, and
        where both of our packages lie."""
        values = dict(os.environ if base is None else base)
        folders = list(dict.fromkeys([str(_ENGINE_FOLDER), str(_TRAINING_FOLDER)]))
        before = [each for each in values.get("PYTHONPATH", "").split(os.pathsep) if each and each not in folders]
        # UTF-8 whatever the system's code page: file names may have any letters.
        return {**values, "PYTHONPATH": os.pathsep.join([*folders, *before]), "PYTHONUTF8": "1",
                "PYTHONIOENCODING": "utf-8"}

    @property
    def cwd(self) -> Path:
        """Working folder for its processes. ``-m`` takes modules from there first: a folder of ours is safe."""
        return _TRAINING_FOLDER


def find_interpreter(
    which: Callable[[str], str | None] = shutil.which, fallback: str | None = None
) -> Interpreter:
    """PythonSlicer where there is one on the path, as in Slicer; else this Python.

    Args:
        which: finds a program.
        fallback: this Python; by default ``sys.executable``.

    Raises:
        RunError: neither; in an application ``sys.executable`` may be the application.
    """
    found = which("PythonSlicer")
    if found is None:
        fallback = sys.executable if fallback is None else fallback
        if not Path(fallback or "-").name.lower().startswith("python"):
            raise RunError("PythonSlicer was not found: it belongs into the folder 'bin' of Slicer's installation")
        found = fallback
    return Interpreter(Path(found))
