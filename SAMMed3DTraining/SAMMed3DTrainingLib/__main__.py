"""``python -m SAMMed3DTrainingLib COMMAND ...``: what the Slicer module and a checkout's scripts start."""

from __future__ import annotations

import argparse
import sys

from SAMMed3DLib.thread_waiting import wait_shortly

from .commands import COMMANDS


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m SAMMed3DTrainingLib", description=__doc__)
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the command; --help lists them")
    parsed = parser.parse_args(arguments)
    wait_shortly()
    return COMMANDS[parsed.command](parsed.options)


if __name__ == "__main__":
    sys.exit(main())
