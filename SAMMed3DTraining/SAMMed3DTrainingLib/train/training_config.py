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
    PROCESSES,
    SCRATCH_EPOCHS,
    SEED,
    SHARE,
    Encoder,
    Preset,
    add_options,
    check_ranges,
    option,
    options_of,
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


class TrainingError(RuntimeError):
    """Training cannot begin or go on; the message says what to do, and what was saved stays."""


@dataclass(frozen=True)
class TrainingConfig:
    """The configuration of a run; None takes the preset's value. It is written, resolved, to the run's folder."""

    task_name: str = option("run", "name of the run: its folder in --work_dir", required=True)
    data: tuple[str, ...] = option(
        "run",
        "data sets, or folders that hold several",
        ("sam_med3d_cache",),
        flags=("-tdp",),
        nargs="+",
        metavar="DIR",
    )
    checkpoint: str | None = option(
        "run",
        "weights to start from; a name that is no file trains from scratch, after a warning. "
        "Default: the bundled model for --model_type nodule and nodule_light",
        None,
        metavar="FILE",
    )
    model_type: str = option("run", "network when training from scratch", BUNDLED_NETWORK, choices=model_names())
    work_dir: str = option("run", "where runs keep their folders", "work_dir", metavar="DIR")
    preset: Preset = option(
        "run",
        "how long the run may take and what learns, see below; quick, standard and full are former names",
        "15min",
        choices=get_args(Preset),
    )
    encoder: Encoder | None = option(
        "learning",
        "how the image encoder learns: not at all (its embeddings are computed once), by low-rank updates, or in full; "
        "default: the preset's",
        None,
        choices=get_args(Encoder),
    )
    num_epochs: int | None = option(
        "learning", "epochs; default: as many as fit into --minutes", None, kind=int, range=POSITIVE
    )
    minutes: float | None = option(
        "learning",
        "that the run may take on this machine, its epochs being decided once, at the start; default: the preset's",
        None,
        kind=float,
        range=POSITIVE,
    )
    patience: int | None = option(
        "learning",
        "epochs without better weights after which the run ends; 0 for none; default: 10, from scratch 0",
        None,
        kind=int,
        range=NOT_NEGATIVE,
    )
    batch_size: int = option(
        "learning",
        "samples per process and step; 0 takes as many, 32 at most, as the memory of the device allows",
        BATCH_SIZE,
        range=NOT_NEGATIVE,
    )
    accumulation_steps: int = option(
        "learning", "batches whose gradients make one update", ACCUMULATION_STEPS, range=POSITIVE
    )
    lr: float | None = option(
        "learning", "highest learning rate; default: the preset's", None, kind=float, range=POSITIVE
    )
    decoder_lr: float | None = option(
        "learning", "factor for prompt encoder and decoder; default: the preset's", None, kind=float, range=POSITIVE
    )
    weight_decay: float = option("learning", "of AdamW", 0.02, range=NOT_NEGATIVE)
    lr_scheduler: Scheduler = option("learning", "after the warm-up", "cosine", choices=get_args(Scheduler))
    step_size: tuple[int, ...] = option(
        "learning", "epochs at which multisteplr lowers the rate", (120, 180), kind=int, nargs="+"
    )
    gamma: float = option("learning", "factor of multisteplr", 0.1, range=POSITIVE)
    warmup: float = option("learning", "share of all steps", 0.05, range=SHARE)
    ema: float = option(
        "learning", "decay of the averaged weights, which are what is saved; 0 averages nothing", 0.99, range=SHARE
    )
    clip: float = option("learning", "largest norm of the gradient", 1.0, range=POSITIVE)
    lora_rank: int = option("learning", "rank of the updates of --encoder lora", 8, range=POSITIVE)
    samples_per_nodule: int | None = option(
        "samples", "views of each nodule per epoch; default: the preset's", None, kind=int, range=POSITIVE
    )
    empty_share: float = option("samples", "share of clicks on no nodule", 0.08, range=SHARE)
    replay: float = option(
        "samples", "share of synthetic nodules, against forgetting (CT windows and z-score profiles)", 0.15, range=SHARE
    )
    augment: bool = option("samples", "show the scans as they are", True, name="no_augment", switch=False)
    val_fraction: float = option(
        "samples",
        "share of the patients that choose the best weights, where the data has no Val part",
        0.2,
        range=SHARE,
    )
    test_fraction: float = option(
        "samples",
        "share of the patients that choose nothing, for the comparison, where there are five patients and no Ts part; "
        "0 holds none out",
        0.2,
        range=SHARE,
    )
    fold: int | None = option("samples", "of splits_final.json", None, kind=int)
    val_clicks: int = option(
        "samples", "clicks of the validation; their mean Dice chooses the best weights", 3, range=POSITIVE
    )
    val_nodules: int = option("samples", "most nodules that are validated per epoch", 48, range=POSITIVE)
    patient_pattern: str = option(
        "samples", "regular expression; its first group is the patient in a case's name", DEFAULT_PATIENT_PATTERN
    )
    labels: tuple[str, ...] = option(
        "samples", "the classes of dataset.json that are nodules; default: all", (), nargs="+", metavar="NAME|VALUE"
    )
    seed: int = option("run", "of weights, splits and samples", 2023, range=SEED)
    device: str = option("machine", DEVICES, "auto")
    precision: str = option(
        "machine", "of the forward pass; auto is decided once, at the start", "auto", choices=PRECISIONS
    )
    matrix_library: str = option(
        "machine",
        "of fp32 products on the CPU; auto is decided once, at the start, by which one is faster",
        "auto",
        choices=LIBRARIES,
    )
    num_workers: int | None = option(
        "machine",
        "processes that prepare samples; 0 prepares them between the steps; default: 1, on a GPU its share of the "
        "cores, 8 at most",
        None,
        kind=int,
        range=PROCESSES,
    )
    compile: bool = option("machine", "compile the image encoder with torch.compile", False, switch=True)
    cache_gb: float = option("machine", "memory for the embeddings of --encoder frozen, in GB", 2.0, range=NOT_NEGATIVE)
    save_minutes: float = option(
        "machine", "the state is saved this often, and after every epoch", 5.0, range=NOT_NEGATIVE
    )
    log_to: tuple[str, ...] = option(
        "machine",
        "who else hears of every event: tensorboard, or what other packages offer (entry points of the group "
        "sammed3d.loggers); default: nobody",
        (),
        nargs="+",
        metavar="NAME",
    )
    config: str | None = option(
        "run", "a run's config.json: its values hold where the command line says nothing else", None, metavar="FILE"
    )
    resume: bool = option(
        "run",
        "continue the run of this name exactly where it was saved, with its own options; more --num_epochs extend it",
        False,
        switch=True,
    )
    multi_gpu: bool = option("machine", "one process for each of --gpu_ids", False, switch=True)
    gpu_ids: tuple[int, ...] = option("machine", "GPUs of --multi_gpu", (0,), kind=int, nargs="+")
    port: int = option("machine", "for the processes of --multi_gpu; 0 finds a free one", 0)
    dry_run: bool = option(
        "run", "print the estimated time and memory and exit; with --json as a JSON object", False, switch=True
    )
    json: bool = option("run", "print events as JSON lines instead of text", False, switch=True)

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


OPTIONS = options_of(TrainingConfig)


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
    if "encoder" not in file and str(file.get("preset")) in FORMER_ENCODERS:
        file["encoder"] = FORMER_ENCODERS[file["preset"]]
    # As words of the command line they are checked as such, and later words win.
    known = {option.target for option in OPTIONS}
    unknown = sorted(set(file) - known - _BESIDES)
    if options.config is not None and unknown:
        parser.error(f"--config {options.config} names what is no option here: {', '.join(unknown)}")
    file = {name: value for name, value in file.items() if name in known}
    wrong = [option.target for option in OPTIONS if not option.takes(file.get(option.target))]
    if wrong:
        whose = f"--config {options.config}" if options.config is not None else "the run's config.json"
        parser.error(f"{whose}: {wrong[0]} cannot be {json.dumps(file[wrong[0]])}; correct the file")
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
