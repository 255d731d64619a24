"""From a command line to a finished run: data, network, processes, events, and one clear message when it cannot be."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from SAMMed3DLib import __version__
from SAMMed3DLib.model.precision import DeviceError, resolve_device
from SAMMed3DLib.torch_setup.device import auto_device

from ..data.splits import write_split
from ..data.training_data import RunCases, SampleSlots, load_cases
from ..runs import run_files
from ..runs.failures import kind_of, obeying_signals
from ..runs.progress import show_as_json, show_as_text
from ..runs.run_files import RunError, RunUnderWay
from .distributed import World, join_world, launch
from .estimate import estimate, show_estimate
from .plots import TensorBoard, draw_plots
from .run_folder import SCHEMA, RunFolder
from .trainable import Trainable, start_network, starting_checkpoint
from .trainer import Trainer
from .training_config import TrainingConfig, TrainingError
from .validation import Validator

_TOLD_SECONDS = 1.0


def run_training(config: TrainingConfig) -> int:
    """Trains as configured. Returns the exit code: 0 finished or stopped, 1 failed (the message is the last event)."""
    show = show_as_json if config.json else show_as_text
    world, folder = None, None
    try:
        config.check()
        world = join_world(resolve_device(auto_device() if config.device == "auto" else config.device))
        if config.dry_run:
            _rehearse(config, world, show)
            return 0
        _refuse_another_run(config)
        folder = RunFolder(config.folder, _listeners(config, world, show))
        with _one_run_at_a_time(config, folder, world):
            reason = _run(config, folder, world)
        if world.is_main and reason:
            folder.write("end", reason=reason, message=_where(folder))
            draw_plots(folder.folder)
        return 0
    except RunUnderWay as error:
        _fail(str(error), error, None, world, show)  # the folder belongs to the other process
    except (TrainingError, DeviceError, RunError) as error:
        _fail(str(error), error, folder, world, show)
    except torch.OutOfMemoryError as error:
        _fail(
            "the GPU's memory is exhausted: try a smaller --batch_size (and a larger --accumulation_steps)",
            error,
            folder,
            world,
            show,
        )
    except MemoryError as error:
        _fail("the memory is exhausted: try a smaller --batch_size, or --num_workers 0", error, folder, world, show)
    except Exception as error:  # whoever follows the run learns that it failed, and was not killed
        traceback.print_exc()
        _fail(f"{type(error).__name__}: {error}", error, folder, world, show)
    finally:
        if world is not None:
            world.close()
    return 1


def launch_training(config: TrainingConfig, arguments: Sequence[str]) -> int:
    """Trains in one process for each GPU. Returns the exit code.

    Args:
        config: with ``multi_gpu``.
        arguments: the command line that it was made from.
    """
    os.environ[run_files.ROOT_PID] = str(os.getpid())  # who ends this process ends them all
    try:
        launch(config, arguments)
    except TrainingError as error:
        sys.stderr.write(f"train: error: {error}\n")
        return 1
    return 0


def _refuse_another_run(config: TrainingConfig) -> None:
    """Before anything is written: the run that lies there stays what it is, its last event included."""
    with suppress(OSError):  # a name that the system refuses is named by whoever makes the folder
        if (config.folder / run_files.STATE).exists() and not config.resume:
            raise TrainingError(
                f"{config.folder} already holds a run: continue it with --resume, or choose another --task_name"
            )


def _rehearse(config: TrainingConfig, world: World, show: Callable[[dict[str, Any]], None]) -> None:
    """The estimate, without leaving a trace in the folder of runs but for the unpacked cases."""
    with tempfile.TemporaryDirectory(prefix="sammed3d-") as empty:
        _run(config, RunFolder(Path(empty), show), world)


def _run(config: TrainingConfig, folder: RunFolder, world: World) -> str:
    def warn(message: str) -> None:
        if world.is_main:
            folder.write("warning", message=message)

    checkpoint = starting_checkpoint(config)
    if checkpoint is None:
        reason = f"{config.checkpoint} is no file" if config.checkpoint else f"no weights given for {config.model_type}"
        warn(f"{reason}: TRAINING FROM SCRATCH. That takes many nodules and a GPU; give --checkpoint to fine-tune")
    config = config.resolved(from_scratch=checkpoint is None)
    if not world.is_main:
        world.barrier()  # the first process unpacks the scans and writes down the split
    cases = load_cases(config, warn, _reading(folder) if world.is_main and not config.dry_run else None)
    if world.is_main:
        if not config.dry_run:
            write_split(cases.split, config.folder)
        world.barrier()
    network = Trainable(start_network(config, checkpoint, world.device), config)
    slots = SampleSlots(cases.train, network.model.profile, config)
    validator = Validator(cases.val, config.val_clicks, config.val_nodules, config.seed)
    if not len(validator):
        warn("no nodule to validate on: the best weights are the latest")
    trainer = Trainer(config, folder, world, network, slots, validator)
    if config.dry_run:
        if world.is_main:
            show_estimate(estimate(trainer, slots, validator, cases), config.json)
        return ""
    if config.resume and folder.state.is_file():
        trainer.resume()
    elif config.resume:
        warn("nothing was saved of this run yet: it starts at the beginning")
    if world.is_main:
        config.write(folder.folder / run_files.CONFIG, _versions())
        _announce(config, folder, cases, trainer)
    with obeying_signals(trainer.stop):
        return trainer.run()


def _reading(folder: RunFolder) -> Callable[[int, int], None]:
    """Tells of cases that are read, once a second: those that were unpacked before take no time."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _TOLD_SECONDS:
            last = time.monotonic()
            folder.write("reading", done=done, total=total)

    return tell


