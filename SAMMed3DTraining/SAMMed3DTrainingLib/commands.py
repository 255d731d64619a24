"""The commands of the training package; each takes its options as a list and returns an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable


def train(arguments: list[str]) -> int:
    """Fine-tunes a checkpoint, in one process or in one for each GPU."""
    from .training_config import parse_training_options
    from .training_run import launch_training, run_training

    config = parse_training_options(arguments)
    return launch_training(config, arguments) if config.multi_gpu else run_training(config)


def evaluate(arguments: list[str], prog: str = "evaluate") -> int:
    """Evaluates a checkpoint, a 2D model or a classic tool with simulated clicks; exit code 2 for wrong input."""
    from .evaluation_config import parse_evaluation_options
    from .evaluation_run import run_evaluation

    return run_evaluation(parse_evaluation_options(arguments, prog), prog)


def check(arguments: list[str]) -> int:
    """Lists what is wrong with data sets; exit code 1 where anything is."""
    from .dataset_check import check_datasets
    from .datasets import DatasetError

    parser = argparse.ArgumentParser(prog="check", description=check.__doc__)
    parser.add_argument("data", help="a data set, or a folder that holds several")
    parser.add_argument("--patient_pattern", help="regular expression; its first group is the patient")
    options = parser.parse_args(arguments)

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done}/{total} " + ("\n" if done == total else ""))

    try:
        report = check_datasets(options.data, progress, options.patient_pattern)
    except DatasetError as error:
        sys.stderr.write(f"check: error: {error}\n")
        return 2
    sys.stdout.write(f"{report}\n")
    return 0 if report.is_clean else 1


COMMANDS: dict[str, Callable[[list[str]], int]] = {"train": train, "evaluate": evaluate, "check": check}
