"""The organs of a made-up chest: where the lungs end, and the tubes that make bones, airways and large vessels.

Anatomical coordinates in mm as (z, y, x): z up from the lowest slice of a usual scan, y towards the back, x towards the
patient's left, (110, 0, 0) in the middle of the chest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .anatomy import Tubes

HEIGHTS = (-40, 0, 60, 110, 150, 180, 200, 212, 222)
HALF_WIDTHS = (118, 125, 128, 120, 100, 75, 48, 24, 4)
HALF_DEPTHS = (84, 84, 84, 78, 66, 50, 32, 18, 4)
MIDDLES = (-8, -8, -8, -4, 4, 12, 18, 20, 20)  # y of the cavity's axis: the lungs' apices lie towards the back
SPINE_Y = 52.0
HILA = {"right": (112.0, 8.0, -42.0), "left": (116.0, 8.0, 42.0)}

Coordinates = tuple[np.ndarray, np.ndarray, np.ndarray]
Extent = np.ndarray | float


def body_depth(at: Coordinates) -> np.ndarray:
    """Depth below the skin in mm, negative outside of the body."""
    _, y, x = at
    return -_superellipse(y, x, 110.0, 150.0, 2.6)


def cavity_profile(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half width, half depth and middle (y) of the rib cage's inside at heights ``z``, in mm."""
    return tuple(np.interp(z, HEIGHTS, values) for values in (HALF_WIDTHS, HALF_DEPTHS, MIDDLES))


def lung_distance(at: Coordinates, breath_mm: float, heart_scale: float) -> np.ndarray:
    """Signed distance to the lungs in mm: negative in the lungs, positive in everything else.

    Args:
        at: coordinates of a regular grid, broadcasting against each other.
        breath_mm: height of the diaphragm above its deepest position.
        heart_scale: size of the heart, 1 for a usual one.
    """
    z, y, x = at
    width, depth, middle = cavity_profile(z)
    cavity = _superellipse(y - middle, x, depth, width, 2.3)
    # Narrow behind the breast bone, wide where the great vessels are.
    mediastinum = np.abs(x) - 8.0 - 22.0 * np.exp(-(((y - 8) / 42) ** 2))
    for blob in (
        _ellipsoid(at, (68, -28, 24), np.array((46, 46, 56)) * heart_scale),
        _superellipse(y - SPINE_Y, x, 23.0, 24.0, 2.0) + 0 * z,
        np.maximum(_superellipse(y - 38, x - 18, 15.0, 15.0, 2.0) + 0 * z, z - 160),
        _ellipsoid(at, (152, 8, 18), (18, 34, 22)),
        _ellipsoid(at, HILA["right"], (20, 13, 13)),
        _ellipsoid(at, HILA["left"], (20, 13, 13)),
    ):
        mediastinum = smooth_minimum(mediastinum, blob, 8.0)
    right = 50 * np.exp(-(((x + 66) / 66) ** 2) - ((y + 4) / 80) ** 2)
    left = 40 * np.exp(-(((x - 66) / 66) ** 2) - ((y + 4) / 80) ** 2)
    diaphragm = breath_mm - 14 + np.where(x < 0, right, left) - z
    return _sharpened(-smooth_minimum(smooth_minimum(-cavity, mediastinum, 4.0), -diaphragm, 4.0), at)


def ribs(rng: np.random.Generator) -> Tubes:
    """Ribs, both sides: from the spine around the cavity and down to the front."""
    angles = np.linspace(0.12, 0.82, 36) * np.pi  # 0 at the spine, pi at the sternum
    courses = []
    for height in np.arange(18, 262, 24.5) + rng.uniform(-4, 4):
        z = height - 62 * (1 - np.cos(angles)) / 2
        width, depth, middle = cavity_profile(z)
        radius = 7.0 + 1 / ((np.abs(np.sin(angles)) / width) ** 2.3 + (np.abs(np.cos(angles)) / depth) ** 2.3) ** (
            1 / 2.3
        )
        course = np.stack((z, middle + radius * np.cos(angles), radius * np.sin(angles)), axis=1)
        course = course[(width > 40) & (z < 225)]
        for side in (1.0, -1.0):
            mirrored = course * (1.0, 1.0, side)
            # A rib is higher than it is thick: two courses, one above the other.
            courses += [mirrored + (1.8, 0, 0), mirrored - (1.8, 0, 0)]
    return polylines(courses, 4.2)


def sternum() -> Tubes:
    """The breast bone, in front of the cavity."""
    z = np.arange(75.0, 186.0, 5.0)
    _, depth, middle = cavity_profile(z)
    y = np.maximum(middle - depth - 7, -100)
    return polylines([np.stack((z, y, np.full_like(z, x)), axis=1) for x in (-10.0, -5.0, 0.0, 5.0, 10.0)], 5.0)


