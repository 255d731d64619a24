"""A random synthetic piece of lung, cheap enough to make one for every training sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .anatomy import Tubes, blend, grow_tree, layered_tissue, paint_tubes, smooth_field, soft_edge, unit


def procedural_block(
    rng: np.random.Generator, shape_kji: Sequence[int], spacing_kji: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Parenchyma with vessels and bronchi, and sometimes a wall, a fissure, emphysema or haze; never a nodule.

    Args:
        rng: where all randomness comes from.
        shape_kji: voxels of the block along [k, j, i].
        spacing_kji: voxel size along [k, j, i] in mm.

    Returns:
        (hu, lung): float32 [k, j, i] in HU with the scanner's blur and noise, and bool [k, j, i], True in the lung
        with its vessels, False in the chest wall, the mediastinum or below the diaphragm.
    """
    shape, spacing = tuple(int(count) for count in shape_kji), np.asarray(spacing_kji, dtype=float)
    sigma = float(np.hypot(rng.uniform(0.25, 0.6), 0.3 * spacing.max()))
    wall = _Wall(rng, shape, spacing) if rng.random() < 0.5 else None
    air = rng.uniform(-920, -760)
    hu = smooth_field(rng, shape, spacing, rng.uniform(3, 6))
    hu *= np.float32(rng.uniform(4, 25))
    hu += np.float32(air)
    # The lung is denser where it hangs: up to 0.8 HU per mm along gravity.
    k, j, i = _grid(shape, spacing)
    pull = rng.normal(size=3) * rng.uniform(0, 0.5)
    hu += (k * np.float32(pull[0]) + j * np.float32(pull[1])) + i * np.float32(pull[2])
    if rng.random() < 0.12:
        patches = soft_edge(smooth_field(rng, shape, spacing, rng.uniform(4, 12)) - 1, 0.4)
        blend(hu, patches * np.float32(rng.uniform(0.3, 1)), -985.0 if rng.random() < 0.5 else air + 200)
    if rng.random() < 0.25:
        _paint_fissure(rng, hu, spacing, sigma)
    _paint_vessels(rng, hu, spacing, sigma, wall)
    lung = np.ones(shape, dtype=bool) if wall is None else wall.depth < 0
    if wall is not None:
        wall.paint(rng, hu, spacing, sigma, air)
    hu += smooth_field(rng, shape, spacing, rng.uniform(0.6, 1.3)) * np.float32(np.exp(rng.uniform(1.6, 4.0)))
    return np.maximum(hu, -1024, out=hu), lung


