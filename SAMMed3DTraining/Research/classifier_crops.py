"""Collects the classifier's training data: crops of painted and of real nodules, and of other places that the blob
filter names.

Crops are kept finer and wider than the network sees them, so that every view of one can be turned, shifted, scaled and
blurred anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from SAMMed3DLib.files.output_files import whole_file
from SAMMed3DLib.finding.appearance import classifier_spacing, cube_around
from SAMMed3DLib.finding.candidates import find_candidates
from SAMMed3DLib.finding.lungs import find_lungs
from SAMMed3DLib.model.nodule_classifier import EDGE
from SAMMed3DLib.synthesis import NoduleShapes

from .backgrounds import Background, training_backgrounds
from .detection_scans import (
    DetectionScan,
    bare_scan,
    painted_scan,
    phantom_scan,
    procedural_scan,
    real_nodules,
    with_real_nodules,
)
from .ranking_fitting import within_lungs
from .real_samples import RealCrop, training_shapes

STORED = 56
"""Edge of a kept crop in voxels."""
FINER = 1.5
"""Its voxels are that much finer than those that the network sees."""
CANDIDATES = 2500
"""Places of each background that are no nodules, the strongest; of a synthetic chest a tenth."""
SMALL_MM, SMALL_PER_SCAN = (3.5, 20.0), 20
LARGE_MM, LARGE_PER_SCAN = (14.0, 32.0), 8
"""Nodules of a scan in every third round, by themselves: among small ones there is no room for them."""
REAL_PER_SCAN = 16
"""Real nodules of training patients in a scan of every round; rare and hard ones more often."""
PROCEDURAL_SEEDS = range(5000, 5020)
"""Seeds of the synthetic chests."""
_STREAM = 99
"""Stream of random numbers for those chests; backgrounds have their own numbers."""
_FALSE_SPREAD, _TRUE_SPREAD = 0.25, 0.2
"""Error of the assumed size: standard deviation of its logarithm."""
_OFF_CENTER = 0.08
"""Error of the assumed center, in diameters."""


@dataclass(frozen=True)
class Crops:
    """Crops of one background.

    Attributes:
        hu: (n, STORED, STORED, STORED) float16, axes parallel to R, A, S.
        spacing_mm: (n,) of what the network is to see; the kept voxels are ``FINER``.
        is_nodule: (n,) bool.
    """

    hu: np.ndarray
    spacing_mm: np.ndarray
    is_nodule: np.ndarray

    @classmethod
    def kept(cls, file: Path, make: Iterator[tuple[DetectionScan, np.ndarray, float, bool]]) -> Crops:
        """Maps the crops of a file into memory; makes them from scan, center, diameter and truth if it is missing."""
        about = file.with_suffix(".npz")
        if not about.exists():
            rows = [(_finer_cube(scan, center, spacing), spacing, truth) for scan, center, spacing, truth in make]
            hu, spacing, truth = (np.array(column) for column in zip(*rows, strict=True))
            file.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(file) as part:
                np.save(part, hu)
            with whole_file(about) as part:
                np.savez(part, spacing_mm=spacing, is_nodule=truth)
        with np.load(about) as data:
            return cls(np.load(file, mmap_mode="r"), data["spacing_mm"], data["is_nodule"])


def collect(shared: Path, cache: Path, folder: Path, rounds: int) -> tuple[list[Crops], Crops]:
    """Collects crops of each training background and of synthetic chests; kept in ``folder``."""
    shapes = training_shapes(shared / "data")
    real = real_nodules(shared, "train")
    of_backgrounds = []
    for number, background in enumerate(training_backgrounds(shared / "data", cache)):
        scans = _scans_of(within_lungs(background), number, rounds, shapes, real)
        of_backgrounds.append(Crops.kept(folder / f"crops_{number}.npy", _samples(scans, number)))
    procedural = _samples((scan for seed in PROCEDURAL_SEEDS for scan in _made_of_nothing(seed, shapes)), _STREAM)
    return of_backgrounds, Crops.kept(folder / "crops_procedural.npy", procedural)


def real_scan(background: Background, crops: Sequence[RealCrop], rng: np.random.Generator) -> DetectionScan:
    """Puts real nodules into a lung that training may use; rare and hard ones more often."""
    weights = np.array([crop.weight for crop in crops])
    drawn = [crops[n] for n in rng.choice(len(crops), 8 * REAL_PER_SCAN, p=weights / weights.sum())]
    return with_real_nodules(bare_scan(background, "training"), background, drawn, rng, REAL_PER_SCAN)


def _scans_of(
    background: Background, number: int, rounds: int, shapes: NoduleShapes, real: Sequence[RealCrop]
) -> Iterator[tuple[DetectionScan, int]]:
    """Yields scans, with the number of their candidates to take as no nodules."""
    yield bare_scan(background, "training"), CANDIDATES
    for repeat in range(rounds):
        rng = np.random.default_rng([repeat, number, 71])
        yield painted_scan(background, "training", rng, SMALL_PER_SCAN, shapes, SMALL_MM), 0
        yield real_scan(background, real, rng), 0
        if repeat % 3 == 2:
            yield painted_scan(background, "training", rng, LARGE_PER_SCAN, shapes, LARGE_MM), 0


def _made_of_nothing(seed: int, shapes: NoduleShapes) -> Iterator[tuple[DetectionScan, int]]:
    yield phantom_scan(seed), CANDIDATES // 10
    yield procedural_scan(seed, shapes=shapes), 0


def _samples(
    scans: Iterator[tuple[DetectionScan, int]], seed: int
) -> Iterator[tuple[DetectionScan, np.ndarray, float, bool]]:
    rng = np.random.default_rng([seed, 72])
    for scan, others in scans:
        if others:
            lungs = find_lungs(scan.array_kji, scan.ijk_to_ras)
            for place in find_candidates(scan.array_kji, scan.ijk_to_ras, lungs, limit=others):
                if not scan.ignores(place.center_ras) and not _is_near(scan, place.center_ras, place.diameter_mm):
                    size = place.diameter_mm * np.exp(rng.normal(0.0, _FALSE_SPREAD))
                    yield scan, np.array(place.center_ras), float(classifier_spacing(size)), False
        for nodule in scan.nodules:
            size = nodule.diameter_mm * np.exp(rng.normal(0.0, _TRUE_SPREAD))
            center = np.array(nodule.center_ras) + rng.normal(0.0, _OFF_CENTER * nodule.diameter_mm, 3)
            yield scan, center, float(classifier_spacing(size)), True


def _is_near(scan: DetectionScan, center_ras: Sequence[float], diameter_mm: float) -> bool:
    return any(
        np.linalg.norm(np.subtract(center_ras, nodule.center_ras)) < nodule.diameter_mm / 2 + diameter_mm
        for nodule in scan.nodules
    )


def _finer_cube(scan: DetectionScan, center_ras: np.ndarray, spacing_mm: float) -> np.ndarray:
    cube = cube_around(scan.array_kji, scan.ijk_to_ras, center_ras, spacing_mm / FINER, STORED)
    return cube.astype(np.float16)


def views(hu: np.ndarray, rng: np.random.Generator | None = None) -> Tensor:
    """Makes the network's views (B, EDGE, EDGE, EDGE) float32 of kept crops (B, STORED, STORED, STORED).

    Args:
        hu: the crops.
        rng: turns (half of them by any angle, the others by right ones), mirrors, scales, shifts, blurs (in one
            direction too, as thick slices do), recalibrates and adds noise; None for the plain middle.
    """
    source = torch.from_numpy(np.asarray(hu, dtype=np.float32))[:, None]
    count = len(source)
    turn, scale, shift = np.broadcast_to(np.eye(3), (count, 3, 3)), np.ones(count), np.zeros((count, 3))
    if rng is not None:
        turn = np.stack([_turn(rng) for _ in range(count)])
        scale, shift = np.exp(rng.normal(0.0, 0.12, count)), rng.normal(0.0, 1.0, (count, 3))
    reach = FINER * scale * (EDGE - 1) / (STORED - 1)
    matrix = np.concatenate([turn * reach[:, None, None], shift[:, :, None] * 2 / (STORED - 1)], axis=2)
    grid = F.affine_grid(torch.from_numpy(matrix).float(), [count, 1, EDGE, EDGE, EDGE], align_corners=True)
    seen = F.grid_sample(source, grid, align_corners=True, padding_mode="border")
    if rng is not None:
        seen = _scanned(seen, rng)
    return seen[:, 0]


def _turn(rng: np.random.Generator) -> np.ndarray:
    """Draws a rotation, every other time one by right angles with mirror images."""
    if rng.random() < 0.5:
        return np.eye(3)[rng.permutation(3)] @ np.diag(rng.choice([-1.0, 1.0], 3))
    w, x, y, z = (axis := rng.normal(size=4)) / np.linalg.norm(axis)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _scanned(seen: Tensor, rng: np.random.Generator) -> Tensor:
    """Imitates differences between scanners: sharpness, slice thickness, calibration, noise."""
    count = len(seen)
    sigma = np.zeros((count, 3))
    soft, thick = rng.random(count) < 0.35, np.flatnonzero(rng.random(count) < 0.3)
    sigma[soft] = rng.uniform(0.2, 1.0, (int(soft.sum()), 1))
    sigma[thick, rng.integers(0, 3, len(thick))] += rng.uniform(0.3, 1.5, len(thick))
    blurred = torch.from_numpy(sigma.any(axis=1))
    if blurred.any():
        seen[blurred] = _blur(seen[blurred], torch.from_numpy(sigma[sigma.any(axis=1)]).float())

    def each(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).reshape(-1, 1, 1, 1, 1)

    noise = torch.from_numpy(rng.standard_normal(seen.shape, dtype=np.float32))
    strength = each(rng.uniform(0.0, 35.0, count) * (rng.random(count) < 0.5))
    return seen * each(rng.normal(1.0, 0.03, count)) + each(rng.normal(0.0, 15.0, count)) + strength * noise


def _blur(seen: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian smoothing of (B, 1, X, Y, Z) by (B, 3) voxels."""
    taps = torch.arange(-3.0, 4.0)
    for axis in range(3):
        kernel = torch.exp(-0.5 * (taps / sigma[:, axis : axis + 1].clamp(min=0.05)) ** 2)
        shape, padding = [len(seen), 1, 1, 1, 1], [0] * 6
        shape[2 + axis] = len(taps)
        padding[4 - 2 * axis] = padding[5 - 2 * axis] = 3
        padded = F.pad(seen.transpose(0, 1), padding, mode="replicate")
        kernel = (kernel / kernel.sum(dim=1, keepdim=True)).reshape(shape)
        seen = F.conv3d(padded, kernel, groups=len(seen)).transpose(0, 1)
    return seen
