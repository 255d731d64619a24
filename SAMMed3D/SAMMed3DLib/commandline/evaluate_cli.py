"""``sammed3d evaluate``: hands over to SAMMed3DTrainingLib, whose options are those of SAM-Med3D's test script."""

from __future__ import annotations

import argparse

from .terminal import Terminal

COMMAND = "evaluate"


def add_evaluate(commands: argparse._SubParsersAction) -> None:
    """Lists the command; its options are parsed by SAMMed3DTrainingLib."""
    commands.add_parser(COMMAND, help="evaluate a checkpoint with simulated clicks on labelled data", add_help=False)


def run_evaluate(options: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command with ``options.arguments``; returns the exit code.

    Raises:
        InputError: SAMMed3DTrainingLib is not there.
    """
    from ..inference import InputError

    try:
        from SAMMed3DTrainingLib.commands import evaluate
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "SAMMed3DTrainingLib":
            raise
        raise InputError(
            "evaluation is part of SAMMed3DTrainingLib, which is not installed here: install the whole package "
            "(pip install . in a checkout), or run SAMMed3DTraining/test.py"
        ) from error
    return evaluate(options.arguments, f"sammed3d {COMMAND}")
