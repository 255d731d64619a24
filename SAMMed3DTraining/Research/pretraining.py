"""Trains the bundled model on synthetic and real nodules: the run that made the shipped weights.

    python -m Research.pretraining --data ../shared/data --work_dir work --steps 6000 --processes 2

With ``lidc_voi/`` in the data, ``--real_share`` of the samples are its nodules of the training patients
(:mod:`.real_samples`), and shapes of the scans that acceptance keeps back are not drawn.

Each process draws its own samples and the gradients are averaged after every step, so that on a CPU two processes of
one thread each do the work of one with two threads, without waiting for synthesis.  A run continues where it stopped;
the learning rate follows a cosine over ``--steps``, or over ``--minutes`` where a machine is lent for so long.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from SAMMed3DLib.finding.candidates import Candidate, find_candidates
from SAMMed3DLib.finding.lungs import find_lungs
from SAMMed3DLib.model import build_model, load_model, save_checkpoint
from SAMMed3DLib.model.precision import resolve_precision
from SAMMed3DTrainingLib.train.click_loop import draw_click_count

from .background_samples import BackgroundSynthesizer
from .backgrounds import Background, training_backgrounds
from .detection_scans import bare_scan
from .pretraining_loop import PretrainingLoop
from .real_samples import REAL_CROPS, RealSampler, read_crops, training_shapes

logger = logging.getLogger(__name__)

_MISTAKABLE_PER_SCAN = 300


@dataclass(frozen=True)
class PretrainingConfig:
    """The configuration of a run; written to its work folder."""

    data: str
    work_dir: str
    steps: int = 6000
    minutes: float = 0.0
    batch_size: int = 4
    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 150
    ema: float = 0.995
    model: str = "nodule_light"
    start: str = ""
    real_share: float = 0.7
    agreement: float = 0.5
    needless: float = 0.12
    processes: int = 2
    threads: int = 1
    seed: int = 2023
    save_every: int = 100
    device: str = "cpu"


def mistakable_places(background: Background) -> list[Candidate]:
    """Finds hard negatives in a lung without nodules: forks and bends of vessels, scars, folds of the pleura."""
    scan = bare_scan(background, "training")
    found = find_candidates(
        background.hu,
        background.ijk_to_ras,
        find_lungs(background.hu, background.ijk_to_ras),
        limit=_MISTAKABLE_PER_SCAN,
    )
    return [place for place in found if not scan.ignores(place.center_ras)]


class ExponentialAverage:
    """Running average of a module's parameters: the weights that are shipped."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            self.values[name].lerp_(value, 1 - decay)


