"""Runs a training from its configuration: data, network, processes, events, and one clear message when it fails."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from SAMMed3DLib.model.linear import fixed_library, resolve_library
from SAMMed3DLib.model.precision import DeviceError, resolve_device, resolve_precision
from SAMMed3DLib.torch_setup.device import auto_device

from ..data.splits import Split, write_split
from ..evaluate.evaluation_report import versions
from ..job import kind_of, obeying_signals
from ..options import epochs_in
from ..runs import run_files
from ..runs.progress import show_as_json, show_as_text
from ..runs.run_files import RunError, RunUnderWay
from .distributed import World, join_world, launch
from .estimate import estimate, fitting_batch, show_estimate
from .plots import draw_plots, make_logger
from .run_folder import SCHEMA, RunFolder
from .trainable import Trainable, start_network, starting_checkpoint
from .trainer import Trainer
from .training_config import TrainingConfig, TrainingError
from .training_data import RunCases, SampleSlots, load_cases
from .validation import Validator

_TOLD_SECONDS = 1.0


def run_training(config: TrainingConfig) -> int:
    """Trains as configured.

    Returns:
        the exit code: 0 finished or stopped, 2 it cannot be done, 1 an error of ours; the message is the last event.
    """
    show = show_as_json if config.json else show_as_text
    world, folder, code = None, None, 2
    try:
        config.check()
        if config.device.partition(":")[0] == "mps":
            raise TrainingError(
                "training on an Apple GPU is not possible: PyTorch's trilinear interpolation has no gradient there, "
                "and the loss needs it; use --device cpu"
            )
        world = join_world(resolve_device(auto_device() if config.device == "auto" else config.device))
        if config.dry_run:
            _rehearse(config, world, show)
            return 0
        _refuse_another_run(config)
        folder = RunFolder(config.folder, _listeners(config, world, show))
        with _one_run_at_a_time(config, folder, world):
            reason, message = _run(config, folder, world)
        if world.is_main and reason:
            folder.write("end", reason=reason, message=message)
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
        code = 1
        _fail(f"{type(error).__name__}: {error}", error, folder, world, show)
    finally:
        if world is not None:
            world.close()
    return code


def launch_training(config: TrainingConfig, arguments: Sequence[str]) -> int:
    """Trains in one process for each GPU. Returns the exit code."""
    os.environ[run_files.ROOT_PID] = str(os.getpid())  # who ends this process ends them all
    try:
        launch(config, arguments)
    except TrainingError as error:
        sys.stderr.write(f"train: error: {error}\n")
        return 2
    return 0


def _refuse_another_run(config: TrainingConfig) -> None:
    """Refuses a run whose folder holds another one, before anything is written."""
    with suppress(OSError):  # a name that the system refuses is named by whoever makes the folder
        if (config.folder / run_files.STATE).exists() and not config.resume:
            raise TrainingError(
                f"{config.folder} already holds a run: continue it with --resume, or choose another --task_name"
            )


def _rehearse(config: TrainingConfig, world: World, show: Callable[[dict[str, Any]], None]) -> None:
    """Makes the estimate in a temporary folder; only the unpacked cases stay."""
    with tempfile.TemporaryDirectory(prefix="sammed3d-") as empty:
        _run(config, RunFolder(Path(empty), show), world)


def _run(config: TrainingConfig, folder: RunFolder, world: World) -> tuple[str, str]:
    """Runs the training; returns the reason of its end ("" after an estimate) and a message."""

    def warn(message: str) -> None:
        if world.is_main:
            folder.write("warning", message=message)

    # Decided once, for all processes and whoever continues the run: both are measured, and might come out otherwise.
    asked = config.matrix_library
    precision, library = world.told(
        (resolve_precision(config.precision, world.device), resolve_library(asked)) if world.is_main else None
    )
    if asked == "onednn" and library != asked:
        warn(
            "this PyTorch has no oneDNN for this processor: products are PyTorch's own, and may differ in the last bit"
        )
    workers = config.num_workers
    if workers is None:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        workers = min(8, max(1, (os.cpu_count() or 1) // processes - 1)) if world.device.type == "cuda" else 1
    config = dataclasses.replace(config, precision=precision, matrix_library=library, num_workers=workers)
    with fixed_library(library), _fast_gpu(world.device):
        return _train(config, folder, world, warn)


def _train(config: TrainingConfig, folder: RunFolder, world: World, warn: Callable[[str], None]) -> tuple[str, str]:
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
            write_split(cases.split, config.folder, cases.labels)
        world.barrier()
    network = Trainable(start_network(config, checkpoint, world.device), config)
    slots = SampleSlots(cases.train, network.model.profile, config)
    validator = Validator(cases.val, config.val_clicks, config.val_nodules, config.seed)
    if not len(validator):
        warn("no nodule to validate on: the best weights are the latest")
    if config.compile:
        network.model.image_encoder.compile()
    if not config.batch_size:
        batch = 0
        if world.is_main:
            alone, least = World(0, 1, world.device), dataclasses.replace(config, batch_size=1)
            batch = fitting_batch(Trainer(least, folder, alone, network, slots, validator), slots)
        config = dataclasses.replace(config, batch_size=world.told(batch))
    if config.num_epochs is None:
        epochs = 0
        if world.is_main:
            alone, least = World(0, 1, world.device), dataclasses.replace(config, num_epochs=1)
            cost = estimate(Trainer(least, folder, alone, network, slots, validator), slots, validator, cases)
            steps = -(-cost.steps // world.size)
            epoch_s = steps * cost.step_s + cost.validation_s
            epochs = epochs_in(float(config.minutes or 0), cost.encoding_s / world.size, epoch_s)
        config = dataclasses.replace(config, num_epochs=world.told(epochs))
    trainer = Trainer(config, folder, world, network, slots, validator)
    if config.dry_run:
        if world.is_main:
            show_estimate(estimate(trainer, slots, validator, cases), config.json)
        return "", ""
    if config.resume and folder.state.is_file():
        trainer.resume()
    elif config.resume:
        warn("nothing was saved of this run yet: it starts at the beginning")
    if world.is_main:
        config.write(folder.folder / run_files.CONFIG, {"versions": versions(), "split": _parts(cases.split)})
        _announce(config, folder, cases, trainer)
    with obeying_signals(trainer.stop):
        reason = trainer.run()
    return reason, "; ".join(filter(None, (_where(folder), trainer.verdict, cases.split.caution)))


@contextmanager
def _fast_gpu(device: torch.device) -> Iterator[None]:
    """Lets a GPU multiply fp32 in TF32 and cuDNN choose its fastest convolutions within the block."""
    if device.type != "cuda":
        yield
        return
    precision, benchmark = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark = benchmark


def _parts(split: Split) -> dict[str, Any]:
    """Describes a split for config.json and the start event: its origin, the size of its parts, a caution."""
    parts = {"train": split.train, "val": split.val, "test": split.test}
    return {
        "source": split.source,
        "caution": split.caution,
        **{name: {"cases": len(part), "patients": len({c.patient for c in part})} for name, part in parts.items()},
    }


def _reading(folder: RunFolder) -> Callable[[int, int], None]:
    """Makes a callback that writes an event for cases that are read, once a second."""
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
        versions=versions(),
        cases=len(cases.train),
        nodules=cases.nodules,
        patients=len({c.case.patient for c in cases.train}),
        split=cases.split.source,
        parts=_parts(cases.split),
        caution=cases.split.caution,
        step=trainer.step,
        steps=trainer.steps,
        resumed=config.resume,
    )


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
    """Reports a failure as the run's last event, or at least on the screen."""
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
    """Makes the listener to events: screen, plots after every epoch, and the loggers of ``--log_to``."""
    loggers = [(name, make_logger(name, config.folder)) for name in config.log_to] if world.is_main else []

    def hear(event: dict[str, Any]) -> None:
        show(event)
        if event["event"] == "validation":
            draw_plots(config.folder)
        for name, logger in list(loggers):
            try:
                logger(event)
            except Exception as error:  # no run fails for want of them
                loggers.remove((name, logger))
                show({"event": "warning", "message": f"--log_to {name} has failed and hears no more: {error}"})

    return hear


@contextmanager
def _one_run_at_a_time(config: TrainingConfig, folder: RunFolder, world: World) -> Iterator[None]:
    """Holds the run's lock, since two processes that write the same run would destroy it."""
    if not world.is_main:
        yield
        return
    with run_files.hold_lock(config.folder):
        folder.set_command("run")
        pid = int(os.environ.get(run_files.ROOT_PID, os.getpid()))
        run_files.note_process(config.folder, pid, os.environ.get(run_files.SESSION, ""))
        if not folder.state.exists():
            config.write(config.folder / run_files.CONFIG, {"versions": versions()})
        yield
