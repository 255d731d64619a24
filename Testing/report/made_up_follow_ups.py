"""Two made-up scans of one chest, and the truth about them: breath, shift, noise, kernel, thickness, grown nodules.

The prior is a chest with nodules painted into it. The current scan samples the same chest at other places (a smooth
map), on another grid, and has the same nodules, each scaled by a known factor, some removed and some added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SAMMed3DLib.inference.geometry import extent_ras, transform_points, world_to_ijk
from SAMMed3DLib.synthesis.nodules import Kind, NoduleAppearance, correlated_noise, paint_nodule, random_appearance
from SAMMed3DLib.synthesis.shapes import NoduleShape, NoduleShapes

#: Kinds and how often they are drawn.
KINDS: tuple[Kind, ...] = ("solid", "ground-glass", "part-solid")
SHARES = (0.6, 0.25, 0.15)
#: Factors of volume that are drawn; half of all nodules stay as they are.
FACTORS = (0.5, 0.7, 1.3, 1.6, 2.0, 3.0)


@dataclass(frozen=True, eq=False)
class MadeScan:
    """One scan: HU (K, J, I) int16, its matrix, the label map of the nodules' outlines, slice distance in mm."""

    array_kji: NDArray
    ijk_to_ras: NDArray
    labels_kji: NDArray
    slice_mm: float


@dataclass(frozen=True)
class TrueNodule:
    """What is known of one nodule: its label in both scans, where it lies (None where it is not), its growth."""

    label: int
    kind: Kind
    diameter_mm: float
    prior_ras: NDArray | None
    current_ras: NDArray | None
    factor: float


@dataclass(frozen=True, eq=False)
class MadeUpFollowUp:
    """The two scans, the nodules, and the true place in the current scan of a place in the prior."""

    current: MadeScan
    prior: MadeScan
    nodules: tuple[TrueNodule, ...]
    to_current: Callable[[NDArray], NDArray]


def made_up_follow_up(
    base_kji: NDArray,
    ijk_to_ras: NDArray,
    seed: int,
    *,
    count: int = 8,
    spacing_kji: Sequence[float] | None = None,
    breath_mm: float | None = None,
    shift_mm: float = 40.0,
    factors: Sequence[float] = FACTORS,
) -> MadeUpFollowUp:
    """Makes both scans from one chest.

    Args:
        base_kji: (K, J, I) HU, axes along R, A, S (either way).
        ijk_to_ras: (4, 4).
        seed: the same seed makes the same scans.
        count: nodules in all; a sixth of them is removed and a sixth added.
        spacing_kji: of the current scan; None draws the slice distance and keeps the plane.
        breath_mm: how far the diaphragm moves; None draws it.
        shift_mm: the most the patient lies elsewhere, along each axis.
        factors: of volume, for the half of the nodules that changed.
    """
    rng = np.random.default_rng(seed)
    motion = _Motion(rng, base_kji, ijk_to_ras, breath_mm, shift_mm)
    prior = np.array(base_kji, dtype=np.float32)
    grid = _grid(rng, base_kji.shape, ijk_to_ras, motion, spacing_kji)
    current = _sampled(prior, ijk_to_ras, grid, motion)
    labels = [np.zeros(each.shape, np.uint8) for each in (current, prior)]
    shapes = NoduleShapes.load()
    truths = []
    places = _places(rng, base_kji, ijk_to_ras, count, motion, grid)
    for label, place in enumerate(places, start=1):
        kind = KINDS[rng.choice(3, p=SHARES)]
        diameter = float(np.exp(rng.uniform(np.log(5.0), np.log(16.0))))
        shape = shapes.random(rng, diameter)
        look = random_appearance(rng, kind, diameter)
        factor = 1.0 if rng.random() < 0.5 else float(rng.choice(list(factors)))
        there = motion.to_current(place)
        course = label % 6
        in_prior, in_current = course != 5, course != 4  # of six one is added and one removed
        if in_prior:
            _paint(prior, labels[1], ijk_to_ras, shape, place, look, rng, label)
        if in_current:
            _paint(current, labels[0], grid[1], shape.scaled(factor ** (1.0 / 3.0)), there, look, rng, label)
        truths.append(
            TrueNodule(label, kind, diameter, place if in_prior else None, there if in_current else None, factor)
        )
    scans = [
        MadeScan(_as_scanned(rng, array, matrix), matrix, mask, float(np.linalg.norm(matrix[:3, 2])))
        for array, matrix, mask in ((current, grid[1], labels[0]), (prior, np.array(ijk_to_ras), labels[1]))
    ]
    return MadeUpFollowUp(scans[0], scans[1], tuple(truths), motion.to_current)


