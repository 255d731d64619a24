"""Training as the public code loads its data, written anew from its description: what our own is compared with.

For every sample the whole scan and its label map are read again, put into the canonical orientation, resampled to the
spacing of the network's input where that is asked for (the LIDC fork does it while it trains, SAM-Med3D beforehand),
cropped or padded around the nodule, flipped at random and normalized; the encoder runs on every crop. Network, loss,
clicks, optimizer, batch size and the one process that prepares samples are ours.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("SAMMed3D", "SAMMed3DTraining")]

from SAMMed3DLib.inference.preprocessing import normalize_crop  # noqa: E402
from SAMMed3DLib.model.precision import PRECISIONS, resolve_precision  # noqa: E402
from SAMMed3DLib.model.profile import PreprocessingProfile  # noqa: E402
from SAMMed3DTrainingLib.data.datasets import find_datasets  # noqa: E402
from SAMMed3DTrainingLib.data.nodule_samples import Sample  # noqa: E402
from SAMMed3DTrainingLib.train.click_loop import ClickLoop, draw_click_count  # noqa: E402
from SAMMed3DTrainingLib.train.trainable import Trainable, start_network, starting_checkpoint  # noqa: E402
from SAMMed3DTrainingLib.train.training_config import TrainingConfig  # noqa: E402


@dataclass(frozen=True)
class PlainCases(Dataset):
    """Sample ``n``: a nodule of case ``n`` modulo the number of cases, everything read and cropped again."""

    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    profile: PreprocessingProfile
    resample: bool

    def __getitem__(self, number: int) -> Sample:
        rng = np.random.default_rng([2023, number])
        case, size = number % len(self.images), self.profile.crop_size
        hu, spacing = _read(self.images[case], self.profile.spacing_mm if self.resample else None, labels=False)
        labels, _ = _read(self.labels[case], self.profile.spacing_mm if self.resample else None, labels=True)
        values = np.unique(labels)
        truth = labels == rng.choice(values[values > 0])
        middle = np.round(np.argwhere(truth).mean(axis=0)).astype(int)
        hu = _crop_or_pad(hu, middle, size, self.profile.padding_hu).astype(np.float32)
        truth = _crop_or_pad(truth, middle, size, False)
        for axis in range(3):
            if rng.random() < 0.5:
                hu, truth = np.flip(hu, axis), np.flip(truth, axis)
        statistics = 0.0, 1.0
        if self.profile.intensity == "zscore_positive":
            positive = hu[hu > 0]
            statistics = float(positive.mean()), float(positive.std())
        crop = normalize_crop(hu.copy(), spacing, self.profile, statistics)
        inside = np.argwhere(truth)
        click = inside[rng.integers(len(inside))].astype(np.float32)
        return Sample(crop, np.ascontiguousarray(truth), click, spacing, "unknown", 0.0)


def _read(path: Path, spacing_mm: float | None, labels: bool) -> tuple[np.ndarray, float]:
    """A whole volume with the axes R, A, S, at a spacing or as it is, and its mean spacing."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    array = np.asarray(image.dataobj)
    zooms = [float(zoom) for zoom in image.header.get_zooms()[:3]]
    if spacing_mm is None:
        return array, float(np.prod(zooms) ** (1 / 3))
    volume = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    volume.SetSpacing(zooms)
    size = [max(1, round(n * zoom / spacing_mm)) for n, zoom in zip(array.shape, zooms, strict=True)]
    order = sitk.sitkNearestNeighbor if labels else sitk.sitkLinear
    volume = sitk.Resample(
        volume, size, sitk.Transform(), order, volume.GetOrigin(), [spacing_mm] * 3, volume.GetDirection(), 0
    )
    return sitk.GetArrayFromImage(volume).transpose(2, 1, 0), spacing_mm


def _crop_or_pad(array: np.ndarray, middle: np.ndarray, size: tuple[int, ...], value: float) -> np.ndarray:
    low = middle - np.array(size) // 2
    first, last = np.maximum(low, 0), np.minimum(low + size, array.shape)
    out = np.full(size, value, array.dtype)
    out[tuple(slice(a, b) for a, b in zip(first - low, last - low, strict=True))] = array[
        tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    ]
    return out


def train(data: Path, steps: int, resample: bool) -> float:
    """Seconds a sample over some steps, after a first one that does not count."""
    config = TrainingConfig("plain", data=(str(data),), preset="full", device="cpu").resolved(from_scratch=False)
    network = Trainable(start_network(config, starting_checkpoint(config), torch.device("cpu")), config)
    cases = [case for dataset in find_datasets(data) for case in dataset.part("Tr") if case.label is not None]
    samples = PlainCases(
        tuple(case.image for case in cases), tuple(case.label for case in cases), network.model.profile, resample
    )
    numbers = np.arange((steps + 1) * config.batch_size).reshape(steps + 1, -1).tolist()
    source = iter(
        DataLoader(
            samples,
            batch_sampler=numbers,
            collate_fn=list,
            num_workers=1,
            prefetch_factor=3,
            worker_init_fn=lambda worker: sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1),
        )
    )
    loop, optimizer = ClickLoop(network.model), network.optimizer(config)
    dtype = PRECISIONS[resolve_precision(config.precision, torch.device("cpu"))]
    begun = 0.0
    for step in range(steps + 1):
        batch = next(source)
        clicks = draw_click_count(np.random.default_rng([config.seed, 3, 0, step]))
        rngs = [np.random.default_rng([config.seed, 4, step, n]) for n in range(len(batch))]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss, _ = loop(batch, clicks, rngs)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters, config.clip)
        optimizer.step()
        if step == 0:
            begun = time.perf_counter()
    return (time.perf_counter() - begun) / (steps * config.batch_size)


def main() -> int:
    """The child process of ``training_speed.py``: prints {"seconds": ...}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--resample", action="store_true")
    options = parser.parse_args()
    print(json.dumps({"seconds": train(options.data, options.steps, options.resample)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
