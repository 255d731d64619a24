"""Painting a nodule into a CT the way a scanner would show it.

The nodule is put into the scan's own voxels (not into a resampled crop): partial volume comes from averaging over each
voxel, blur from the edge width, and what lies underneath (vessels, pleura) stays visible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from .shapes import NoduleShape

Kind = Literal["solid", "part-solid", "ground-glass"]
_KINDS: tuple[Kind, ...] = ("solid", "ground-glass", "part-solid")
LUNG_HU = -860.0


@dataclass(frozen=True)
class NoduleAppearance:
    """The appearance of a nodule.

    Attributes:
        kind: solid, part-solid or ground-glass.
        density_hu: mean density of the nodule, of its ground-glass part where there is one.
        core_hu: density of the solid core of a part-solid nodule.
        core_depth: how deep the core begins, in diameters.
        edge_mm: width of the blurred edge.
        edge_inset_mm: how far the half-density surface lies inside the outline. In a lung window the eye puts the
            edge near half density; outlines vary around that, a little to the generous side.
        texture_hu, texture_mm: standard deviation and correlation length of the inner texture.
        noise_hu, noise_mm: the same for the scanner noise that the painted density lacks.
    """

    kind: Kind
    density_hu: float
    core_hu: float
    core_depth: float
    edge_mm: float
    edge_inset_mm: float
    texture_hu: float
    texture_mm: float
    noise_hu: float
    noise_mm: float


def random_appearance(rng: np.random.Generator, kind: Kind | None = None, diameter_mm: float = 8.0) -> NoduleAppearance:
    """A random look.

    Without a ``kind`` one is drawn: 62 % solid, 22 % ground-glass and 16 % part-solid, and of nodules over 12 mm 45 %,
    35 % and 20 %. Ground glass is drawn faint more often than dense: it is the faint one that is hard to see.
    """
    if kind is None:
        shares = (0.45, 0.35, 0.2) if diameter_mm > 12 else (0.62, 0.22, 0.16)
        kind = _KINDS[rng.choice(3, p=shares)]
    solid = kind == "solid"
    # A few calcified and a few faint solid nodules.
    density = rng.uniform(-150, 120) if rng.random() < 0.92 else rng.uniform(120, 600)
    return NoduleAppearance(
        kind=kind,
        density_hu=float(density if solid else -770 + 390 * rng.random() ** 1.5),
        core_hu=float(rng.uniform(-150, 100)),
        core_depth=float(rng.uniform(0.12, 0.38)),
        edge_mm=float(rng.uniform(0.4, 1.2) if solid else rng.uniform(0.6, 2.6)),
        edge_inset_mm=float(rng.uniform(-0.25, 0.4)),
        texture_hu=float(rng.uniform(0, 50) if solid else rng.uniform(15, 120)),
        texture_mm=float(rng.uniform(1.5, 4) if solid else rng.uniform(1.5, 6)),
        noise_hu=float(rng.uniform(8, 40)),
        noise_mm=float(rng.uniform(0.7, 1.5)),
    )


def correlated_noise(
    rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: np.ndarray, length_mm: float
) -> np.ndarray:
    """Gaussian noise of unit standard deviation, smoothed over ``length_mm``; float32, array axis order."""
    sigma = 0.5 * length_mm / np.asarray(spacing_mm)
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, truncate=2.5)
    return noise / max(float(noise.std()), 1e-6)


def paint_nodule(
    block: np.ndarray,
    ijk_to_ras: np.ndarray,
    shape: NoduleShape,
    center_ras: np.ndarray,
    appearance: NoduleAppearance,
    rng: np.random.Generator,
    lung: np.ndarray | None = None,
) -> np.ndarray:
    """Paint a nodule into a block of a CT, in place.

    Args:
        block: float32 HU [k, j, i].
        ijk_to_ras: (4, 4) of the block's own indices.
        center_ras: (3,) RAS mm.
        lung: bool [k, j, i]; where given, the nodule ends where the lung field ends, as a reader's outline does.

    Returns:
        Mask of the nodule, bool [k, j, i] of the block's shape: voxel centers inside the outline.
    """
    label = nodule_outline(block.shape, ijk_to_ras, shape, center_ras)
    if lung is not None:
        label &= lung
    window = _window(block.shape, ijk_to_ras, center_ras, shape.radius_mm + 2 * appearance.edge_mm)
    if window is None:
        return label
    region = block[window]
    spacing_ijk = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    points = _voxel_centers(window, ijk_to_ras) - np.asarray(center_ras)

    # Partial volume: the mean over the voxel, sampled no coarser than 0.7 mm.
    cover = np.zeros(region.shape, np.float32)
    core = np.zeros(region.shape, np.float32)
    depth = appearance.core_depth * shape.diameter_mm
    counts = np.clip(np.ceil(spacing_ijk / 0.7), 1, 5).astype(int)
    shifts = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n - 0.5 for n in counts], indexing="ij"), -1).reshape(-1, 3)
    for shift in shifts:
        distance = shape.distance(points + ijk_to_ras[:3, :3] @ shift) - appearance.edge_inset_mm
        cover += _edge(distance, appearance.edge_mm)
        if appearance.kind == "part-solid":
            core += _edge(distance - depth, 1.5 * appearance.edge_mm)
    cover /= len(shifts)
    core /= len(shifts)

    spacing_kji = spacing_ijk[::-1]
    density = appearance.density_hu + appearance.texture_hu * correlated_noise(
        rng, region.shape, spacing_kji, appearance.texture_mm
    )
    if appearance.kind != "solid":
        # Ground glass adds tissue to what is there: vessels stay brighter than their surroundings.
        hazy = np.minimum(region + cover * (density - LUNG_HU), np.maximum(region, 60))
        painted = (
            hazy
            if appearance.kind == "ground-glass"
            else np.maximum(hazy, hazy * (1 - core) + core * (appearance.core_hu + density - appearance.density_hu))
        )
    else:
        noise = appearance.noise_hu * correlated_noise(rng, region.shape, spacing_kji, appearance.noise_mm)
        painted = np.maximum(region, region * (1 - cover) + cover * (density + noise))
    region[...] = painted
    return label


def nodule_outline(
    shape_kji: tuple[int, ...], ijk_to_ras: np.ndarray, shape: NoduleShape, center_ras: np.ndarray
) -> np.ndarray:
    """Voxel centers inside a nodule on any grid, bool [k, j, i] of ``shape_kji``."""
    label = np.zeros(shape_kji, bool)
    window = _window(shape_kji, ijk_to_ras, center_ras, shape.radius_mm)
    if window is not None:
        label[window] = shape.distance(_voxel_centers(window, ijk_to_ras) - np.asarray(center_ras)) > 0
    return label


def _edge(distance: np.ndarray, width: float) -> np.ndarray:
    return 1 / (1 + np.exp(np.clip(-4 * distance / width, -30, 30)))


def _window(
    shape: tuple[int, ...], ijk_to_ras: np.ndarray, center_ras: np.ndarray, radius_mm: float
) -> tuple[slice, ...] | None:
    """Slices [k, j, i] of the voxels within ``radius_mm`` of a point; None where there are none."""
    inverse = np.linalg.inv(ijk_to_ras)
    center = inverse[:3, :3] @ np.asarray(center_ras) + inverse[:3, 3]
    reach = radius_mm * np.linalg.norm(inverse[:3, :3], axis=1)
    low = np.maximum(np.floor(center - reach), 0).astype(int)[::-1]
    high = np.minimum(np.ceil(center + reach) + 1, shape[::-1]).astype(int)[::-1]
    if (low >= high).any():
        return None
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))


def _voxel_centers(window: tuple[slice, ...], ijk_to_ras: np.ndarray) -> np.ndarray:
    """RAS positions of the voxels of a window [k, j, i]: (..., 3)."""
    k, j, i = np.meshgrid(*[np.arange(s.start, s.stop) for s in window], indexing="ij")
    return np.stack((i, j, k), axis=-1) @ ijk_to_ras[:3, :3].T + ijk_to_ras[:3, 3]