def learning_rate(step: int, config: PretrainingConfig, elapsed_s: float = 0.0) -> float:
    """Linear warm-up, then a cosine down to a fiftieth, over the steps or over the time that a run has."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    progress = min(elapsed_s / (60 * config.minutes) if config.minutes else done, 1)
    return config.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def average_gradients(module: nn.Module, processes: int) -> None:
    """Averages every gradient over all processes, in one message."""
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in module.parameters()]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= processes
    for parameter, value in zip(module.parameters(), flat.split([g.numel() for g in gradients]), strict=True):
        parameter.grad = value.view_as(parameter)


def agreed_seconds(started: float, processes: int) -> float:
    """Returns the seconds since ``started``, the same in all processes, so that their learning rates agree."""
    seconds = torch.tensor(time.monotonic() - started, dtype=torch.float64)
    if processes > 1:
        dist.all_reduce(seconds)
    return seconds.item() / processes


class Run:
    """The state of a run in its work folder: weights, their average, optimizer, step."""

    def __init__(self, config: PretrainingConfig) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        self.model = build_model(config.model, device=config.device)
        if config.start:
            self._take_over(load_model(config.start, device=config.device))
        self.model.requires_grad_(True)
        self.model.train()
        # One-dimensional parameters (norms, biases) are not decayed.
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.lr,
            betas=(0.9, 0.98),
        )
        self.average = ExponentialAverage(self.model, config.ema)
        self.step = 0
        self._file = Path(config.work_dir) / "pretraining_latest.pth"
        if self._file.exists():
            state = torch.load(self._file, weights_only=True, map_location=config.device)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average.values = state["average"]
            self.step = state["step"]

    def _take_over(self, other: nn.Module) -> None:
        """Copies the weights of a network of the same or of another layout, as far as they fit."""
        own = self.model.state_dict()
        fitting = {
            name: value for name, value in other.state_dict().items() if name in own and own[name].shape == value.shape
        }
        self.model.load_state_dict(fitting, strict=False)
        logger.info("%d of %d tensors are those of the checkpoint to start from", len(fitting), len(own))

    def save(self) -> None:
        """Writes the state of the run and the averaged weights as a checkpoint, each atomically."""
        part = self._file.with_suffix(".part")
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.values,
                "step": self.step,
            },
            part,
        )
        part.replace(self._file)
        shipped = build_model(self.config.model)
        shipped.load_state_dict(self.average.values)
        save_checkpoint(shipped, self._file.with_name("sammed3d_nodule.pth"), half=True)


def _work(rank: int, config: PretrainingConfig, port: int, mistakable: Sequence[Sequence[Candidate]]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(config.threads)
    if config.processes > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=config.processes)
    run = Run(config)
    device = torch.device(config.device)
    bf16 = resolve_precision("auto", device) == "bf16"
    rng = np.random.default_rng([config.seed, rank, run.step])
    backgrounds = training_backgrounds(Path(config.data), Path(config.work_dir) / "backgrounds")
    shapes = training_shapes(Path(config.data))
    synthesizer = BackgroundSynthesizer(backgrounds, shapes, run.model.profile, rng, mistakable)
    folder = Path(config.data) / REAL_CROPS
    real = RealSampler(read_crops(folder), backgrounds, run.model.profile, rng) if folder.is_dir() else None
    loop = PretrainingLoop(run.model, config.agreement, config.needless)
    with _log(config, rank) as write:
        begun = time.monotonic()
        while run.step < config.steps:
            elapsed = agreed_seconds(begun, config.processes) if config.minutes else 0.0
            if config.minutes and elapsed >= 60 * config.minutes:
                break
            started = time.perf_counter()
            for group in run.optimizer.param_groups:
                group["lr"] = learning_rate(run.step, config, elapsed)
            samples = [
                real.sample() if real is not None and rng.random() < config.real_share else synthesizer.sample()
                for _ in range(config.batch_size)
            ]
            drawn = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                # The same for all processes, which wait for each other.
                clicks = draw_click_count(np.random.default_rng([config.seed, run.step]))
                loss, figures = loop(samples, clicks, rng.spawn(len(samples)))
            run.optimizer.zero_grad()
            loss.backward()
            if config.processes > 1:
                average_gradients(run.model, config.processes)
            norm = nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"the gradient is not finite at step {run.step}; the last saved state is kept")
            run.optimizer.step()
            run.step += 1
            run.average.update(run.model, run.step)
            write(
                step=run.step,
                loss=loss.item(),
                norm=norm.item(),
                synthesis_s=drawn - started,
                clicks=clicks,
                step_s=time.perf_counter() - started,
                **figures,
            )
            if rank == 0 and run.step % config.save_every == 0:
                run.save()
    if rank == 0:
        run.save()


@contextmanager
def _log(config: PretrainingConfig, rank: int) -> Iterator:
    """A function that appends an event to the run's JSON lines and now and then reports the mean."""
    recent: list[dict[str, float]] = []
    with (Path(config.work_dir) / f"pretraining_{rank}.jsonl").open("a", encoding="utf-8") as file:

        def write(**event: float) -> None:
            file.write(json.dumps(event) + "\n")
            recent.append(event)
            if len(recent) == 50:
                file.flush()
                if rank == 0:
                    keys = ("loss", "dice_first", "dice_last", "apart", "iou_error", "norm", "synthesis_s", "step_s")
                    means = {key: np.nanmean([e.get(key, math.nan) for e in recent]) for key in keys}
                    logger.info("step %d  %s", event["step"], "  ".join(f"{k} {v:.3f}" for k, v in means.items()))
                recent.clear()

        yield write


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with lidc_idri/ and background/")
    parser.add_argument("--work_dir", required=True, help="where the run keeps its state, log and weights")
    for name, kind, text in (
        ("steps", int, "optimizer steps in all"),
        ("minutes", float, "stop after so long, with the learning rate falling until then; 0 = after the steps"),
        ("batch_size", int, "samples per process and step"),
        ("lr", float, "highest learning rate"),
        ("processes", int, "processes that share the work"),
        ("threads", int, "threads per process"),
        ("seed", int, "seed of weights and samples"),
        ("device", str, "cpu or cuda"),
        ("warmup", int, "steps until the highest learning rate"),
        ("ema", float, "decay of the averaged weights"),
        ("model", str, "network by its registry name"),
        ("start", str, "checkpoint to start from; of another network what fits is taken"),
        ("real_share", float, "share of samples that are real nodules"),
        ("agreement", float, "weight of what two first clicks disagree in"),
        ("needless", float, "share of later clicks that correct nothing"),
    ):
        parser.add_argument(
            f"--{name}", type=kind, default=getattr(PretrainingConfig, name), help=f"{text} (default %(default)s)"
        )
    config = PretrainingConfig(**vars(parser.parse_args(arguments)))
    work_dir = Path(config.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    # Once for all processes.
    backgrounds = training_backgrounds(Path(config.data), work_dir / "backgrounds")
    mistakable = [mistakable_places(background) for background in backgrounds]
    settings = vars(config) | {"torch": torch.__version__}
    (work_dir / "pretraining.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    if config.processes == 1:
        _work(0, config, 0, mistakable)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_work, (config, port, mistakable), nprocs=config.processes)


if __name__ == "__main__":
    main()
