"""Trains in several processes, on one machine or many, with torch.distributed.

``torchrun --nproc_per_node N train.py ...`` and ``train.py --multi_gpu --gpu_ids 0 1 ...`` start the same thing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .run_folder import read_events
from .training_config import TrainingConfig, TrainingError

#: Time to wait for the first process, which unpacks a large data set or validates; torch's 10 minutes are too few.
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class World:
    """The place of this process among all processes of a run.

    Attributes:
        rank: its number; 0 writes files.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and events."""
        return self.rank == 0

    def share(self, keys: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Returns this process's part of an epoch. All parts have the same length: the first keys fill them up."""
        length = -(-len(keys) // self.size) * self.size
        return [keys[n % len(keys)] for n in range(self.rank, length, self.size)]

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wraps a module so that its gradients are averaged over all processes."""
        if self.size == 1:
            return module
        ids = [self.device.index or 0] if self.device.type == "cuda" else None
        # Not every parameter sees every step: boxes, alternatives and padding come and go.
        return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=True)

    def agree(self, value: float) -> float:
        """Returns the largest of all processes' values."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device="cpu" if self.device.type == "cpu" else self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.item()

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Averages figures over the processes that have them; NaN counts as none."""
        if self.size == 1:
            return values
        names = sorted(values)
        table = torch.tensor([values[name] for name in names], dtype=torch.float64)
        known = torch.isfinite(table)
        sums = torch.stack((table.where(known, 0.0), known.double())).to(self.device)
        dist.all_reduce(sums, op=dist.ReduceOp.SUM)
        total, count = sums.tolist()
        return {name: s / n if n else math.nan for name, s, n in zip(names, total, count, strict=True)}

    def told(self, value: Any) -> Any:
        """Sends a plain value from the first process to all others."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leaves the group of processes."""
        if self.size > 1:
            with suppress(RuntimeError):
                dist.destroy_process_group()


def is_one_of_several() -> bool:
    """Whether torchrun, or a launch of ours, has started this process."""
    return "LOCAL_RANK" in os.environ


def join_world(device: torch.device) -> World:
    """Joins the run's processes as torchrun has put them into the environment; one process alone without it.

    Args:
        device: what the configuration asks for; of CUDA each process takes the card of its local rank.

    Raises:
        TrainingError: more processes than cards, or the processes do not find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if is_one_of_several() else 1
    if size == 1:
        return World(0, 1, device)
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise TrainingError(f"process {local} has no GPU of its own: there are {torch.cuda.device_count()}")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the processes do not find each other ({str(error).splitlines()[0]}): choose another --port, or none"
        ) from error
    return World(rank, size, device)


def launch(config: TrainingConfig, arguments: Sequence[str]) -> None:
    """Starts one process of the same command for each of ``--gpu_ids`` and waits for them.

    Args:
        config: its ``gpu_ids``, ``device`` and ``port``.
        arguments: the command line of ``train``, from which ``--multi_gpu`` and ``--gpu_ids`` are dropped.

    Raises:
        TrainingError: a card that is not there, or a process that failed.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    if config.device != "cpu" and torch.cuda.is_available():
        missing = [gpu for gpu in config.gpu_ids if not 0 <= gpu < torch.cuda.device_count()]
        if missing:
            raise TrainingError(f"--gpu_ids {missing[0]}: this machine has {torch.cuda.device_count()} GPUs, from 0")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in config.gpu_ids)
    where = ["--master_port", str(config.port)] if config.port else ["--standalone"]
    command = [*where, "--nproc_per_node", str(len(config.gpu_ids)), "-m", "SAMMed3DTrainingLib", "train"]
    try:
        torchrun([*command, *_without_launch_options(arguments)])
    except ChildFailedError as error:
        raise TrainingError("a training process failed; its message is above") from error
    except SignalException as error:
        # It has passed the signal on and waited: the processes have saved and written their last event.
        if not _has_stopped(config.folder):
            raise TrainingError("asked to end before the processes had saved; --resume continues") from error


def _has_stopped(folder: Path) -> bool:
    events = read_events(folder)
    return bool(events) and events[-1].get("reason") in ("stopped", "finished")


def _without_launch_options(arguments: Sequence[str]) -> list[str]:
    kept: list[str] = []
    dropping = False
    for argument in arguments:
        if argument == "--multi_gpu":
            dropping = False
        elif argument.startswith("--gpu_ids"):
            dropping = "=" not in argument
        elif not (dropping and not argument.startswith("-")):
            dropping = False
            kept.append(argument)
    return kept