def _announce(config: TrainingConfig, folder: RunFolder, cases: RunCases, trainer: Trainer) -> None:
    folder.write(
        "start",
        schema=SCHEMA,
        task_name=config.task_name,
        config=dataclasses.asdict(config),
        versions=_versions(),
        cases=len(cases.train),
        nodules=cases.nodules,
        patients=len({c.case.patient for c in cases.train}),
        split=cases.split.source,
        step=trainer.step,
        steps=trainer.steps,
        resumed=config.resume,
    )


def _versions() -> dict[str, str]:
    return {
        "sammed3d": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def _where(folder: RunFolder) -> str:
    best = folder.dice_best if folder.dice_best.exists() else folder.latest
    return f"weights in {best}"


def _fail(
    message: str,
    error: BaseException,
    folder: RunFolder | None,
    world: World | None,
    show: Callable[[dict[str, Any]], None],
) -> None:
    """The last event; where even that cannot be written, at least the screen shows it."""
    kind = kind_of(error)
    if world is not None and not world.is_main:
        message = f"process {world.rank}: {message}"
        sys.stderr.write(f"{message}\n")
    try:
        if folder is None:
            raise TrainingError(message)
        folder.write("end", reason="failed", message=message, kind=kind)
    except TrainingError:
        show({"event": "end", "reason": "failed", "message": message, "kind": kind})


def _listeners(
    config: TrainingConfig, world: World, show: Callable[[dict[str, Any]], None]
) -> Callable[[dict[str, Any]], None]:
    """Who hears of events: the screen, the plots after every epoch, and TensorBoard where it is installed."""
    board = TensorBoard(config.folder / "tensorboard")

    def hear(event: dict[str, Any]) -> None:
        show(event)
        if event["event"] == "validation":
            draw_plots(config.folder)
        if world.is_main:
            board.hear(event)

    return hear


@contextmanager
def _one_run_at_a_time(config: TrainingConfig, folder: RunFolder, world: World) -> Iterator[None]:
    """Two processes that write the same run would destroy it. The lock goes with the process, however it ends."""
    if not world.is_main:
        yield
        return
    with run_files.hold_lock(config.folder):
        folder.set_command("run")
        pid = int(os.environ.get(run_files.ROOT_PID, os.getpid()))
        run_files.note_process(config.folder, pid, os.environ.get(run_files.SESSION, ""))
        if not folder.state.exists():
            config.write(config.folder / run_files.CONFIG, _versions())
        yield