class _Motion:
    """Where a place of the current scan lies in the prior: turned and shifted, stretched by the breath, and bent."""

    def __init__(
        self, rng: np.random.Generator, base: NDArray, matrix: NDArray, breath: float | None, shift: float
    ) -> None:
        low, high = extent_ras((base.shape[0], base.shape[1], base.shape[2]), matrix)
        self.top, self.height = high[2], high[2] - low[2]
        self.middle = (low + high) / 2.0
        self.breath = float(rng.uniform(-20.0, 20.0)) if breath is None else breath
        self.shift = rng.uniform(-shift, shift, 3)
        angle = np.deg2rad(rng.uniform(-4.0, 4.0, 3))
        self.turn = np.eye(3)
        for axis, each in enumerate(angle):
            a, b = [other for other in range(3) if other != axis]
            step = np.eye(3)
            step[[a, a, b, b], [a, b, a, b]] = np.cos(each), -np.sin(each), np.sin(each), np.cos(each)
            self.turn = self.turn @ step
        self.phase = rng.uniform(0.0, 2.0 * np.pi, (3, 3))
        self.length = rng.uniform(110.0, 170.0, (3, 3))

    def to_prior(self, ras: NDArray) -> NDArray:
        """Places (..., 3) of the current scan as places of the prior."""
        still = (np.asarray(ras, dtype=np.float64) - self.shift - self.middle) @ self.turn.T + self.middle
        depth = np.clip((self.top - still[..., 2]) / self.height, 0.0, 1.2)
        moved = still.copy()
        moved[..., 2] += self.breath * depth
        moved[..., 1] += 0.0015 * self.breath * depth * (still[..., 1] - self.middle[1])
        for axis in range(3):
            wave = sum(
                np.sin(still[..., other] * 2.0 * np.pi / self.length[axis, other] + self.phase[axis, other])
                for other in range(3)
            )
            moved[..., axis] += 0.7 * wave
        return moved

    def to_current(self, ras: NDArray) -> NDArray:
        """The other way round, by fixed-point steps."""
        wanted = np.asarray(ras, dtype=np.float64)
        guess = (wanted - self.middle) @ self.turn + self.middle + self.shift
        for _ in range(60):
            guess = guess + (wanted - self.to_prior(guess)) @ self.turn
        return guess


def _grid(
    rng: np.random.Generator, shape: tuple[int, ...], matrix: NDArray, motion: _Motion, spacing: Sequence[float] | None
) -> tuple[tuple[int, int, int], NDArray]:
    """Shape and matrix of the current scan: it shows what the prior shows."""
    old = np.linalg.norm(matrix[:3, :3], axis=0)[::-1]
    new = np.array(spacing) if spacing is not None else np.array([rng.choice([1.0, 1.25, 2.0, 2.5]), old[1], old[2]])
    counts = np.maximum(np.round(np.array(shape) * old / new).astype(int), 1)
    out = np.array(matrix, dtype=np.float64)
    out[:3, :3] = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) * new[::-1]
    middle = transform_points(matrix, (np.array(shape)[::-1] - 1) / 2.0)
    out[:3, 3] = motion.to_current(middle) - out[:3, :3] @ ((counts[::-1] - 1) / 2.0)
    return (int(counts[0]), int(counts[1]), int(counts[2])), out


