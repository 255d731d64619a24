"""One update's gradient of a batch, or of a process's part of it: for the test of several processes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from SAMMed3DLib.model import build_model
from SAMMed3DTrainingLib.data.clicks import ClickSimulator
from SAMMed3DTrainingLib.data.nodule_samples import Sample
from SAMMed3DTrainingLib.train.click_loop import ClickLoop
from SAMMed3DTrainingLib.train.distributed import World, join_world

SAMPLES = 4
CLICKS = 3


def samples(model) -> list[Sample]:
    """Bright balls in noise, one of them on no nodule."""
    profile = model.profile
    size = np.array(profile.crop_size)
    found = []
    for seed in range(SAMPLES):
        rng = np.random.default_rng([11, seed])
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1)
        center = size / 2 + rng.uniform(-2, 2, 3)
        truth = np.linalg.norm(grid - center, axis=-1) < rng.uniform(4, 7)
        crop = rng.normal(0, 0.1, (profile.channels, *size)) + truth
        if seed == 2:
            truth = np.zeros_like(truth)
        found.append(Sample(crop.astype(np.float32), truth, np.round(center).astype(np.float32), 1.0, "solid", 8.0))
    return found


def gradient(name: str, world: World) -> torch.Tensor:
    """The averaged gradient of one update on the same clicks, whatever the masks were.

    Clicks go where masks are wrong, and those of an untrained network are wrong by rounding: which voxels are above
    the threshold would decide where to click, and the clicks are not what is compared.
    """
    ClickSimulator.next_click = lambda self, truth, *unused: (tuple(self._rng.integers(8, truth.shape[0] - 8, 3)), True)
    torch.manual_seed(5)
    model = build_model(name).requires_grad_(True).train()
    loop: nn.Module = world.wrap(ClickLoop(model))
    share = range(world.rank * SAMPLES // world.size, (world.rank + 1) * SAMPLES // world.size)
    its = samples(model)
    # The first draw decides who gets a box: seeds with and without one, also in either half.
    rngs = [np.random.default_rng([3, n]) for n in BOX_SEEDS]
    loss, _ = loop([its[n] for n in share], CLICKS, [rngs[n] for n in share])
    loss.backward()
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])


def _seed(low: float, high: float, start: int) -> int:
    return next(n for n in range(start, start + 1000) if low <= np.random.default_rng([3, n]).random() < high)


#: A box alone, a click alone, a click (on no nodule), a click and a box.
BOX_SEEDS = [_seed(0.0, 0.1, 0), _seed(0.5, 1.0, 0), _seed(0.5, 1.0, 100), _seed(0.13, 0.19, 0)]

if __name__ == "__main__":
    torch.set_num_threads(1)
    here = join_world(torch.device("cpu"))
    result = gradient(sys.argv[1], here)
    if here.is_main:
        part = Path(sys.argv[2] + ".part")
        torch.save(result, part)
        part.replace(sys.argv[2])
    here.close()
