"""Everything that decides an evaluation, and its command line. Light: nothing but argparse is imported.

The option names are those of SAM-Med3D's ``validation.py`` and of the LIDC fork's ``test.py``. What their other options
asked for happens by itself: the size of the crop comes with the checkpoint, no nodule is too small to count, and the
score of a nodule is that of its last click, never the best one.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Literal

from SAMMed3DLib import __version__
from SAMMed3DLib.commandline.task_queue import Workers

from ..options import (
    DEVICES,
    NOT_NEGATIVE,
    ONE_CLICK,
    PART,
    POSITIVE,
    PRECISIONS,
    SEED,
    Range,
    add_options,
    check_ranges,
    option,
    options_of,
    values_of,
)

DataPart = Literal["Tr", "Val", "Ts"]
#: --model: what is evaluated.
MODELS = {
    "sam3d": "SAM-Med3D and nodule checkpoints (default: the bundled nodule model)",
    "sam": "Segment Anything, ViT-B/L/H, slice by slice",
    "medsam": "MedSAM, slice by slice",
    "sam_med2d": "SAM-Med2D, slice by slice",
    "region_growing": "classic: region growing from the first click",
    "threshold": "classic: threshold and morphology at the first click",
}
PEERS_2D = ("sam", "medsam", "sam_med2d")
CLASSICS = ("region_growing", "threshold")
METHODS = ("challenge", "random", "jitter")
#: Names that other scripts use for these methods.
METHOD_ALIASES = {"default": "challenge", "ritm": "random"}
#: Options of the public scripts that have nothing to decide here.
_WITHOUT_EFFECT = {
    "crop_size": "the crop's size comes with the checkpoint",
    "threshold": "every nodule counts",
    "save_name": "the files of --vis_path have fixed names",
}


class EvaluationError(ValueError):
    """An evaluation that cannot be made; the message says what to do."""


@dataclass(frozen=True)
class EvaluationConfig:
    """One evaluation.

    Attributes:
        checkpoint: None takes the bundled nodule model.
        num_clicks: of 2D peers rounds of one click per slice.
        point_methods: the first one's masks are the predictions that are written.
        window_hu: None takes the peer's own.
        notes: what to say about options without effect.
    """

    data: tuple[str, ...] = option(
        "data",
        "data sets, or folders that hold several",
        ("sam_med3d_cache",),
        name="test_data_path",
        flags=("-tdp",),
        nargs="+",
        metavar="DIR",
    )
    vis_path: str = option(
        "results",
        "folder of the results; cases that are in it already are not evaluated again",
        "./results/visualization",
        flags=("-vp",),
        metavar="DIR",
    )
    checkpoint: str | None = option(
        "model",
        "weights (default: the bundled nodule model)",
        None,
        name="checkpoint_path",
        flags=("-cp",),
        metavar="FILE",
    )
    model: str = option("model", "what is evaluated, see below (default sam3d)", "sam3d", choices=tuple(MODELS))
    model_type: str | None = option(
        "model", "network the checkpoint must be of; it is recognized without this", None, flags=("-mt",)
    )
    profile: str | None = option("model", "preprocessing, where the checkpoint does not say it", None)
    num_clicks: int = option("clicks", "clicks per nodule", 10, flags=("-nc",), range=ONE_CLICK)
    point_methods: tuple[str, ...] = option(
        "clicks",
        "where clicks go; several are evaluated in turn",
        ("challenge",),
        name="point_method",
        flags=("-pm",),
        choices=(*METHODS, *METHOD_ALIASES),
        nargs="+",
    )
    data_type: DataPart = option(
        "data",
        "part of the data; where it is missing, the held-out split is used and named",
        "Ts",
        flags=("-dt",),
        choices=("Tr", "Val", "Ts"),
    )
    first_clicks: int = option(
        "clicks", "random first clicks per nodule, of which the worst counts; 0 for none", 5, range=NOT_NEGATIVE
    )
    prompt: Literal["point", "box"] = option(
        "model",
        "of the 2D models: clicks in each slice, or a box in each slice first",
        "point",
        choices=("point", "box"),
    )
    window_hu: tuple[float, float] | None = option(
        "model",
        "of the 2D models: HU shown as black and white (default: the model's own)",
        None,
        kind=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
    )
    seed: int = option("clicks", "of clicks and split", 2023, range=SEED)
    device: str = option("model", DEVICES, "auto")
    precision: str = option("model", "of the image encoder", "auto", choices=PRECISIONS)
    val_fraction: float = option("data", "share of the patients in such a split", 0.2, range=PART)
    fold: int | None = option("data", "of splits_final.json, where a held-out split has to be made", None, kind=int)
    patient_pattern: str | None = option(
        "data", "regular expression; its first group is the patient in a case's name", None
    )
    labels: tuple[str, ...] = option(
        "data", "the classes of dataset.json that are nodules (default: all)", (), nargs="+", metavar="NAME|VALUE"
    )
    split_num: int = option("data", "number of equal shares of the cases", 1)
    split_idx: int = option("data", "the share that is evaluated, from 0", 0)
    per_click: bool = option(
        "results",
        "write the masks after every click too, and out_dice.json, as SAM-Med3D's scripts name and lay them out",
        False,
        switch=True,
    )
    worst: int = option("results", "nodules in the picture of the worst", 8, range=NOT_NEGATIVE)
    worker_count: int = option(
        "work",
        "processes on this machine, each with a model and a case in memory; with --slurm: jobs",
        1,
        name="workers",
        range=Range("must be 1 or more", lambda value: value >= 1),
    )
    threads: int | None = option(
        "work", "of each process (default: the cores, divided among the processes)", None, kind=int, range=POSITIVE
    )
    scheduler: str | None = option("work", "of a Dask cluster, such as tcp://10.0.0.1:8786", None, metavar="ADDRESS")
    slurm: bool = option(
        "work", "workers are Slurm jobs, as ~/.config/dask/jobqueue.yaml describes them", False, switch=True
    )
    notes: tuple[str, ...] = ()

    @property
    def workers(self) -> Workers:
        """The processes or machines that evaluate the cases."""
        return Workers(self.worker_count, self.threads, self.scheduler, self.slurm)

    def check(self) -> None:
        """Raises EvaluationError for values that no evaluation can have."""
        check_ranges(self, OPTIONS, EvaluationError)
        self.workers.check()
        if self.split_num < 1 or not 0 <= self.split_idx < self.split_num:
            raise EvaluationError(f"--split_idx must be from 0 to {max(self.split_num, 1) - 1}, not {self.split_idx}")
        if self.window_hu is not None and not self.window_hu[0] < self.window_hu[1]:
            raise EvaluationError("--window_hu needs the lower value first")
        if self.prompt == "box" and self.model not in PEERS_2D:
            raise EvaluationError(f"--prompt box is for the 2D models ({', '.join(PEERS_2D)}), not for {self.model}")
        if self.model in CLASSICS and self.checkpoint is not None:
            raise EvaluationError(f"{self.model} has no weights: leave -cp away")
        if self.model in PEERS_2D and self.checkpoint is None:
            raise EvaluationError(f"{self.model} needs its weights: give the checkpoint with -cp")


OPTIONS = options_of(EvaluationConfig)
#: Fields that decide a case's scores, beside its files and the weights.
DECIDING = (
    *(each.target for each in OPTIONS if each.group in ("model", "clicks") and each.target != "checkpoint"),
    "per_click",
)


def parse_evaluation_options(arguments: list[str] | None = None, prog: str = "test.py") -> EvaluationConfig:
    """The command line as a configuration; options that cannot be end in argparse's exit with code 2."""
    options = evaluation_parser(prog).parse_args(arguments)
    notes = [f"--{name} has no effect: {why}" for name, why in _WITHOUT_EFFECT.items() if getattr(options, name)]
    values = values_of(options, OPTIONS) | {"model": options.model or _model_of_dimensions(options)}
    values["point_methods"] = tuple(dict.fromkeys(METHOD_ALIASES.get(m, m) for m in values["point_methods"]))
    return EvaluationConfig(**values, notes=tuple(notes))


