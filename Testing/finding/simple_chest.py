"""A chest of ellipsoids on any grid, cheap enough for every test; truth by formula, in RAS mm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.volumes import grid, world_of

LUNGS = {"right": ((70.0, 0.0, 0.0), (45.0, 65.0, 80.0)), "left": ((-70.0, 0.0, 0.0), (45.0, 65.0, 80.0))}
AIR, LUNG, TISSUE, FOAM = -1000.0, -860.0, 40.0, -900.0
SHAPE, SPACING = (52, 68, 90), (4.0, 4.0, 4.0)


def ellipsoid(world: NDArray, center: Sequence[float], radii: Sequence[float]) -> NDArray[np.bool_]:
    """Where world points (..., 3) lie inside."""
    return (np.square((world - np.array(center)) / np.array(radii)).sum(axis=-1)) < 1.0


def true_lungs(world: NDArray) -> NDArray[np.bool_]:
    """Where world points lie in the lungs."""
    return np.logical_or.reduce([ellipsoid(world, *lung) for lung in LUNGS.values()])


def chest(
    shape_kji: tuple[int, int, int] = SHAPE,
    spacing_ijk: tuple[float, float, float] = SPACING,
    directions: NDArray | None = None,
    center_ras: tuple[float, float, float] = (0.0, 0.0, 0.0),
    balls: Sequence[tuple[tuple[float, float, float], float, float]] = (),
    noise: float = 12.0,
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """A body with two lungs on a mattress and a table, in air.

    Args:
        balls: (center in RAS mm, radius in mm, HU) painted last.

    Returns:
        (array [k, j, i], ijk_to_ras).
    """
    matrix = grid(shape_kji, spacing_ijk, directions, center_ras)
    world = world_of(shape_kji, matrix)
    r, a = world[..., 0], world[..., 1]
    hu = np.full(shape_kji, AIR)
    hu[(np.abs(r) < 170) & (a < -60) & (a > -112)] = FOAM
    hu[(np.abs(r) < 170) & (a <= -112) & (a > -118)] = -200.0
    body = (r / 135.0) ** 2 + (a / 85.0) ** 2 < 1.0
    hu[body] = TISSUE
    hu[true_lungs(world)] = LUNG
    for center, radius, value in balls:
        hu[np.square(world - np.array(center)).sum(axis=-1) < radius**2] = value
    hu += np.random.default_rng(0).normal(0, noise, shape_kji)
    return np.rint(hu).astype(np.int16), matrix