class _Wall:
    """Draws the lung's end: inside a chest wall (concave, with ribs) or against mediastinum or diaphragm (convex)."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...], spacing: np.ndarray) -> None:
        extent = np.asarray(shape) * spacing
        self.is_chest = rng.random() < 0.6
        self.outward = unit(rng.normal(size=3))
        self.radius = rng.uniform(45, 150) if self.is_chest else rng.uniform(25, 90)
        side = -1 if self.is_chest else 1
        on_wall = extent / 2 + self.outward * rng.uniform(0.0, 0.45) * extent.min()
        self.center = on_wall + self.outward * (side * self.radius)
        k, j, i = (axis - np.float32(origin) for axis, origin in zip(_grid(shape, spacing), self.center, strict=True))
        distance = np.sqrt(k * k + j * j + i * i)
        # mm outside of the lung, negative inside
        self.depth = np.float32(side) * (np.float32(self.radius) - distance)
        self.depth += smooth_field(rng, shape, spacing, rng.uniform(8, 25)) * np.float32(rng.uniform(0, 1.5))

    def paint(self, rng: np.random.Generator, hu: np.ndarray, spacing: np.ndarray, sigma: float, air: float) -> None:
        """Paints the tissues beyond the lung over ``hu`` in place."""
        muscle, fat = rng.uniform(20, 70), rng.uniform(-115, -80)
        bounds = np.cumsum(rng.uniform((0.6, 0.5, 8), (2.5, 5, 25)))
        layers = [(0.0, air), (0.0, muscle)]
        if self.is_chest:
            layers += [(bounds[0], fat), (bounds[1], muscle), (bounds[2], fat)]
        else:
            inner = rng.uniform(110, 300) if rng.random() < 0.3 else rng.uniform(20, 80)
            layers += [(0.4, fat if rng.random() < 0.6 else muscle), (bounds[rng.integers(3)], inner)]
        tissue = layered_tissue(self.depth, layers, sigma)
        hu += soft_edge(self.depth, sigma) * (tissue - hu)
        if self.is_chest:
            self._paint_ribs(rng, hu, spacing, sigma)

    def _paint_ribs(self, rng: np.random.Generator, hu: np.ndarray, spacing: np.ndarray, sigma: float) -> None:
        along = unit(np.cross(self.outward, rng.normal(size=3)))
        across = np.cross(self.outward, along)
        reach = float(np.linalg.norm(np.asarray(hu.shape) * spacing)) / self.radius
        angles = np.arange(-reach / 2, reach / 2, 4.0 / self.radius)[:, None]
        gap, first = rng.uniform(18, 32), rng.uniform(-20, 20)
        cortex, marrow = rng.uniform(450, 900), rng.uniform(80, 350)
        for position in (first - gap, first, first + gap):
            radius = rng.uniform(3.5, 6.0)
            tilt = position / self.radius
            arc = np.cos(angles) * (self.outward * np.cos(tilt) + across * np.sin(tilt)) + np.sin(angles) * along
            course = self.center + arc * (self.radius + radius + rng.uniform(1.0, 3.0))
            rib = Tubes(course[:-1], course[1:], np.full(len(course) - 1, radius))
            paint_tubes(hu, rib, spacing, sigma, cortex)
            paint_tubes(hu, rib.resized(extra_mm=-rng.uniform(0.8, 1.6)), spacing, sigma, marrow)


def _paint_fissure(rng: np.random.Generator, hu: np.ndarray, spacing: np.ndarray, sigma: float) -> None:
    k, j, i = _grid(hu.shape, spacing)
    normal = unit(rng.normal(size=3)).astype(np.float32)
    extent = np.asarray(hu.shape) * spacing
    middle = float(normal @ (extent / 2)) + rng.uniform(-0.35, 0.35) * extent.min()
    sheet = (k * normal[0] + j * normal[1]) + (i * normal[2] - np.float32(middle))
    sheet += smooth_field(rng, hu.shape, spacing, 15.0) * np.float32(rng.uniform(0.5, 2.5))
    # A layer of half a millimetre of tissue, spread by the point spread.
    occupancy = np.exp(-0.5 * (sheet / sigma) ** 2) * np.float32(rng.uniform(0.2, 0.6) / (2.5 * sigma))
    blend(hu, np.minimum(occupancy, 1, out=occupancy), 0.0)


def _paint_vessels(
    rng: np.random.Generator, hu: np.ndarray, spacing: np.ndarray, sigma: float, wall: _Wall | None
) -> None:
    extent = np.asarray(hu.shape) * spacing

    def inside(points: np.ndarray) -> np.ndarray:
        within = np.all((points > -4) & (points < extent + 4), axis=1)
        if wall is not None:
            index = np.clip((points / spacing).astype(int), 0, np.asarray(hu.shape) - 1)
            within &= wall.depth[tuple(index.T)] < -0.5
        return within

    # Trunks come in through the faces, twigs are everywhere; most of them run the same way, away from the hilum.
    k, j, i = extent
    count = 1 + rng.poisson((k * j + j * i + i * k) / 350 * rng.uniform(0.3, 1.5))
    starts = rng.uniform(-2, extent + 2, (count, 3))
    face = rng.integers(3, size=count)
    starts[np.arange(count), face] = np.where(rng.random(count) < 0.5, -2.0, extent[face] + 2.0)
    headings = rng.uniform(0.2 * extent, 0.8 * extent, (count, 3)) - starts
    radii = np.exp(rng.uniform(np.log(0.5), np.log(rng.choice((1.2, 2.0, 3.5))), count))
    twigs = rng.poisson(np.prod(extent) / 12**3 * rng.uniform(0.3, 1.5))
    away = unit(rng.normal(size=3)) * rng.uniform(0, 1)
    tree = grow_tree(
        rng,
        np.concatenate((starts, rng.uniform(0, extent, (twigs, 3)))),
        np.concatenate((headings, rng.normal(size=(twigs, 3)) + 2 * away)),
        np.concatenate((radii, rng.uniform(0.3, 0.55, twigs))),
        inside,
        minimum_radius=rng.uniform(0.25, 0.4),
        maximum_segments=400,
        pull=lambda tips: np.broadcast_to(away, tips.shape),
    )
    blood = rng.uniform(120, 350) if rng.random() < 0.25 else rng.uniform(20, 70)
    thick = tree.select(tree.radii > 1.1)
    if len(thick.radii) and rng.random() < 0.5:
        # A bronchus runs beside its artery and is about as wide.
        side = unit(rng.normal(size=3)) * (2.2 * thick.radii.max() + 0.5)
        bronchus = thick.resized(shift_mm=side)
        paint_tubes(hu, bronchus.resized(extra_mm=0.6), spacing, sigma, 0.0)
        paint_tubes(hu, bronchus.resized(0.9), spacing, sigma, -990.0)
    paint_tubes(hu, tree, spacing, sigma, blood)


def _grid(shape: Sequence[int], spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates in mm along each axis, float32, shaped to broadcast over [k, j, i]."""
    return tuple(
        (np.arange(count) * step).astype(np.float32).reshape([-1 if axis == other else 1 for other in range(3)])
        for axis, (count, step) in enumerate(zip(shape, spacing, strict=True))
    )
