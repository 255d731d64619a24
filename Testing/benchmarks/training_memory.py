"""Memory that a training step of ``vit_b_ori`` needs for each sample, beyond weights, gradients and optimizer.

    python Testing/benchmarks/training_memory.py [--model vit_b_ori] [--encoders full lora] [--precisions fp32 bf16]

Each step (eight clicks, the most there are) runs in a process of its own, with one sample and with three; half the
difference of the two peaks of resident memory is what a sample costs. Beside it the bytes that PyTorch keeps for the
way back, counted one by one. Exit code 1 when a sample costs more than 0.6 GB, 2 where the system tells no peak.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("SAMMed3D", "SAMMed3DTraining")]

from SAMMed3DLib.model.precision import PRECISIONS  # noqa: E402
from SAMMed3DTrainingLib.data.nodule_samples import Sample  # noqa: E402
from SAMMed3DTrainingLib.train.click_loop import CLICK_COUNTS, ClickLoop  # noqa: E402
from SAMMed3DTrainingLib.train.trainable import Trainable, start_network  # noqa: E402
from SAMMed3DTrainingLib.train.training_config import TrainingConfig  # noqa: E402

TARGET_GB = 0.6
FEW, MANY = 1, 3


def ball_sample(network: Trainable, seed: int) -> Sample:
    """A bright ball in noise, clicked in its middle."""
    profile, rng = network.model.profile, np.random.default_rng(seed)
    grid = np.indices(profile.crop_size, dtype=np.float32)
    middle = np.array(profile.crop_size) / 2 + rng.uniform(-4, 4, 3)
    distance = np.sqrt(sum((axis - place) ** 2 for axis, place in zip(grid, middle, strict=True)))
    truth = distance < max(profile.crop_size) / 8
    crop = rng.normal(0, 0.3, (profile.channels, *profile.crop_size)) + truth
    return Sample(crop.astype(np.float32), truth, middle.astype(np.float32), 1.0, "solid", 10.0)


def measure(model: str, encoder: str, precision: str, batch: int) -> tuple[float, float]:
    """Peak of resident memory of a step above what was there before, and bytes kept for the way back; in GB."""
    config = TrainingConfig("memory", model_type=model, encoder=encoder).resolved(from_scratch=False)
    network = Trainable(start_network(config, None, torch.device("cpu")), config)
    samples = [ball_sample(network, n) for n in range(batch)]
    loop, hooks = ClickLoop(network.model), Kept(network)
    rngs = [np.random.default_rng([1, n]) for n in range(batch)]
    for parameter in network.parameters:
        parameter.grad = torch.zeros_like(parameter).add_(0)  # written, so that it is there before
    # What a step before had freed would still be resident: the first one is the one that tells.
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    with hooks, torch.autocast("cpu", PRECISIONS[precision], enabled=precision != "fp32"):
        loss, _ = loop(samples, max(CLICK_COUNTS), rngs)
    loss.backward()
    return (_status("VmHWM") - before) / 1e6, hooks.bytes / 1e9


class Kept(torch.autograd.graph.saved_tensors_hooks):
    """Counts the memory that is kept for the way back, every block once, weights not at all."""

    def __init__(self, network: Trainable) -> None:
        self.bytes = 0
        self._seen = {p.untyped_storage().data_ptr() for p in network.model.parameters()}
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def in_child(model: str, encoder: str, precision: str, batch: int) -> tuple[float, float]:
    """:func:`measure` in a process of its own."""
    run = subprocess.run(
        [
            sys.executable,
            __file__,
            "--model",
            model,
            "--encoders",
            encoder,
            "--precisions",
            precision,
            "--batch",
            str(batch),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, kept = run.stdout.split()[-2:]
    return float(peak), float(kept)


def _status(name: str) -> float:
    """In kB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + ":"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_b_ori")
    parser.add_argument("--encoders", nargs="+", default=["full", "lora"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not Path("/proc/self/clear_refs").exists():
        print("only Linux tells the peak of a part of a process", file=sys.stderr)
        return 2
    if options.batch:
        print(*measure(options.model, options.encoders[0], options.precisions[0], options.batch))
        return 0
    missed = False
    print(f"{options.model}, {max(CLICK_COUNTS)} clicks a step\n")
    print("| encoder | precision | GB a sample | kept for the way back, GB a sample | peak of a step, batch 1, GB |")
    print("|---|---|---|---|---|")
    for encoder in options.encoders:
        for precision in options.precisions:
            few, many = (in_child(options.model, encoder, precision, batch) for batch in (FEW, MANY))
            peak, kept = ((b - a) / (MANY - FEW) for a, b in zip(few, many, strict=True))
            missed |= peak > TARGET_GB
            print(f"| {encoder} | {precision} | {peak:.2f} | {kept:.2f} | {few[0]:.2f} |", flush=True)
    print(f"\nwanted: at most {TARGET_GB} GB a sample: {'MISSED' if missed else 'reached'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
