"""``sammed3d evaluate``, ``train`` and ``check``: hands over to SAMMed3DTrainingLib, which parses their options."""

from __future__ import annotations

import argparse

from .terminal import Terminal

#: The commands and what they do.
COMMANDS = {
    "evaluate": "evaluate a checkpoint with simulated clicks on labelled data",
    "train": "fine-tune a checkpoint on labelled data",
    "check": "list what is wrong with labelled data",
}


def add_evaluate(commands: argparse._SubParsersAction) -> None:
    """Lists the commands; their options are parsed by SAMMed3DTrainingLib."""
    for name, about in COMMANDS.items():
        commands.add_parser(name, help=about, add_help=False)


def run_evaluate(options: argparse.Namespace, terminal: Terminal) -> int:
    """Runs the command ``options.command`` with ``options.arguments``; returns the exit code.

    Raises:
        InputError: SAMMed3DTrainingLib is not there.
    """
    from ..inference import InputError

    try:
        from SAMMed3DTrainingLib import commands
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "SAMMed3DTrainingLib":
            raise
        raise InputError(
            f"{options.command} is part of SAMMed3DTrainingLib, which is not installed here: install the whole package "
            "(pip install . in a checkout), or run SAMMed3DTraining/train.py and test.py"
        ) from error
    return getattr(commands, options.command)(options.arguments, f"sammed3d {options.command}")