def _sampled(
    base: NDArray, matrix: NDArray, grid: tuple[tuple[int, int, int], NDArray], motion: _Motion
) -> NDArray[np.float32]:
    """The chest as it lies in the current scan; thick slices average."""
    shape, affine = grid
    old, new = (np.linalg.norm(each[:3, 2]) for each in (matrix, affine))
    source = ndimage.uniform_filter1d(base, max(1, round(new / old)), axis=0) if new > 1.4 * old else base
    out = np.empty(shape, np.float32)
    j, i = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    for k in range(shape[0]):
        ras = transform_points(affine, np.stack([i, j, np.full_like(i, k)], axis=-1))
        index = np.moveaxis(world_to_ijk(matrix, motion.to_prior(ras))[..., ::-1], -1, 0)
        out[k] = ndimage.map_coordinates(source, index, order=1, mode="nearest", output=np.float32)
    return out


def _places(
    rng: np.random.Generator,
    base: NDArray,
    matrix: NDArray,
    count: int,
    motion: _Motion,
    grid: tuple[tuple[int, int, int], NDArray],
) -> list[NDArray]:
    """Places in the lungs of the prior, away from walls and from each other, that the current scan shows too."""
    step = np.maximum(np.round(3.0 / np.linalg.norm(matrix[:3, :3], axis=0)[::-1]).astype(int), 1)
    small = ndimage.uniform_filter(base.astype(np.float32), tuple(step))[tuple(slice(None, None, s) for s in step)]
    lung = (small < -700.0) & (small > -980.0)
    labels, number = ndimage.label(ndimage.binary_erosion(lung, iterations=2))
    sizes = np.bincount(labels.ravel(), minlength=number + 1)
    sizes[np.unique(np.concatenate([labels[:, 0].ravel(), labels[:, -1].ravel()]))] = 0  # the air around the patient
    inside = (sizes[labels] > 2000) & (labels > 0)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)[::-1] * step
    depth = ndimage.distance_transform_edt(inside, sampling=spacing)
    candidates = np.argwhere(depth > 4.0)
    low, high = extent_ras(grid[0], grid[1])
    found: list[NDArray] = []
    for index in rng.permutation(len(candidates)):
        place = transform_points(matrix, (candidates[index] * step)[::-1])
        there = motion.to_current(place)
        if (
            np.all(there > low + 20.0)
            and np.all(there < high - 20.0)
            and all(np.linalg.norm(place - other) > 30.0 for other in found)
        ):
            found.append(place)
            if len(found) == count:
                return found
    raise ValueError(f"there is no room for {count} nodules in this chest")


def _paint(
    block: NDArray,
    labels: NDArray,
    matrix: NDArray,
    shape: NoduleShape,
    place: NDArray,
    look: NoduleAppearance,
    rng: np.random.Generator,
    label: int,
) -> None:
    """Paints a nodule into the part of a scan that it needs."""
    reach = shape.radius_mm + 8.0
    center = np.rint(world_to_ijk(matrix, place))[::-1].astype(int)
    steps = np.ceil(reach / np.linalg.norm(matrix[:3, :3], axis=0)[::-1]).astype(int)
    low, high = np.maximum(center - steps, 0), np.minimum(center + steps + 1, block.shape)
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    moved = np.array(matrix, dtype=np.float64)
    moved[:3, 3] = transform_points(matrix, low[::-1])
    hu = block[part].copy()
    labels[part][paint_nodule(hu, moved, shape, place, look, rng)] = label
    block[part] = hu


def _as_scanned(rng: np.random.Generator, array: NDArray, matrix: NDArray) -> NDArray[np.int16]:
    """With the kernel and the noise of a scanner of its own."""
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)[::-1]
    soft = ndimage.gaussian_filter(array, np.array([0.0, 0.45, 0.45]) / spacing)
    kernel = rng.uniform(-0.5, 1.0)  # below 0 a sharp kernel, above 0 a smooth one
    out = array + kernel * (soft - array)
    out += rng.uniform(6.0, 22.0) * correlated_noise(rng, array.shape, spacing, 1.2)
    return np.clip(np.rint(out), -1024, 3071).astype(np.int16)
