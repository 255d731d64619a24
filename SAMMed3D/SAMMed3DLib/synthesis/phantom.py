"""A synthetic chest CT with real nodule shapes in it: for the demo, for tests, for a first look without data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from . import thorax
from .anatomy import Tubes, blend, grow_tree, layered_tissue, paint_tubes, smooth_field, soft_edge, tube_occupancy, unit
from .nodules import Kind, paint_nodule, random_appearance
from .procedural import procedural_block
from .shapes import NoduleShapes

__all__ = ["ChestPhantom", "chest_phantom", "procedural_block"]

Attachment = Literal["none", "pleura", "vessel"]

NODULES: tuple[tuple[Kind, float, Attachment], ...] = (
    ("solid", 24.0, "none"),
    ("ground-glass", 18.0, "none"),
    ("part-solid", 15.0, "none"),
    ("solid", 12.0, "vessel"),
    ("solid", 9.0, "pleura"),
    ("ground-glass", 8.0, "none"),
    ("solid", 6.0, "none"),
    ("solid", 4.5, "none"),
)
"""Nodules of a phantom: kind, diameter in mm (each varied by a tenth) and attachment."""

_GRID_MM = 3.0  # the lungs' surface is computed on this grid and interpolated
_AIR, _FAT, _MUSCLE, _BLOOD = -1000.0, -100.0, 50.0, 42.0
_PARENCHYMA = -870.0


@dataclass(frozen=True)
class ChestPhantom:
    """A made-up CT and the truth about it.

    Attributes:
        array_kji: int16 HU [k, j, i], k upwards, j towards the back, i towards the patient's left.
        ijk_to_ras: 4x4, voxel index (i, j, k) to RAS mm.
        labels_kji: uint8 [k, j, i], 0 or the label of a nodule.
        nodules: one dict each: label, kind ("solid", "part-solid", "ground-glass"), diameter_mm (of the sphere of the
            labeled volume), center_ras (of the labeled voxels), attachment ("none", "pleura", "vessel").
    """

    array_kji: np.ndarray
    ijk_to_ras: np.ndarray
    labels_kji: np.ndarray
    nodules: tuple[dict[str, Any], ...]


def chest_phantom(
    seed: int = 0,
    shape_kji: Sequence[int] = (176, 300, 400),
    spacing_kji: Sequence[float] = (1.25, 0.8, 0.8),
    shapes: NoduleShapes | None = None,
    nodules: Sequence[tuple[Kind, float, Attachment]] = NODULES,
) -> ChestPhantom:
    """Builds a chest with eight nodules of 4 to 26 mm in a few seconds.

    Args:
        seed: the same seed gives the same phantom.
        shape_kji, spacing_kji: voxels and their size in mm. The chest keeps its size: a smaller field of view
            shows less of it.
        shapes: nodule shapes to draw from; None loads the library that ships with the module.
        nodules: what it holds; none for an empty chest.

    Raises:
        ValueError: the field of view is too small to place the nodules in the lungs.
    """
    chest = _Chest(np.random.default_rng(seed), shape_kji, spacing_kji)
    chest.paint_body()
    chest.paint_lungs()
    labels, painted = chest.paint_nodules(shapes or NoduleShapes.load(), nodules)
    return ChestPhantom(chest.scanned(), chest.ijk_to_ras, labels, painted)


class _Chest:
    """The phantom under construction; tubes come in anatomical coordinates (see thorax)."""

    def __init__(self, rng: np.random.Generator, shape: Sequence[int], spacing: Sequence[float]) -> None:
        self.rng = rng
        self.shape = tuple(int(count) for count in shape)
        self.spacing = np.asarray(spacing, dtype=float)
        self.sigma = float(np.hypot(0.45, 0.3 * self.spacing.max()))
        self.origin = np.array((110.0, 0.0, 0.0)) - (np.asarray(self.shape) - 1) / 2 * self.spacing
        k, j, i = self.spacing
        z, y, x = self.origin
        self.ijk_to_ras = np.array(((-i, 0, 0, -x), (0, -j, 0, -y), (0, 0, k, z - 110.0), (0, 0, 0, 1.0)))
        axes = [
            start + np.arange(int(np.ceil((count - 1) * step / _GRID_MM)) + 1) * _GRID_MM
            for start, count, step in zip(self.origin, self.shape, self.spacing, strict=True)
        ]
        self.coarse_at = np.meshgrid(*axes, indexing="ij", sparse=True)
        breath, heart = rng.uniform(4, 20), rng.uniform(0.9, 1.08)
        self.coarse_lung = thorax.lung_distance(self.coarse_at, breath, heart).astype(np.float32)
        self.coarse_lung += 1.2 * smooth_field(rng, self.coarse_lung.shape, (_GRID_MM,) * 3, 18.0)
        self.lung = self._refined(self.coarse_lung)  # mm, negative in the lungs

    def paint_body(self) -> None:
        """Skin, fat, muscle, bones, and what lies between and below the lungs."""
        rng = self.rng
        depth = thorax.body_depth(self.coarse_at) + np.zeros_like(self.coarse_lung)
        fat = rng.uniform(7, 16) * (1 + 0.25 * smooth_field(rng, depth.shape, (_GRID_MM,) * 3, 60.0))
        skin = self._refined(depth)
        self.hu = layered_tissue(skin, [(0.0, _AIR), (0.0, 10.0), (1.8, _FAT)], self.sigma)
        below_fat = self._refined((depth - fat).astype(np.float32))
        blend(self.hu, soft_edge(below_fat, self.sigma), _MUSCLE)
        # Planes of fat between the muscles, and the fat that fills the mediastinum and the abdomen.
        planes = self._refined(smooth_field(rng, depth.shape, (_GRID_MM,) * 3, 11.0))
        blend(self.hu, soft_edge(below_fat, self.sigma) * np.exp(-((planes / 0.09) ** 2)), _FAT)
        z, y, x = self.coarse_at
        width, half, middle = thorax.cavity_profile(z)
        cavity = np.sqrt(((x / (width - 3)) ** 2) + ((y - middle) / (half - 3)) ** 2) - 1
        inner = self._refined((cavity * 60 + 0 * depth).astype(np.float32))
        blend(self.hu, soft_edge(-inner, 1.0), _FAT)
        del below_fat, planes, inner, skin
        for center, radii, value in (
            ((66, -28, 22), (44, 44, 54), _BLOOD),  # heart
            ((-30, -10, -60), (72, 74, 70), 58.0),  # liver
            ((-22, 30, 80), (50, 40, 36), 50.0),  # spleen
            ((-20, -22, 64), (44, 44, 42), 30.0),  # stomach
        ):
            self._paint_ellipsoid(center, radii, value)
        bodies, arches, canal = thorax.vertebrae()
        self._tubes(thorax.great_vessels(), _BLOOD)
        self._tubes(thorax.polylines([np.array(((240.0, 26, 2), (-60.0, 22, 8)))], 7.0), 32.0)  # esophagus
        for bone, shell, cortex, marrow in (
            (thorax.ribs(rng), 1.3, 620.0, 190.0),
            (thorax.sternum(), 1.2, 420.0, 110.0),
            (thorax.shoulder_blades(), 1.5, 600.0, 200.0),
            (bodies, 1.8, 420.0, 170.0),
            (arches, 2.0, 560.0, 260.0),
        ):
            self._tubes(bone, cortex)
            self._tubes(bone.resized(extra_mm=-shell), marrow)
        self._tubes(canal, 25.0)

    def paint_lungs(self) -> None:
        """Parenchyma, fissures, vessels that fan out from the hila, bronchi beside the arteries."""
        rng = self.rng
        z, y, x = (np.asarray(axis, dtype=np.float32) for axis in self._fine_at())
        tissue = smooth_field(rng, self.shape, self.spacing, 5.0)
        tissue *= 14
        tissue += np.float32(_PARENCHYMA) + np.float32(0.28) * y - np.float32(0.12) * (z - 110)
        wave = self._refined(smooth_field(rng, self.coarse_lung.shape, (_GRID_MM,) * 3, 40.0))
        oblique = (z - 104 - np.float32(0.9) * y) * np.float32(0.74) + 4 * wave
        blend(tissue, np.exp(-((oblique / 0.8) ** 2)) * np.float32(0.25), 0.0)
        trees = [self._lung_tree(side) for side in ("right", "left") for _ in range(2)]
        twigs = self._twigs()
        for tree in trees[::2]:  # the arteries; the other trees are veins, which run without a bronchus
            bronchi = tree.select(tree.radii > 1.7).resized(shift_mm=np.array((0.0, 2.6, -2.6)))
            self._tubes(bronchi.resized(0.95, 0.7), 0.0, onto=tissue)
            self._tubes(bronchi.resized(0.85), _AIR, onto=tissue)
        self.vessels = thorax.merged((*trees, twigs))
        self.blood_share = tube_occupancy(
            self.vessels.resized(shift_mm=-self.origin), self.shape, self.spacing, self.sigma
        )
        blend(tissue, self.blood_share, _BLOOD)
        tissue -= self.hu
        tissue *= soft_edge(-self.lung, self.sigma)
        self.hu += tissue
        airways = thorax.airways()
        self._tubes(airways.resized(extra_mm=1.4), 20.0)
        self._tubes(airways, _AIR)

    def paint_nodules(
        self, shapes: NoduleShapes, wanted: Sequence[tuple[Kind, float, Attachment]]
    ) -> tuple[np.ndarray, tuple[dict[str, Any], ...]]:
        """Places and paints the nodules, the largest first; returns the labels and what is known of each."""
        labels = np.zeros(self.shape, dtype=np.uint8)
        taken: list[tuple[np.ndarray, float]] = []
        nodules = []
        for label, (kind, diameter, attachment) in enumerate(wanted, start=1):
            shape = shapes.random(self.rng, diameter * self.rng.uniform(0.9, 1.1))
            center = self._place(shape.diameter_mm, attachment, taken)
            taken.append((center, shape.radius_mm))
            # The scanner's noise comes later, over everything.
            look = dataclasses.replace(random_appearance(self.rng, kind), noise_hu=0.0)
            ras = np.array((-center[2], -center[1], center[0] - 110.0))
            painted = paint_nodule(self.hu, self.ijk_to_ras, shape, ras, look, self.rng, lung=self.lung < 0)
            labels[painted] = label
            voxels = np.argwhere(painted)
            middle = self.ijk_to_ras @ np.append(voxels.mean(axis=0)[::-1], 1.0)
            volume = len(voxels) * float(np.prod(self.spacing))
            nodules.append(
                {
                    "label": label,
                    "kind": kind,
                    "diameter_mm": round(float(np.cbrt(6 * volume / np.pi)), 2),
                    "center_ras": tuple(round(float(value), 2) for value in middle[:3]),
                    "attachment": attachment,
                }
            )
        return labels, tuple(nodules)

    def scanned(self) -> np.ndarray:
        """The CT with the scanner's noise, int16."""
        noise = smooth_field(self.rng, self.shape, self.spacing, 0.9)
        noise *= np.float32(self.rng.uniform(10, 20))
        self.hu += noise
        return np.clip(np.rint(self.hu), -1024, 3071).astype(np.int16)

    def _lung_tree(self, side: str) -> Tubes:
        rng, hilum = self.rng, np.array(thorax.HILA[side])
        points = self._lung_points(-8.0)
        points = points[(points[:, 2] < 0) == (side == "right")]
        if not len(points):
            raise ValueError(f"the field of view of {self.shape} voxels does not show both lungs")
        # Segmental trunks aim at points far from each other, so that the trees fill the lung.
        aims = [points[rng.integers(len(points))]]
        for _ in range(13):
            gaps = np.min([np.linalg.norm(points - aim, axis=1) for aim in aims], axis=0)
            aims.append(points[np.argmax(gaps * rng.uniform(0.7, 1, len(points)))])
        goals = np.array(aims)
        starts = hilum + rng.normal(0, 6, (len(goals), 3))
        return grow_tree(
            rng,
            starts,
            goals - starts,
            rng.uniform(2.0, 4.2, len(goals)),
            self._in_lung(-1.5, near=hilum),
            minimum_radius=0.4,
            maximum_segments=6000,
            pull=lambda tips: unit(tips - hilum),
        )

    def _twigs(self) -> Tubes:
        points = self._lung_points(-2.0)
        points = points[self.rng.integers(len(points), size=len(points) * 27 // 15**3)]
        hila = np.where(points[:, 2:] < 0, thorax.HILA["right"], thorax.HILA["left"])
        courses = unit(points - hila) + self.rng.normal(0, 0.5, points.shape)
        return grow_tree(
            self.rng,
            points,
            courses,
            self.rng.uniform(0.4, 0.8, len(points)),
            self._in_lung(-0.5),
            minimum_radius=0.28,
            maximum_segments=20000,
        )

    def _place(self, diameter: float, attachment: Attachment, taken: list[tuple[np.ndarray, float]]) -> np.ndarray:
        rng, radius = self.rng, diameter / 2
        if attachment == "vessel":
            fits = (self.vessels.radii > 0.9) & (self.vessels.radii < 2.0)
            points = self.vessels.starts[fits]
            points = points + unit(rng.normal(size=points.shape)) * radius * 0.8
            points = points[self._distance_at(points) < -radius - 4]
        else:
            points = self._lung_points(-1.0)
            depth = -self._distance_at(points)
            if attachment == "pleura":
                width, _, _ = thorax.cavity_profile(points[:, 0])
                lateral = (np.abs(points[:, 2]) > 0.7 * width) & (points[:, 0] > 50)
                points = points[lateral & (depth > 0.3 * radius) & (depth < 0.75 * radius)]
            else:
                points = points[depth > 1.3 * radius + 3]
        margin = np.asarray(self.shape) * self.spacing / 2 - diameter
        for point in points[rng.permutation(len(points))]:
            inside = np.all(np.abs(point - (110, 0, 0)) < margin)
            apart = all(np.linalg.norm(point - other) > radius + reach + 20 for other, reach in taken)
            if not (inside and apart):
                continue
            if attachment != "none" or self._vessel_share(point, radius + 1) < 0.01 + radius / 200:
                return point
        raise ValueError(f"no place for a nodule of {diameter:.0f} mm in a field of view of {self.shape} voxels")

    def _vessel_share(self, point: np.ndarray, radius: float) -> float:
        index = (point - self.origin) / self.spacing
        reach = radius / self.spacing
        low, high = np.floor(index - reach).astype(int).clip(min=0), np.ceil(index + reach).astype(int) + 1
        return float(self.blood_share[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].mean())

    def _lung_points(self, distance_mm: float) -> np.ndarray:
        """Points of the coarse grid that lie deeper in the lungs than ``distance_mm`` (negative), (n, 3)."""
        z, y, x = (np.ravel(axis) for axis in self.coarse_at)
        k, j, i = np.nonzero(self.coarse_lung < distance_mm)
        return np.stack((z[k], y[j], x[i]), axis=1)

    def _distance_at(self, points: np.ndarray) -> np.ndarray:
        index = np.rint((points - self.origin) / _GRID_MM).astype(int)
        return self.coarse_lung[tuple(np.clip(index, 0, np.asarray(self.coarse_lung.shape) - 1).T)]

    def _in_lung(self, distance_mm: float, near: np.ndarray | None = None):
        def inside(points: np.ndarray) -> np.ndarray:
            within = self._distance_at(points) < distance_mm
            if near is not None:  # trunks begin in the hilum, outside of the lung
                within |= np.linalg.norm(points - near, axis=1) < 24
            return within

        return inside

    def _tubes(self, tubes: Tubes, value: float, onto: np.ndarray | None = None) -> None:
        target = self.hu if onto is None else onto
        paint_tubes(target, tubes.resized(shift_mm=-self.origin), self.spacing, self.sigma, value)

    def _paint_ellipsoid(self, center: tuple[float, ...], radii: tuple[float, ...], value: float) -> None:
        level = np.zeros(self.shape, dtype=np.float32)
        for axis, middle, radius in zip(self._fine_at(), center, radii, strict=True):
            level += ((axis - middle) / radius).astype(np.float32) ** 2
        blend(self.hu, soft_edge((1 - np.sqrt(level)) * np.float32(min(radii)), 1.0), value)

    def _fine_at(self) -> list[np.ndarray]:
        axes = [
            start + np.arange(count) * step
            for start, count, step in zip(self.origin, self.shape, self.spacing, strict=True)
        ]
        return list(np.meshgrid(*axes, indexing="ij", sparse=True))

    def _refined(self, coarse: np.ndarray) -> np.ndarray:
        """Linear interpolation from the coarse grid to the voxels, one small matrix per axis."""
        for axis, (count, step) in enumerate(zip(self.shape, self.spacing, strict=True)):
            position = np.arange(count)[:, None] * step / _GRID_MM - np.arange(coarse.shape[axis])
            matrix = np.maximum(1 - np.abs(position), 0).astype(np.float32)
            coarse = np.moveaxis(np.tensordot(coarse, matrix, axes=(axis, 1)), -1, axis)
        return np.ascontiguousarray(coarse)
