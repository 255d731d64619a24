"""The commands of the training package; each takes its options as a list and returns an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from SAMMed3DLib import __version__

if TYPE_CHECKING:
    from .data.dataset_check import CheckReport


def train(arguments: list[str], prog: str = "train.py") -> int:
    """Fine-tunes a checkpoint, in one process or in one for each GPU."""
    from .train.distributed import is_one_of_several
    from .train.training_config import parse_training_options
    from .train.training_run import launch_training, run_training

    config = parse_training_options(arguments, prog)
    # What torchrun has started is one of the processes already.
    launches = config.multi_gpu and not is_one_of_several()
    return launch_training(config, arguments) if launches else run_training(config)


def evaluate(arguments: list[str], prog: str = "evaluate") -> int:
    """Evaluates a checkpoint, a 2D model or a classic tool with simulated clicks; exit code 2 for wrong input."""
    from .evaluate.evaluation_config import parse_evaluation_options
    from .evaluate.evaluation_run import run_evaluation

    return run_evaluation(parse_evaluation_options(arguments, prog), prog)


def check(arguments: list[str], prog: str = "check") -> int:
    """Lists what is wrong with data sets; exit code 1 where anything is, 2 where there is none."""
    from .data.dataset_check import check_datasets
    from .job import Job, add_job_options

    parser = argparse.ArgumentParser(prog=prog, description=check.__doc__)
    parser.add_argument("data", help="a data set, or a folder that holds several")
    parser.add_argument("--version", action="version", version=f"sammed3d {__version__}")
    parser.add_argument("--patient_pattern", help="regular expression; its first group is the patient")
    parser.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="NAME|VALUE",
        help="the classes of dataset.json that are nodules (default: all)",
    )
    add_job_options(parser)
    options = parser.parse_args(arguments)
    job = Job("check", options.json, options.control)
    reports: list[CheckReport] = []

    def work(job: Job) -> None:
        def progress(done: int, total: int) -> bool:
            job.progress(done, total)
            if not options.json and sys.stderr.isatty():
                sys.stderr.write(f"\r{done}/{total} " + ("\n" if done == total else ""))
            return not job.cancelled

        report = check_datasets(options.data, progress, options.patient_pattern, options.labels)
        if not job.cancelled:
            reports.append(report)
            job.result(_as_json(report), str(report))

    code = job.run(work)
    return code if code or not reports or reports[0].is_clean else 1


def compare(arguments: list[str]) -> int:
    """Compares a run's weights with older ones on the cases that it did not train on."""
    from .evaluate.comparison import run_comparison

    return run_comparison(arguments)


def rank(arguments: list[str]) -> int:
    """Ranks unlabelled volumes by the model's own uncertainty."""
    from .evaluate.active_learning import run_ranking

    return run_ranking(arguments)


def _as_json(report: CheckReport) -> dict[str, object]:
    """Converts a report to the values that a panel shows of a check."""
    problems = [{"case": "", "text": problem} for problem in report.problems]
    problems += [{"case": row.case.full_name, "text": text} for row in report.rows for text in row.problems]
    return {
        "cases": len(report.rows),
        "nodules": sum(len(row.diameters_mm) for row in report.rows),
        "patients": len({row.case.patient for row in report.rows}),
        "datasets": [d.name for d in report.datasets],
        "clean": report.is_clean,
        "fatal": any(row.fatal for row in report.rows),
        "problems": problems,
        "labelled": sum(row.case.label is not None for row in report.rows),
    }


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "evaluate": evaluate,
    "check": check,
    "compare": compare,
    "rank": rank,
}