def _model_of_dimensions(options: argparse.Namespace) -> str:
    """Returns the 2D model that ``--dim 2`` with ``--ft2d`` and ``--image_size`` means in the public scripts."""
    if options.dim != 2:
        return "sam3d"
    if options.image_size == 256:
        return "sam_med2d"
    return "medsam" if options.ft2d else "sam"


def evaluation_parser(prog: str = "test.py") -> argparse.ArgumentParser:
    """The options with their defaults and meanings."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Evaluate a checkpoint, a 2D model or a classic tool with simulated clicks.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="models:\n" + "\n".join(f"  {name:15} {text}" for name, text in MODELS.items()),
    )
    parser.add_argument("--version", action="version", version=f"sammed3d {__version__}")
    add_options(parser, OPTIONS, EvaluationConfig)
    parser.set_defaults(model=None)  # not given: what --dim, --ft2d and --image_size mean
    other = parser.add_argument_group("2D models as SAM-Med3D's scripts name them")
    other.add_argument("--dim", type=int, choices=(2, 3), default=3, help="2: --model by --ft2d and --image_size")
    other.add_argument("--ft2d", action="store_true", help="with --dim 2: MedSAM")
    other.add_argument("--image_size", type=int, help="with --dim 2: 256 is SAM-Med2D")
    for name, why in _WITHOUT_EFFECT.items():
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS, metavar=why)
    return parser
