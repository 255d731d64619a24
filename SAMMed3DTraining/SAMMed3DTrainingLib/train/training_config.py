"""The configuration of a training run, and its command line.

The option names are those of SAM-Med3D's ``train.py``; what is new or no longer there is said in README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from SAMMed3DLib import __version__
from SAMMed3DLib.files.image_file import given_path
from SAMMed3DLib.inference.errors import InputError
from SAMMed3DLib.model.sizes import BUNDLED_NETWORK, model_names

from ..data.datasets import DEFAULT_PATIENT_PATTERN
from ..options import (
    ACCUMULATION_STEPS,
    ALIASES,
    BATCH_SIZE,
    DEVICES,
    FORMER_ENCODERS,
    LIBRARIES,
    NOT_NEGATIVE,
    POSITIVE,
    PRECISIONS,
    PRESETS,
    SCRATCH_EPOCHS,
    SHARE,
    Encoder,
    Option,
    Preset,
    add_options,
    check_ranges,
    values_of,
    words_of,
)
from ..runs.run_files import read_config, write_whole

#: Options of SAM-Med3D's train.py that have no effect here.
_WITHOUT_EFFECT = {
    "click_type": "first and later clicks are mixed",
    "multi_click": "the network's profile says which clicks it sees",
    "img_size": "the crop's size comes with the network",
    "allow_partial_weight": "weights fit the network or are refused",
}
#: Keys of config.json that are no options, or options that a file does not decide.
_BESIDES = {"versions", "split"}
_NOT_OF_FILE = ("task_name", "resume", "dry_run", "json", "config", "multi_gpu")
Scheduler = Literal["cosine", "multisteplr", "constant"]
OPTIONS = (
    Option("run", "task_name", "name of the run: its folder in --work_dir", required=True),
    Option("run", "data", "data sets, or folders that hold several", flags=("-tdp",), nargs="+", metavar="DIR"),
    Option("run", "work_dir", "where runs keep their folders", metavar="DIR"),
    Option(
        "run",
        "checkpoint",
        "weights to start from; a name that is no file trains from scratch, after a warning. "
        "Default: the bundled model for --model_type nodule and nodule_light",
        metavar="FILE",
    ),
    Option("run", "model_type", "network when training from scratch", choices=model_names()),
    Option(
        "run",
        "preset",
        "how long the run may take and what learns, see below; quick, standard and full are former names",
        choices=get_args(Preset),
    ),
    Option(
        "run", "config", "a run's config.json: its values hold where the command line says nothing else", metavar="FILE"
    ),
    Option(
        "run",
        "resume",
        "continue the run of this name exactly where it was saved, with its own options; more --num_epochs extend it",
        switch=True,
    ),
    Option("run", "dry_run", "print the estimated time and memory and exit; with --json as a JSON object", switch=True),
    Option("run", "json", "print events as JSON lines instead of text", switch=True),
    Option("run", "seed", "of weights, splits and samples", range=NOT_NEGATIVE),
    Option("learning", "num_epochs", "epochs; default: as many as fit into --minutes", kind=int, range=POSITIVE),
    Option(
        "learning",
        "minutes",
        "that the run may take on this machine, its epochs being decided once, at the start; default: the preset's",
        kind=float,
        range=POSITIVE,
    ),
    Option(
        "learning",
        "patience",
        "epochs without better weights after which the run ends; 0 for none; default: 10, from scratch 0",
        kind=int,
        range=NOT_NEGATIVE,
    ),
    Option(
        "learning",
        "encoder",
        "how the image encoder learns: not at all (its embeddings are computed once), by low-rank updates, or in full; "
        "default: the preset's",
        choices=get_args(Encoder),
    ),
    Option(
        "learning",
        "batch_size",
        "samples per process and step; 0 takes as many, 32 at most, as the memory of the device allows",
        range=NOT_NEGATIVE,
    ),
    Option("learning", "accumulation_steps", "batches whose gradients make one update", range=POSITIVE),
    Option("learning", "lr", "highest learning rate; default: the preset's", kind=float, range=POSITIVE),
    Option(
        "learning",
        "decoder_lr",
        "factor for prompt encoder and decoder; default: the preset's",
        kind=float,
        range=POSITIVE,
    ),
    Option("learning", "weight_decay", "of AdamW", range=NOT_NEGATIVE),
    Option("learning", "lr_scheduler", "after the warm-up", choices=get_args(Scheduler)),
    Option("learning", "step_size", "epochs at which multisteplr lowers the rate", kind=int, nargs="+"),
    Option("learning", "gamma", "factor of multisteplr", range=POSITIVE),
    Option("learning", "warmup", "share of all steps", range=SHARE),
    Option(
        "learning", "ema", "decay of the averaged weights, which are what is saved; 0 averages nothing", range=SHARE
    ),
    Option("learning", "clip", "largest norm of the gradient", range=POSITIVE),
    Option("learning", "lora_rank", "rank of the updates of --encoder lora", range=POSITIVE),
    Option(
        "samples",
        "samples_per_nodule",
        "views of each nodule per epoch; default: the preset's",
        kind=int,
        range=POSITIVE,
    ),
    Option("samples", "empty_share", "share of clicks on no nodule", range=SHARE),
    Option(
        "samples",
        "replay",
        "share of synthetic nodules, against forgetting (CT windows and z-score profiles)",
        range=SHARE,
    ),
    Option("samples", "no_augment", "show the scans as they are", field="augment", switch=False),
    Option(
        "samples",
        "val_fraction",
        "share of the patients that choose the best weights, where the data has no Val part",
        range=SHARE,
    ),
    Option(
        "samples",
        "test_fraction",
        "share of the patients that choose nothing, for the comparison, where there are five patients and no Ts part; "
        "0 holds none out",
        range=SHARE,
    ),
    Option("samples", "fold", "of splits_final.json", kind=int),
    Option(
        "samples", "val_clicks", "clicks of the validation; their mean Dice chooses the best weights", range=POSITIVE
    ),
    Option("samples", "val_nodules", "most nodules that are validated per epoch", range=POSITIVE),
    Option("samples", "patient_pattern", "regular expression; its first group is the patient in a case's name"),
    Option(
        "samples",
        "labels",
        "the classes of dataset.json that are nodules; default: all",
        nargs="+",
        metavar="NAME|VALUE",
    ),
    Option("machine", "device", DEVICES),
    Option("machine", "precision", "of the forward pass; auto is decided once, at the start", choices=PRECISIONS),
    Option(
        "machine",
        "matrix_library",
        "of fp32 products on the CPU; auto is decided once, at the start, by which one is faster",
        choices=LIBRARIES,
    ),
    Option(
        "machine",
        "num_workers",
        "processes that prepare samples; 0 prepares them between the steps; default: 1, on a GPU its share of the "
        "cores, 8 at most",
        kind=int,
        range=NOT_NEGATIVE,
    ),
    Option("machine", "compile", "compile the image encoder with torch.compile", switch=True),
    Option("machine", "cache_gb", "memory for the embeddings of --encoder frozen, in GB", range=NOT_NEGATIVE),
    Option("machine", "save_minutes", "the state is saved this often, and after every epoch", range=NOT_NEGATIVE),
    Option(
        "machine",
        "log_to",
        "who else hears of every event: tensorboard, or what other packages offer (entry points of the group "
        "sammed3d.loggers); default: nobody",
        nargs="+",
        metavar="NAME",
    ),
    Option("machine", "multi_gpu", "one process for each of --gpu_ids", switch=True),
    Option("machine", "gpu_ids", "GPUs of --multi_gpu", kind=int, nargs="+"),
    Option("machine", "port", "for the processes of --multi_gpu; 0 finds a free one"),
)


class TrainingError(RuntimeError):
    """Training cannot begin or go on; the message says what to do, and what was saved stays."""


@dataclass(frozen=True)
class TrainingConfig:
    """The configuration of a run; None takes the preset's value. It is written, resolved, to the run's folder."""

    task_name: str
    data: tuple[str, ...] = ("sam_med3d_cache",)
    checkpoint: str | None = None
    model_type: str = BUNDLED_NETWORK
    work_dir: str = "work_dir"
    preset: Preset = "15min"
    encoder: Encoder | None = None
    num_epochs: int | None = None
    minutes: float | None = None
    patience: int | None = None
    batch_size: int = BATCH_SIZE
    accumulation_steps: int = ACCUMULATION_STEPS
    lr: float | None = None
    decoder_lr: float | None = None
    weight_decay: float = 0.02
    lr_scheduler: Scheduler = "cosine"
    step_size: tuple[int, ...] = (120, 180)
    gamma: float = 0.1
    warmup: float = 0.05
    ema: float = 0.99
    clip: float = 1.0
    lora_rank: int = 8
    samples_per_nodule: int | None = None
    empty_share: float = 0.08
    replay: float = 0.15
    augment: bool = True
    val_fraction: float = 0.2
    test_fraction: float = 0.2
    fold: int | None = None
    val_clicks: int = 3
    val_nodules: int = 48
    patient_pattern: str = DEFAULT_PATIENT_PATTERN
    labels: tuple[str, ...] = ()
    seed: int = 2023
    device: str = "auto"
    precision: str = "auto"
    matrix_library: str = "auto"
    num_workers: int | None = None
    compile: bool = False
    cache_gb: float = 2.0
    save_minutes: float = 5.0
    log_to: tuple[str, ...] = ()
    config: str | None = None
    resume: bool = False
    multi_gpu: bool = False
    gpu_ids: tuple[int, ...] = (0,)
    port: int = 0
    dry_run: bool = False
    json: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the run, ``work_dir/task_name``."""
        return Path(self.work_dir) / self.task_name

    def resolved(self, from_scratch: bool) -> TrainingConfig:
        """Returns the configuration with the preset's values filled in, except epochs that minutes decide.

        From scratch everything learns, at a rate of its own.
        """
        name: Any = "60min" if from_scratch else ALIASES.get(self.preset, self.preset)
        preset = PRESETS[name]
        defaults: dict[str, Any] = {
            "encoder": preset.encoder,
            "minutes": preset.minutes,
            "samples_per_nodule": preset.samples_per_nodule,
            "lr": 8e-4 if from_scratch else preset.lr,
            "decoder_lr": 1.0 if from_scratch else preset.decoder_lr,
            "patience": 0 if from_scratch else 10,
        }
        if from_scratch and self.minutes is None:
            defaults["num_epochs"] = SCRATCH_EPOCHS
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **{**missing, "preset": name, **({"encoder": "full"} if from_scratch else {})})

    def check(self) -> None:
        """Checks all values. Raises TrainingError for those that no run can have."""
        name = self.task_name
        if not name or name in (".", "..") or any(c in name for c in '/\\:*?"<>|') or name != name.strip(" ."):
            raise TrainingError(f"--task_name {name!r} cannot name a folder on every system: use letters and digits")
        try:
            for path in (*self.data, self.work_dir, *([] if self.checkpoint is None else [self.checkpoint])):
                given_path(path)
        except InputError as error:
            raise TrainingError(str(error)) from error
        check_ranges(self, OPTIONS, TrainingError)
        if self.empty_share + self.replay >= 1:
            raise TrainingError("--empty_share and --replay together leave nothing for your own nodules")

    def write(self, path: Path, more: Mapping[str, Any]) -> None:
        """Writes the configuration as JSON, with absolute paths; whole or not at all.

        Args:
            path: of the file.
            more: further keys: "versions", "split".

        Raises:
            RunError: it cannot be written.
        """
        paths = {
            "data": [_absolute(each) for each in self.data],
            "work_dir": _absolute(self.work_dir),
            "checkpoint": None if self.checkpoint is None else _absolute(self.checkpoint),
        }
        write_whole(path, json.dumps({**dataclasses.asdict(self), **paths, **more}, indent=1))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


