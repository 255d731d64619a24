"""Training of the bundled ``nodule`` model on synthesis: the run that made the shipped weights, for anyone to repeat.

    python -m SAMMed3DTrainingLib.pretraining --data ../shared/data --work_dir work --steps 6000 --processes 2

Each process draws its own samples and the gradients are averaged after every step, so that on a CPU two processes of
one thread each do the work of one with two threads, without waiting for synthesis.  A run continues where it stopped;
the learning rate follows a cosine over ``--steps``.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

from SAMMed3DLib.model import build_model, save_checkpoint
from SAMMed3DLib.model.precision import resolve_precision
from SAMMed3DLib.model.sam import Sam3D
from SAMMed3DLib.synthesis import NoduleShapes

from .backgrounds import training_backgrounds
from .clicks import ClickSimulator
from .losses import mask_loss, true_iou
from .samples import Sample
from .synthetic_samples import SampleSynthesizer

logger = logging.getLogger(__name__)

LOGIT_LIMIT = 12.0
CLICK_COUNTS = (1, 2, 3, 4, 5, 6, 8)
CLICK_COUNT_SHARES = (0.1, 0.2, 0.2, 0.2, 0.12, 0.1, 0.08)


@dataclass(frozen=True)
class PretrainingConfig:
    """Everything that decides a run; written to its work folder."""

    data: str
    work_dir: str
    steps: int = 6000
    batch_size: int = 4
    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup: int = 150
    ema: float = 0.998
    processes: int = 2
    threads: int = 1
    seed: int = 2023
    save_every: int = 100
    device: str = "cpu"


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


class ClickLoop:
    """One training step: encode once, click several times, learn from the first and the last click."""

    def __init__(self, model: Sam3D, rng: np.random.Generator) -> None:
        self._model = model
        self._rng = rng
        self._simulators = [
            ClickSimulator(method, seed=rng.integers(2**31)) for method in ("random", "challenge", "jitter")
        ]

    def loss(self, samples: list[Sample], device: torch.device) -> tuple[Tensor, dict[str, float]]:
        """Loss to differentiate and figures to log (Dice after the first and the last click)."""
        rng = self._rng
        image = torch.from_numpy(np.stack([s.crop for s in samples])).to(device)
        truth = torch.from_numpy(np.stack([s.truth for s in samples]))[:, None].to(device)
        is_nodule = truth.flatten(1).any(dim=1)
        points = [[s.click] for s in samples]
        labels = [[1] for _ in samples]
        boxes, previous = self._first_prompts(samples, points, labels)
        boxes, previous = boxes.to(device), previous.to(device)

        embedding = self._model.image_encoder(image)
        clicks = int(rng.choice(CLICK_COUNTS, p=CLICK_COUNT_SHARES))
        total = image.new_zeros(())
        figures = {}
        for click in range(clicks):
            learn = click in (0, clicks - 1)
            with torch.set_grad_enabled(learn):
                masks, iou = self._decode(embedding if learn else embedding.detach(), points, labels, boxes, previous)
                logits = F.interpolate(masks[:, :1], truth.shape[2:], mode="trilinear", align_corners=False)
            if learn:
                total = total + self._step_loss(masks, logits, iou, truth, is_nodule, first=click == 0)
                figures["dice_first" if click == 0 else "dice_last"] = _dice(logits, truth, is_nodule)
            if click + 1 < clicks:
                previous = masks[:, :1].detach().clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
                self._next_clicks(samples, (logits.detach() > 0)[:, 0].cpu().numpy(), points, labels)
        return total, figures

    def _first_prompts(
        self, samples: list[Sample], points: list[list[np.ndarray]], labels: list[list[int]]
    ) -> tuple[Tensor, Tensor]:
        """Some samples begin with a box, with or without the click, or with a rough mask and a correcting click."""
        rng = self._rng
        boxes = torch.full((len(samples), 6), math.nan)
        previous = torch.zeros(len(samples), 1, 32, 32, 32)
        for n, sample in enumerate(samples):
            if not sample.truth.any():
                continue
            draw = rng.random()
            if draw < 0.2:
                corners = np.argwhere(sample.truth)
                low, high = corners.min(axis=0), corners.max(axis=0)
                slack = 0.5 + 0.08 * (high - low)
                low, high = low + rng.normal(0, slack), high + rng.normal(0, slack)
                boxes[n] = torch.from_numpy(np.concatenate((np.minimum(low, high), np.maximum(low, high))))
                if draw < 0.12:
                    points[n], labels[n] = [], []
            elif draw < 0.3:
                rough = _rough(sample.truth, rng)
                click = self._simulators[0].next_click(sample.truth, rough)
                if click is not None:
                    points[n], labels[n] = [np.asarray(click[0], np.float32)], [int(click[1])]
                cover = F.avg_pool3d(torch.from_numpy(rough)[None, None].float(), 2)
                previous[n] = (cover[0] * 2 - 1) * rng.uniform(4, 10)
        return boxes, previous

    def _decode(
        self, embedding: Tensor, points: list[list[np.ndarray]], labels: list[list[int]], boxes: Tensor,
        previous: Tensor,
    ) -> tuple[Tensor, Tensor]:
        most = max(max(len(p) for p in points), 1)
        coords = torch.zeros(len(points), most, 3)
        signs = torch.full((len(points), most), -1)
        for n, (sample_points, sample_labels) in enumerate(zip(points, labels, strict=True)):
            for m, (point, label) in enumerate(zip(sample_points, sample_labels, strict=True)):
                coords[n, m] = torch.from_numpy(np.asarray(point, np.float32))
                signs[n, m] = label
        encoder = self._model.prompt_encoder
        box = boxes if torch.isfinite(boxes).any() else None
        sparse, dense = encoder(
            points=(coords.to(boxes.device), signs.to(boxes.device)), boxes=box, masks=previous
        )
        return self._model.mask_decoder.predict_all(embedding, encoder.get_dense_pe(), sparse, dense)

    def _step_loss(
        self, masks: Tensor, logits: Tensor, iou: Tensor, truth: Tensor, is_nodule: Tensor, first: bool
    ) -> Tensor:
        count = is_nodule.sum().clamp(min=1)
        loss = (mask_loss(logits, truth)[:, 0] * is_nodule).sum() / count
        target = true_iou(logits, truth)
        if first:
            # The three alternatives are compared at their own resolution, with the share of each cell that is nodule.
            cover = F.avg_pool3d(truth.float(), 2)
            best = mask_loss(masks[:, 1:], cover).min(dim=1).values
            loss = loss + 0.5 * (best * is_nodule).sum() / count
            target = torch.cat((target, true_iou(masks[:, 1:], cover > 0.5)), dim=1)
        return loss + F.mse_loss(iou[:, : target.shape[1]], target)

    def _next_clicks(
        self, samples: list[Sample], masks: np.ndarray, points: list[list[np.ndarray]], labels: list[list[int]]
    ) -> None:
        for n, sample in enumerate(samples):
            if not sample.truth.any():
                continue
            simulator = self._simulators[self._rng.choice(3, p=(0.5, 0.25, 0.25))]
            click = simulator.next_click(sample.truth, masks[n])
            if click is not None:
                points[n].append(np.asarray(click[0], np.float32))
                labels[n].append(int(click[1]))


def _rough(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The truth displaced, grown or shrunk, as a mask to be corrected."""
    shift = np.round(rng.normal(0, 1.2, 3)).astype(int)
    rough = np.roll(truth, shift, axis=(0, 1, 2))
    blurred = F.avg_pool3d(torch.from_numpy(rough)[None, None].float(), 5, stride=1, padding=2)[0, 0].numpy()
    return blurred > rng.uniform(0.15, 0.85)


