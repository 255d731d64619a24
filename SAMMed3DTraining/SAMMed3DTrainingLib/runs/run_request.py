"""A request for a training run: checked before anything starts, and turned into a command line."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from SAMMed3DLib.files.output_files import check_folder
from SAMMed3DLib.inference.errors import InputError

from ..options import ACCUMULATION_STEPS, ALIASES, BATCH_SIZE, PRESETS, Preset, words_of
from . import run_files
from .child_process import Interpreter, TrainingProcess
from .run_files import RunError, RunUnderWay

#: Names that Windows keeps for devices, whatever their ending.
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$")
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f]')
#: Windows' limit of 260 characters less the longest name inside a run's folder.
_LONGEST_FOLDER = 180
_LONGEST_NAME = 100
#: Three checkpoints and the optimizer's two moments with the averaged weights, less what does not learn.
_CHECKPOINTS_ON_DISK = 6
_DISK_BESIDES = 100 * 2**20
#: What of a configuration the request has fields for, or must not be carried over.
_OWN = {
    "task_name",
    "work_dir",
    "data",
    "checkpoint",
    "preset",
    "num_epochs",
    "batch_size",
    "accumulation_steps",
    "lr",
    "device",
    "gpu_ids",
    "multi_gpu",
    "port",
    "resume",
    "dry_run",
    "json",
    "versions",
    "split",
    "config",
}


@dataclass(frozen=True)
class TrainingRequest:
    """One training run; ``None`` means what the preset or the package has.

    Attributes:
        work_dir: where runs keep their folders.
        task_name: name of the run and of its folder.
        data: data sets, or folders that hold several.
        checkpoint: weights to start from; None for the bundled nodule model.
        gpu_ids: two or more train on several GPUs, one on that GPU; none leaves it to ``device``.
        resume: continue the run of this name; everything else must be as it was.
        more: further options of ``train``, word by word.
    """

    work_dir: Path
    task_name: str
    data: tuple[Path, ...]
    checkpoint: Path | None = None
    preset: Preset = "5min"
    num_epochs: int | None = None
    batch_size: int = BATCH_SIZE
    accumulation_steps: int = ACCUMULATION_STEPS
    lr: float | None = None
    device: str = "auto"
    gpu_ids: tuple[int, ...] = ()
    resume: bool = False
    more: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return Path(self.work_dir) / self.task_name

    def arguments(self) -> list[str]:
        """The options of ``python -m SAMMed3DTrainingLib train``. Paths are absolute."""
        words = [
            "--task_name",
            self.task_name,
            "--work_dir",
            _absolute(self.work_dir),
            "--data",
            *(_absolute(path) for path in self.data),
            "--preset",
            self.preset,
            "--batch_size",
            str(self.batch_size),
            "--accumulation_steps",
            str(self.accumulation_steps),
        ]
        if self.checkpoint is not None:
            words += ["--checkpoint", _absolute(self.checkpoint)]
        if self.num_epochs is not None:
            words += ["--num_epochs", str(self.num_epochs)]
        if self.lr is not None:
            words += ["--lr", repr(float(self.lr))]
        if len(self.gpu_ids) > 1:
            words += ["--multi_gpu", "--gpu_ids", *map(str, self.gpu_ids)]
        else:
            words += ["--device", f"cuda:{self.gpu_ids[0]}" if self.gpu_ids else self.device]
        return [*words, *(["--resume"] if self.resume else []), *self.more]

    def check(self) -> None:
        """Raises RunError for what cannot be trained, before a process is started; the message names the cure."""
        for problem in self._problems():
            raise RunError(problem)

    def _problems(self) -> Iterator[str]:
        yield from name_problems(self.task_name)
        if os.name == "nt" and len(str(self.folder.absolute())) > _LONGEST_FOLDER:
            yield f"The path {self.folder} is too long for Windows: choose a shorter folder or name."
        if self.preset not in PRESETS and self.preset not in ALIASES:
            yield f"There is no preset {self.preset}; there are {', '.join(PRESETS)}."
        for what, value in (
            ("Epochs", self.num_epochs),
            ("Batch size", self.batch_size),
            ("Accumulated batches", self.accumulation_steps),
            ("Learning rate", self.lr),
        ):
            if value is not None and not 0 < value < float("inf"):
                yield f"{what} must be positive, not {value}."
        if not self.data:
            yield "No data set was chosen: export the scene, or choose a folder."
        for path in self.data:
            if not Path(path).is_dir():
                yield f"The data set {path} is not there: export it again, or choose another folder."
        if self.checkpoint is not None and not self.resume and not Path(self.checkpoint).is_file():
            yield f"The start checkpoint {self.checkpoint} is not there: choose another one."
        if run_files.lock_is_held(self.folder):
            yield f"The run {self.task_name} is under way: stop it first, or choose another name."
        there = (self.folder / run_files.STATE).exists()
        if there and not self.resume:
            yield f"There is a run {self.task_name} already: resume it, delete it, or choose another name."
        if self.resume and not (self.folder / run_files.CONFIG).exists():
            yield f"There is no run {self.task_name} to resume in {self.work_dir}: start a new one."
        yield from self._disk_problems()

    def _disk_problems(self) -> Iterator[str]:
        work_dir = Path(self.work_dir)
        try:
            work_dir.mkdir(parents=True, exist_ok=True)
            check_folder(work_dir)
            free = shutil.disk_usage(work_dir).free
        except (OSError, InputError) as error:
            reason = getattr(error.__cause__ or error, "strerror", None) or error
            yield f"The folder of runs {work_dir} cannot be written ({reason}): choose another one."
            return
        size = Path(self.checkpoint).stat().st_size if self.checkpoint and Path(self.checkpoint).is_file() else 0
        needed = _CHECKPOINTS_ON_DISK * size + _DISK_BESIDES
        if free < needed:
            yield (
                f"{work_dir} has {free / 2**30:.1f} GB free, and the run needs about {needed / 2**30:.1f} GB: free "
                "some, or choose a folder on another disk."
            )

    def smaller(self) -> TrainingRequest | None:
        """The same training in half the memory: half the batch, twice as many of them for an update, a new run.

        None where the batch is one sample already.
        """
        if self.batch_size < 2:
            return None
        half = (self.batch_size + 1) // 2
        steps = max(2, round(self.batch_size * self.accumulation_steps / half))
        name = self.task_name
        if (self.folder / run_files.STATE).exists():
            name = free_name(self.work_dir, name)
        return dataclasses.replace(self, batch_size=half, accumulation_steps=steps, task_name=name, resume=False)

    @classmethod
    def of_run(cls, folder: Path) -> TrainingRequest:
        """The request that continues the run of a folder with all options that it was started with.

        Raises:
            RunError: its configuration cannot be read.
        """
        config = run_files.read_config(folder)
        try:
            gpus = tuple(int(gpu) for gpu in config["gpu_ids"]) if config.get("multi_gpu") else ()
            return cls(
                folder.parent,
                folder.name,
                tuple(Path(path) for path in config["data"]),
                Path(config["checkpoint"]) if config["checkpoint"] is not None else None,
                config["preset"],
                config["num_epochs"],
                int(config["batch_size"]),
                int(config["accumulation_steps"]),
                config["lr"],
                config["device"],
                gpus,
                True,
                tuple(words_of(config, _OWN)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{folder / run_files.CONFIG} cannot be read: the run cannot be continued.") from error


def start_training(request: TrainingRequest, interpreter: Interpreter) -> TrainingProcess:
    """Starts a run in a process that lives on when this program ends.

    Raises:
        RunError: it cannot be started, or a run of the same ``work_dir`` is under way: two would take each other's
            memory and time.
    """
    request.check()
    under_way = running_in(request.work_dir)
    if under_way:
        raise RunUnderWay(
            f"The run {under_way[0]} is under way: stop it first. Two at once would take each other's memory and time."
        )
    return TrainingProcess.start(
        interpreter.command("train", request.arguments()),
        interpreter.environment(),
        request.folder / run_files.LOG,
        interpreter.cwd,
    )


def running_in(work_dir: Path) -> list[str]:
    """Names of the runs of a folder that are under way."""
    try:
        folders = sorted(path for path in Path(work_dir).iterdir() if path.is_dir())
    except OSError:
        return []
    return [folder.name for folder in folders if run_files.lock_is_held(folder)]


def name_problems(name: str) -> Iterator[str]:
    """Yields what is wrong with the name of a run, on any system, since runs are copied between systems."""
    if not name:
        yield "The run needs a name."
    elif name != name.strip(" .") or _FORBIDDEN.search(name) or _RESERVED.match(name):
        yield f"{name!r} cannot name a folder on every system: use letters, digits, blanks, - and _."
    elif len(name) > _LONGEST_NAME:
        yield f"The name is too long: take at most {_LONGEST_NAME} characters."


def free_name(work_dir: Path, wanted: str) -> str:
    """``wanted``, or the first of ``wanted_2``, ``wanted_3``, ... that no run has."""
    try:
        taken = {path.name.lower() for path in Path(work_dir).iterdir()}
    except OSError:
        taken = set()
    name, number = wanted, 1
    while name.lower() in taken:
        number += 1
        name = f"{re.sub(r'_[0-9]+$', '', wanted)}_{number}"
    return name


def _absolute(path: Path | str) -> str:
    return str(Path(path).expanduser().absolute())