class _WithoutEffect(argparse.Action):
    """Explains why an option that scripts may still give has no effect."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        sys.stderr.write(f"note: {option_string} has no effect: {_WITHOUT_EFFECT[self.dest]}\n")


def parse_training_options(arguments: list[str] | None = None, prog: str = "train.py") -> TrainingConfig:
    """Parses the command line of ``train.py``; wrong options end in argparse's exit with code 2.

    What it leaves open stands in the file of ``--config``, or, of a run that is continued, in its own config.json.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = training_parser(prog)
    options = parser.parse_args(words)
    file: dict[str, Any] = {}
    if options.config is not None:
        try:
            file = json.loads(given_path(options.config).read_text(encoding="utf-8"))
        except (OSError, ValueError, InputError) as error:
            parser.error(f"--config {options.config} cannot be read ({error}): give the config.json of a run")
        if not isinstance(file, dict):
            parser.error(f"--config {options.config} holds no configuration: give the config.json of a run")
    elif options.resume:
        file = read_config(Path(options.work_dir) / options.task_name)
    if "encoder" not in file and file.get("preset") in FORMER_ENCODERS:
        file["encoder"] = FORMER_ENCODERS[file["preset"]]
    # As words of the command line they are checked as such, and later words win.
    known = {option.target for option in OPTIONS}
    unknown = sorted(set(file) - known - _BESIDES)
    if options.config is not None and unknown:
        parser.error(f"--config {options.config} names what is no option here: {', '.join(unknown)}")
    file = {name: value for name, value in file.items() if name in known}
    own = list(words_of(file, (*_NOT_OF_FILE, *(("work_dir",) if options.resume else ()))))
    # The one switch that a run keeps; it is told anew where the command line chooses GPUs, and by torchrun not at all.
    own += ["--multi_gpu"] if file.get("multi_gpu") and options.config is None else []
    if own:
        options = parser.parse_args([*own, *words])
    return TrainingConfig(**values_of(options, OPTIONS))


def training_parser(prog: str = "train.py") -> argparse.ArgumentParser:
    """Makes the parser of the options, with defaults and meanings."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Fine-tune a SAM-Med3D or nodule checkpoint on nnU-Net style data sets.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="presets:\n"
        + "\n".join(
            f"  {name:6} {p.minutes:g} minutes: {p.text} (lr {p.lr:g}, {p.samples_per_nodule} views a nodule and epoch)"
            for name, p in PRESETS.items()
        ),
    )

    parser.add_argument("--version", action="version", version=f"sammed3d {__version__}")
    add_options(parser, OPTIONS, TrainingConfig)
    for name in _WITHOUT_EFFECT:
        parser.add_argument(f"--{name}", nargs="?", action=_WithoutEffect, help=argparse.SUPPRESS)
    return parser
