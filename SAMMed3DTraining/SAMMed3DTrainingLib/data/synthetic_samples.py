"""Endless training samples: a real nodule shape painted into a lung, cropped as inference would crop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from SAMMed3DLib.inference.geometry import transform_points, voxel_spacing
from SAMMed3DLib.inference.preprocessing import Crop, crop_at, prepare_crop, sample_volume
from SAMMed3DLib.model.profile import PreprocessingProfile
from SAMMed3DLib.synthesis import NoduleShape, NoduleShapes, paint_nodule, random_appearance
from SAMMed3DLib.synthesis.nodules import correlated_noise, nodule_outline
from SAMMed3DLib.synthesis.procedural import procedural_block

from .nodule_samples import Sample, flipped

DIAMETERS_MM = (3.0, 32.0)
MASSES_MM = (30.0, 100.0)
MASS_SHARE = 0.1
"""Of the samples with a nodule."""
GLASS_MM = (12.0, 32.0)
GLASS_SHARE = 0.2
"""Share of large ground glass, which real data hardly have, in the samples with a nodule."""
EMPTY_SHARE = 0.15
"""Share of clicks on something that is no nodule; they teach the IoU head what a bad mask is."""
_FEWEST_VOXELS = 6
_LEAST_CONTRAST_HU = 70.0


@dataclass
class ScanPiece:
    """A piece of a scan: float32 HU [k, j, i], its matrix and its lung."""

    hu: np.ndarray
    ijk_to_ras: np.ndarray
    lung: np.ndarray


Place = Callable[[np.ndarray, np.ndarray], tuple[ScanPiece, np.ndarray] | None]
"""Cuts a piece of a scan for a nodule and its center in it, from the crop's middle relative to that center and half
the crop's width (mm); None where the place has no room."""


