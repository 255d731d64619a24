"""``python -m SAMMed3DTrainingLib COMMAND ...``: what the Slicer module and a checkout's scripts start."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("SAMMed3DLib") is None:  # a checkout: the engine lies in the module beside this one
    sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "SAMMed3D"))

from SAMMed3DLib import __version__  # noqa: E402
from SAMMed3DLib.torch_setup.loading import wait_shortly  # noqa: E402

from .commands import COMMANDS  # noqa: E402
from .runs.progress import accept_any_letters  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m SAMMed3DTrainingLib", description=__doc__)
    parser.add_argument("--version", action="version", version=f"sammed3d {__version__}")
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the command; --help lists them")
    parsed = parser.parse_args(arguments)
    wait_shortly()
    accept_any_letters()
    return COMMANDS[parsed.command](parsed.options)


if __name__ == "__main__":
    sys.exit(main())