def shoulder_blades() -> Tubes:
    """The scapulae: flat fans of thin courses behind the upper ribs, and the thick ridge beside the joint."""
    fans = [
        np.array(((215.0, 44, side * 118), (215.0 - drop, 44 + 0.28 * drop + bend, side * (116 - 0.12 * drop - bend))))
        for side in (1.0, -1.0)
        for drop, bend in zip(np.linspace(96, 52, 10), np.linspace(0, 40, 10), strict=True)
    ]
    ridges = [np.array(((212.0, 40, side * 119), (235.0, 40, side * 122))) for side in (1.0, -1.0)]
    return merged((polylines(fans, 2.6), polylines(ridges, 8.0)))


def vertebrae() -> tuple[Tubes, Tubes, Tubes]:
    """Vertebral bodies, the arches with their processes, and the spinal canal."""
    levels = np.arange(-40.0, 265.0, 25.0)
    y = SPINE_Y
    bodies = polylines([np.array(((z + 6, y, 0.0), (z + 18, y, 0.0))) for z in levels], 14.0)
    arches = [np.array(((z + 3, y + 26, 0.0), (z + 21, y + 26, 0.0))) for z in levels]
    spines = [np.array(((z + 8, y + 34, 0.0), (z - 6, y + 48, 0.0))) for z in levels]
    wings = [np.array(((z + 10, y + 22, s * 8), (z + 12, y + 30, s * 30))) for z in levels for s in (1.0, -1.0)]
    return (
        bodies,
        merged((polylines(arches, 13.0), polylines(spines, 4.0), polylines(wings, 5.0))),
        polylines([np.array(((-60.0, y + 25, 0.0), (280.0, y + 25, 0.0)))], 9.0),
    )


def great_vessels() -> Tubes:
    """Aorta, pulmonary arteries and the upper caval vein."""
    aorta = np.array(
        (
            (-60, 38, 18),
            (100, 38, 18),
            (140, 34, 18),
            (158, 22, 16),
            (164, 6, 8),
            (156, -12, -6),
            (138, -20, -12),
            (105, -22, -6),
            (85, -22, 4),
        ),
        dtype=float,
    )
    arteries = [
        np.array(((88.0, -30, 18), (112, -18, 14), (122, -2, 10))),
        np.array(((120.0, -4, 8), (116, 4, -18), HILA["right"])),
        np.array(((122.0, -2, 10), (124, 8, 28), HILA["left"])),
    ]
    veins = [np.array(((200.0, -4, -20), (150, -10, -22), (95, -14, -26)))]
    return merged((polylines([aorta], 12.5), polylines(arteries, 10.0), polylines(veins, 8.0)))


def airways() -> Tubes:
    """Trachea and main bronchi."""
    trachea = polylines([np.array(((240.0, 8, 0), (132.0, 12, -2)))], 8.5)
    main = polylines(
        [
            np.array(((132.0, 12, -2), (118, 13, -18), HILA["right"])),
            np.array(((132.0, 12, -2), (122, 14, 18), HILA["left"])),
        ],
        6.0,
    )
    return merged((trachea, main))


def polylines(courses: list[np.ndarray], radius_mm: float) -> Tubes:
    """Tubes of one radius along courses of points (n, 3)."""
    starts = np.concatenate([np.asarray(course, dtype=float)[:-1] for course in courses])
    ends = np.concatenate([np.asarray(course, dtype=float)[1:] for course in courses])
    return Tubes(starts, ends, np.full(len(starts), radius_mm))


def merged(parts: tuple[Tubes, ...]) -> Tubes:
    """All segments of several sets of tubes."""
    return Tubes(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("starts", "ends", "radii")))


def smooth_minimum(a: np.ndarray, b: np.ndarray, reach_mm: float) -> np.ndarray:
    """Minimum of two distances with the crease rounded (polynomial, after Quilez)."""
    overlap = np.maximum(reach_mm - np.abs(a - b), 0)
    return np.minimum(a, b) - overlap**2 / (4 * reach_mm)


def _superellipse(y: np.ndarray, x: np.ndarray, depth: Extent, width: Extent, power: float) -> np.ndarray:
    """About the distance to a superellipse in mm, negative inside, measured along the ray from its middle."""
    level = ((np.abs(x) / width) ** power + (np.abs(y) / depth) ** power) ** (1 / power)
    level = np.maximum(level, 1e-3)
    return np.sqrt(x * x + y * y) * (1 - 1 / level)


def _ellipsoid(at: Coordinates, center: tuple[float, ...], radii: Sequence[float] | np.ndarray) -> np.ndarray:
    """About the distance to an ellipsoid in mm, negative inside."""
    offsets = [axis - middle for axis, middle in zip(at, center, strict=True)]
    level = np.sqrt(sum((offset / radius) ** 2 for offset, radius in zip(offsets, radii, strict=True)))
    return np.sqrt(sum(offset**2 for offset in offsets)) * (1 - 1 / np.maximum(level, 1e-3))


def _sharpened(values: np.ndarray, at: Coordinates) -> np.ndarray:
    """Divides by the gradient's length, so that values near the surface are distances."""
    slopes = np.gradient(values, *(np.ravel(axis) for axis in at))
    return values / np.clip(np.sqrt(sum(slope**2 for slope in slopes)), 0.4, 2.0)