class SampleSynthesizer:
    """Draws samples of nodules in procedural lungs.

    Args:
        shapes: of the nodules.
        profile: how a crop is prepared.
        rng: source of all randomness.
    """

    def __init__(self, shapes: NoduleShapes, profile: PreprocessingProfile, rng: np.random.Generator) -> None:
        self._shapes = shapes
        self._profile = profile
        self._rng = rng

    def sample(self) -> Sample:
        """The next sample; draws again where nothing of the nodule is left in the lung."""
        while True:
            sample = self._try()
            if sample is not None:
                return sample

    def _try(self) -> Sample | None:
        rng, profile = self._rng, self._profile
        empty = rng.random() < EMPTY_SHARE
        draw = 1.0 if empty else rng.random()
        mass, glass = draw < MASS_SHARE, MASS_SHARE <= draw < MASS_SHARE + GLASS_SHARE
        limits_mm = MASSES_MM if mass else GLASS_MM if glass else DIAMETERS_MM
        diameter = float(np.exp(rng.uniform(*np.log(limits_mm))))
        diameter, place = self._place(diameter, empty, mass)
        shape = self._shapes.random(rng, diameter)
        spacing, offset, click = self._view(shape)
        half = 0.5 * spacing * np.array(profile.crop_size)
        placed = place(offset, half)
        if placed is None:
            return None
        block, center = placed
        kind = "none"
        if not empty:
            look = random_appearance(rng, "ground-glass" if glass else None, diameter)
            kind = look.kind
            before = block.hu.copy()
            label = paint_nodule(block.hu, block.ijk_to_ras, shape, center, look, rng, block.lung)
            if not label.any() or (block.hu - before)[label].mean() < _LEAST_CONTRAST_HU:
                return None
            if rng.random() < 0.1:
                self._paint_neighbor(block, shape, center)
        self._scan(block)

        crop = crop_at(center + offset, spacing, profile, block.ijk_to_ras)
        truth = np.zeros(profile.crop_size, bool)
        if not empty:
            lung = sample_volume(block.lung.astype(np.float32), block.ijk_to_ras, crop, 0.0) > 0.5
            truth = _on_crop(shape, center, crop) & lung
            if truth.sum() < _FEWEST_VOXELS:
                return None
        index = crop.index_of(center + click)
        inside = tuple(np.clip(np.floor(index + 0.5), 0, np.array(truth.shape) - 1).astype(int))
        if not empty and not truth[inside]:
            index = _click_in(truth, rng)
        second = None if empty else _click_in(truth, rng)
        image = prepare_crop(block.hu, block.ijk_to_ras, crop, profile)
        return flipped(
            Sample(image, truth, np.asarray(index, np.float32), spacing, kind, diameter, second_click=second), rng
        )

    def _view(self, shape: NoduleShape) -> tuple[float, np.ndarray, np.ndarray]:
        """Spacing, the crop's center and the first click relative to the nodule's center, as inference has them.

        Half are first looks (the profile's first spacing, centered on the click), half are zoomed in or out with the
        nodule near the middle.
        """
        rng, profile = self._rng, self._profile
        depth = rng.choice([0.85, 0.5, 0.1, 0.0], p=[0.25, 0.35, 0.15, 0.25])
        click = shape.interior_point(rng, depth) if depth else shape.border_point(rng, 1 / 3)
        low, high = profile.spacing_range_mm
        if rng.random() < 0.45:
            return float(profile.spacing_mm * np.exp(rng.normal(0, 0.08))), click, click
        wanted = shape.diameter_mm / profile.target_voxels * np.exp(rng.normal(0, 0.3))
        spacing = float(np.clip(wanted, low, high))
        offset = click if rng.random() < 0.35 else rng.normal(0, 3 * spacing, 3)
        return spacing, offset, click

    def _place(self, diameter_mm: float, empty: bool, mass: bool) -> tuple[float, Place]:
        """Where the next sample lies, and the diameter that fits there."""
        return diameter_mm, self._procedural

    def _procedural(self, offset: np.ndarray, half: np.ndarray) -> tuple[ScanPiece, np.ndarray]:
        rng = self._rng
        in_plane = rng.uniform(0.55, 0.9)
        spacing = np.array([in_plane, in_plane, float(np.exp(rng.uniform(np.log(0.6), np.log(3.0))))])
        shape_ijk = np.ceil(2 * half / spacing).astype(int) + 6
        hu, lung = procedural_block(rng, tuple(shape_ijk[::-1]), tuple(spacing[::-1]))
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = -spacing * (shape_ijk - 1) / 2 + rng.uniform(-0.5, 0.5, 3) * spacing
        # Slide towards the lung where the middle of the block is wall.
        inside = np.argwhere(lung)
        if len(inside):
            goal = transform_points(affine, inside[rng.integers(len(inside))][::-1])
            middle_is_lung = lung[tuple(n // 2 for n in lung.shape)]
            center = -offset if middle_is_lung else np.clip(goal, -0.4 * half, 0.4 * half)
        else:
            center = -offset
        return ScanPiece(hu.astype(np.float32), affine, lung), center

    def _paint_neighbor(self, block: ScanPiece, shape: NoduleShape, center: np.ndarray) -> None:
        """A second nodule near the first that the click does not mean."""
        rng = self._rng
        diameter = float(np.exp(rng.uniform(np.log(3), np.log(20))))
        other = self._shapes.random(rng, diameter)
        direction = rng.standard_normal(3)
        apart = shape.radius_mm + other.radius_mm + rng.uniform(0, 15)
        paint_nodule(
            block.hu,
            block.ijk_to_ras,
            other,
            center + direction / np.linalg.norm(direction) * apart,
            random_appearance(rng),
            rng,
            block.lung,
        )

    def _scan(self, block: ScanPiece) -> None:
        """Imitates differences between scanners: kernel, noise, calibration."""
        rng = self._rng
        spacing = voxel_spacing(block.ijk_to_ras)[::-1]
        draw = rng.random()
        if draw < 0.25:
            block.hu = _smooth(block.hu, rng.uniform(0.3, 0.9) / spacing)
        elif draw < 0.4:
            block.hu += rng.uniform(0.3, 1.2) * (block.hu - _smooth(block.hu, 0.8 / spacing))
        if rng.random() < 0.5:
            block.hu += rng.uniform(3, 45) * correlated_noise(rng, block.hu.shape, spacing, rng.uniform(0.6, 1.5))
        block.hu *= rng.uniform(0.97, 1.03)
        block.hu += rng.normal(0, 12)


def _smooth(hu: np.ndarray, sigma_kji: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(hu, sigma_kji, truncate=3)


def _on_crop(shape: NoduleShape, center_ras: np.ndarray, crop: Crop) -> np.ndarray:
    """The nodule's outline on a crop, bool (d0, d1, d2)."""
    return nodule_outline(crop.shape[::-1], crop.crop_to_ras, shape, center_ras).transpose(2, 1, 0)


def _click_in(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    inside = np.argwhere(truth)
    return inside[rng.integers(len(inside))].astype(np.float32)