@torch.no_grad()
def _dice(logits: Tensor, truth: Tensor, is_nodule: Tensor) -> float:
    mask = logits > 0
    both = (mask & truth).flatten(1).sum(dim=1)
    dice = 2 * both / (mask.flatten(1).sum(dim=1) + truth.flatten(1).sum(dim=1)).clamp(min=1)
    return float(dice[is_nodule].mean()) if is_nodule.any() else math.nan


def learning_rate(step: int, config: PretrainingConfig) -> float:
    """Linear warm-up, then a cosine down to a fiftieth."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = min((step - config.warmup) / max(config.steps - config.warmup, 1), 1)
    return config.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def average_gradients(module: nn.Module, processes: int) -> None:
    """The mean of every gradient over all processes, in one message."""
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in module.parameters()]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= processes
    for parameter, value in zip(module.parameters(), flat.split([g.numel() for g in gradients]), strict=True):
        parameter.grad = value.view_as(parameter)


class Run:
    """The state of a run in its work folder: weights, their average, optimizer, step."""

    def __init__(self, config: PretrainingConfig) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        self.model = build_model("nodule", device=config.device)
        self.model.requires_grad_(True)
        self.model.train()
        # One-dimensional parameters (norms, biases) are not decayed.
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.lr, betas=(0.9, 0.98),
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

    def save(self) -> None:
        """Write the state of the run and the averaged weights as a checkpoint, each atomically."""
        part = self._file.with_suffix(".part")
        torch.save(
            {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
             "average": self.average.values, "step": self.step}, part,
        )
        part.replace(self._file)
        shipped = build_model("nodule")
        shipped.load_state_dict(self.average.values)
        save_checkpoint(shipped, self._file.with_name("sammed3d_nodule.pth"), half=True)


def _work(rank: int, config: PretrainingConfig, port: int) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(config.threads)
    if config.processes > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=config.processes)
    run = Run(config)
    device = torch.device(config.device)
    bf16 = resolve_precision("auto", device) == "bf16"
    rng = np.random.default_rng([config.seed, rank, run.step])
    backgrounds = training_backgrounds(Path(config.data), Path(config.work_dir) / "backgrounds")
    synthesizer = SampleSynthesizer(backgrounds, NoduleShapes.load(), run.model.profile, rng)
    loop = ClickLoop(run.model, rng)
    with _log(config, rank) as write:
        while run.step < config.steps:
            started = time.perf_counter()
            for group in run.optimizer.param_groups:
                group["lr"] = learning_rate(run.step, config)
            samples = [synthesizer.sample() for _ in range(config.batch_size)]
            drawn = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss, figures = loop.loss(samples, device)
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
            write(step=run.step, loss=loss.item(), norm=norm.item(), synthesis_s=drawn - started,
                  step_s=time.perf_counter() - started, **figures)
            if rank == 0 and (run.step % config.save_every == 0 or run.step == config.steps):
                run.save()


@contextmanager
def _log(config: PretrainingConfig, rank: int) -> Iterator:
    """A function that appends an event to the run's JSON lines and now and then reports the mean."""
    recent: list[dict[str, float]] = []
    with (Path(config.work_dir) / f"pretraining_{rank}.jsonl").open("a") as file:

        def write(**event: float) -> None:
            file.write(json.dumps(event) + "\n")
            recent.append(event)
            if len(recent) == 50:
                file.flush()
                if rank == 0:
                    keys = ("loss", "dice_first", "dice_last", "norm", "synthesis_s", "step_s")
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
        ("steps", int, "optimizer steps in all"), ("batch_size", int, "samples per process and step"),
        ("lr", float, "highest learning rate"), ("processes", int, "processes that share the work"),
        ("threads", int, "threads per process"), ("seed", int, "seed of weights and samples"),
        ("device", str, "cpu or cuda"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=getattr(PretrainingConfig, name),
                            help=f"{text} (default %(default)s)")
    config = PretrainingConfig(**vars(parser.parse_args(arguments)))
    work_dir = Path(config.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    training_backgrounds(Path(config.data), work_dir / "backgrounds")
    (work_dir / "pretraining.json").write_text(json.dumps(vars(config) | {"torch": torch.__version__}, indent=2))
    if config.processes == 1:
        _work(0, config, 0)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_work, (config, port), nprocs=config.processes)


if __name__ == "__main__":
    main()
