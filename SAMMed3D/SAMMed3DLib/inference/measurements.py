"""Measurements of a nodule: volume, axial diameters, density.

The definitions are those of reading rooms: volume by partial volume, diameters in the axial slice with the longest
diameter (RECIST, Fleischner), mass = volume x (HU + 1000) / 1000, solid = above -300 HU.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from .errors import InputError
from .field import Part, block_to_ras, sample_parts
from .geometry import PlacedMask, as_affine, closest_ras_axes, transform_points, voxel_spacing, voxel_volume
from .mask_regions import components

#: Voxels above this are solid (ground glass lies below).
SOLID_HU = -300.0
#: Bound on the samples of one partial-volume sum.
_MOST_SAMPLES = 8_000_000
#: Larger blocks hold organs or leaks, whose border voxels matter little: their voxels count in full.
_LARGEST_REFINED = 4_000_000
#: A range of volumes wider than this share is worth a warning: guidelines speak of growth from a quarter on.
WIDE_RANGE = 0.25
#: Percentiles are taken from about this many voxels, evenly picked.
_MOST_RANKED = 1_000_000
#: More contour points than this are first reduced to their convex hull.
_FEW_POINTS = 64


@dataclass(frozen=True)
class NoduleRecord:
    """Measurements of one nodule. Of an empty mask all sizes are 0, ``slice_index`` is -1 and the rest is NaN.

    The outline is that of LIDC's consensus masks: what a reader encloses, the drawn outline itself excluded. Masks that
    include the outline hold 16-46 % more.

    Attributes:
        volume_mm3: partial volumes of the border voxels included.
        long_axis_mm, short_axis_mm: longest diameter over the volume's most axial slices, and the extent perpendicular
            to it in that slice.
        mean_diameter_mm: their mean.
        equivalent_diameter_mm: of the sphere with that volume.
        mean_hu, p10_hu, p90_hu: over the voxels of the mask.
        mass_mg: volume x (mean HU + 1000) / 1000.
        solid_fraction: share of the voxels above -300 HU.
        centroid_ras: mm.
        slice_index: index of the measured slice along the volume's most axial axis.
        volume_low_mm3, volume_high_mm3: the range that clicks elsewhere in the object give; NaN where it was not asked
            for (:meth:`.predictor.SamPredictor3D.with_volume_range`).
        note: why the mask is not to be trusted, in sentences; empty where nothing speaks against it.
    """

    volume_mm3: float
    long_axis_mm: float
    short_axis_mm: float
    mean_diameter_mm: float
    equivalent_diameter_mm: float
    mean_hu: float
    p10_hu: float
    p90_hu: float
    mass_mg: float
    solid_fraction: float
    centroid_ras: tuple[float, float, float]
    slice_index: int
    volume_low_mm3: float = math.nan
    volume_high_mm3: float = math.nan
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns numbers and lists for JSON; NaN becomes None."""
        values = dataclasses.asdict(self)
        values["centroid_ras"] = [None if math.isnan(x) else x for x in self.centroid_ras]
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


@dataclass(frozen=True)
class AxialAxes:
    """The diameters of a mask and where they end, RAS mm (each a pair of points, (2, 3)).

    Attributes:
        long_ras: the longest diameter over the volume's most axial slices.
        short_ras: the outline's two outermost points perpendicular to it in that slice, brought onto one line.
        slice_index: of that slice, along the volume's most axial axis.
    """

    long_ras: NDArray[np.float64]
    short_ras: NDArray[np.float64]
    slice_index: int

    @property
    def long_axis_mm(self) -> float:
        """Length of the long axis."""
        return float(np.linalg.norm(self.long_ras[1] - self.long_ras[0]))

    @property
    def short_axis_mm(self) -> float:
        """Length of the short axis."""
        return float(np.linalg.norm(self.short_ras[1] - self.short_ras[0]))


def measure_nodule(prediction: PlacedMask, array_kji: NDArray, ijk_to_ras: ArrayLike) -> NoduleRecord:
    """Measures a mask in its volume: sizes, density, mass.

    Args:
        prediction: with ``parts`` (a Prediction) the logits tell how much of each border voxel lies inside; with a
            mask only, or in an object of organ size, each voxel counts in full. Its ``volume_range`` and ``warnings``
            go into the record.
        array_kji: (K, J, I) HU.
        ijk_to_ras: (4, 4).

    Raises:
        InputError: a singular matrix, or a block that leaves the volume.
    """
    return measure_with_axes(prediction, array_kji, ijk_to_ras)[0]


def measure_with_axes(
    prediction: PlacedMask, array_kji: NDArray, ijk_to_ras: ArrayLike
) -> tuple[NoduleRecord, AxialAxes | None]:
    """Measures as :func:`measure_nodule`, and says where the axes end that it measured; None for an empty mask."""
    matrix = as_affine(ijk_to_ras)
    mask = np.asarray(prediction.mask) != 0
    offset = np.array(prediction.offset_kji, dtype=np.int64)
    if mask.ndim != 3 or np.any(offset < 0) or np.any(offset + np.array(mask.shape) > np.array(array_kji.shape)):
        raise InputError(f"the mask block {mask.shape} at {tuple(offset)} does not fit the volume {array_kji.shape}")
    if not mask.any():
        nan = math.nan
        return NoduleRecord(0.0, 0.0, 0.0, 0.0, 0.0, nan, nan, nan, 0.0, nan, (nan, nan, nan), -1), None

    low, high = getattr(prediction, "volume_range", None) or (math.nan, math.nan)
    told = list(getattr(prediction, "warnings", ()))
    if high - low > WIDE_RANGE:
        told.append(f"Clicks elsewhere in it change its volume by {100 * (high - low):.0f} %.")
    told += _spoiled(mask, offset, array_kji.shape, one_object=bool(getattr(prediction, "parts", ())))
    surface = _Surface(mask, offset, getattr(prediction, "parts", ()), array_kji.shape, matrix)
    volume = float(surface.fraction.sum(dtype=np.float64)) * voxel_volume(matrix)
    axes = _axial_axes(surface, matrix)
    block = tuple(slice(int(a), int(a) + n) for a, n in zip(offset, mask.shape, strict=True))
    values = array_kji[block][mask]
    mean = float(values.mean(dtype=np.float64))
    p10, p90 = np.percentile(values[:: 1 + len(values) // _MOST_RANKED].astype(np.float64), [10, 90])
    center = _center_of_mass(surface.fraction)
    centroid = transform_points(block_to_ras(matrix, offset - 1), center)
    record = NoduleRecord(
        volume_mm3=volume,
        long_axis_mm=axes.long_axis_mm,
        short_axis_mm=axes.short_axis_mm,
        mean_diameter_mm=(axes.long_axis_mm + axes.short_axis_mm) / 2.0,
        equivalent_diameter_mm=(6.0 / math.pi * volume) ** (1.0 / 3.0),
        mean_hu=mean,
        p10_hu=float(p10),
        p90_hu=float(p90),
        mass_mg=max(0.0, volume * (mean + 1000.0) / 1000.0),
        solid_fraction=float(np.mean(values > SOLID_HU)),
        centroid_ras=(float(centroid[0]), float(centroid[1]), float(centroid[2])),
        slice_index=axes.slice_index,
        volume_low_mm3=volume * low,
        volume_high_mm3=volume * high,
        note=" ".join(told),
    )
    return record, axes


def _spoiled(mask: NDArray[np.bool_], offset: NDArray, shape_kji: Sequence[int], one_object: bool) -> list[str]:
    """Says why a mask (k, j, i) is not a whole nodule, or not one; masks of the network are known to be one object."""
    told = []
    if any(
        (start == 0 and mask.take(0, axis).any()) or (start + n == size and mask.take(-1, axis).any())
        for axis, (start, n, size) in enumerate(zip(offset, mask.shape, shape_kji, strict=True))
    ):
        told.append("It reaches the edge of the volume: what lies beyond is not measured.")
    if not one_object:
        count = components(mask)[1]
        if count > 1:
            told.append(f"It is in {count} separate parts, measured as one: give each nodule a label of its own.")
    return told


class _Surface:
    """The mask with one voxel around it, and where its surface runs between voxels.

    The logits speak only where they agree with the mask: voxels that a click, a filled hole or a dropped component
    decided count in full or not at all.

    Attributes:
        mask: (k, j, i) bool, padded by one voxel on every side.
        offset: volume index of its first voxel; may be -1.
        field: logits at the voxel centers, or None.
        trusted: (k, j, i) bool, where logits and mask agree, inside the volume; only with a field.
        fraction: share of each voxel that lies inside, float32; the mask itself where no logits are asked.
    """

    def __init__(
        self, mask: NDArray[np.bool_], offset: NDArray, parts: Sequence[Part], shape_kji: Sequence[int], matrix: NDArray
    ) -> None:
        self.mask = np.pad(mask, 1)
        self.offset = offset - 1
        self.fraction: NDArray = self.mask
        self.field = None
        if not parts or self.mask.size > _LARGEST_REFINED:
            return
        self.fraction = self.mask.astype(np.float32)
        self.trusted = np.zeros(self.mask.shape, dtype=bool)
        to_ras = block_to_ras(matrix, self.offset)
        self.field = sample_parts(parts, to_ras, self.mask.shape)
        positive = self.field > 0.0
        inside = tuple(
            slice(max(0, -int(start)), max(0, min(n, int(size - start))))
            for start, n, size in zip(self.offset, self.mask.shape, shape_kji, strict=True)
        )
        self.trusted[inside] = (positive == self.mask)[inside]
        near = ndimage.maximum_filter(self.mask & positive, size=3)
        np.copyto(self.fraction, self._shares(parts, to_ras, matrix), where=self.trusted & near)

    def _shares(self, parts: Sequence[Part], to_ras: NDArray, matrix: NDArray) -> NDArray[np.float32]:
        """Share of sub-voxel samples with a positive logit, finer along long voxel edges."""
        spacing = voxel_spacing(matrix)[::-1]
        factors = np.clip(np.round(4.0 * spacing / parts[-1].cell_mm), 3, 8).astype(int)
        while np.prod(factors) * self.mask.size > _MOST_SAMPLES and factors.max() > 1:
            factors[np.argmax(factors)] -= 1
        fine = np.diag([*(1.0 / factors), 1.0])
        fine[:3, 3] = 0.5 / factors - 0.5
        shape = tuple(int(n * factor) for n, factor in zip(self.mask.shape, factors, strict=True))
        samples = sample_parts(parts, to_ras @ fine, (shape[0], shape[1], shape[2])) > 0.0
        split = [int(length) for pair in zip(self.mask.shape, factors, strict=True) for length in pair]
        return samples.reshape(split).mean(axis=(1, 3, 5), dtype=np.float32)

    def contour(self, slice_axis: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Finds the points where grid lines in the slices cross the surface.

        Args:
            slice_axis: 0, 1 or 2 of the block; the slices lie across it.

        Returns:
            (n,) slice of each crossing and (n, 2) its position along the two other axes, in voxels.
        """
        plane = [axis for axis in range(3) if axis != slice_axis]
        slices, positions = [], []
        for axis in plane:
            for step in (-1, 1):
                # the outermost layer of the padded mask is empty, so rolling around does no harm
                leaves = np.argwhere(self.mask & ~np.roll(self.mask, -step, axis=axis))
                position = leaves[:, plane].astype(np.float64)
                position[:, plane.index(axis)] += step * self._depth(leaves, axis, step)
                slices.append(leaves[:, slice_axis])
                positions.append(position)
        return np.concatenate(slices), np.concatenate(positions)

    def _depth(self, leaves: NDArray[np.int64], axis: int, step: int) -> NDArray[np.float64]:
        """Distance in voxels from voxels inside to the surface before their neighbor outside; half without logits."""
        if self.field is None:
            return np.full(len(leaves), 0.5)
        outer = leaves.copy()
        outer[:, axis] += step
        here, there = tuple(leaves.T), tuple(outer.T)
        inner_logit, outer_logit = self.field[here].astype(np.float64), self.field[there].astype(np.float64)
        trusted = self.trusted[here] & self.trusted[there]
        return np.where(trusted, inner_logit / np.where(trusted, inner_logit - outer_logit, 1.0), 0.5)


def _center_of_mass(weights: NDArray) -> NDArray[np.float64]:
    """Mean index along each axis, weighted; from sums over planes, without a temporary of the array's size."""
    center = []
    for axis in range(weights.ndim):
        planes = weights.sum(axis=tuple(other for other in range(weights.ndim) if other != axis), dtype=np.float64)
        center.append(float(planes @ np.arange(len(planes)) / planes.sum()))
    return np.array(center)


def _axial_axes(surface: _Surface, matrix: NDArray) -> AxialAxes:
    """Longest diameter over the slices, and the extent perpendicular to it in that slice."""
    index_axis = closest_ras_axes(matrix)[0][2]
    slice_axis = 2 - index_axis
    plane = [2 - axis for axis in range(3) if axis != slice_axis]
    u, v = matrix[:3, plane[0]], matrix[:3, plane[1]]
    first = u / np.linalg.norm(u)
    second = v - (v @ first) * first
    second /= np.linalg.norm(second)
    # voxels to mm in the plane; right for slices whose axes are not perpendicular too
    to_mm = np.array([[u @ first, v @ first], [u @ second, v @ second]])
    slices, positions = surface.contour(slice_axis)
    points = positions @ to_mm.T
    longest, best = -1.0, 0
    ends = np.zeros((2, 2, 2))  # long and short axis, their two ends, mm in the plane
    for index in np.unique(slices):
        contour = _hull(points[slices == index])
        between = contour[:, None] - contour[None]
        squared = (between**2).sum(axis=-1)
        place = np.unravel_index(int(squared.argmax()), squared.shape)
        length = math.sqrt(float(squared[place]))
        if length > longest:
            longest, best = length, int(index)
            along = between[place] / length
            ends = np.stack([contour[list(place)], _across(contour, along)])
    in_block = np.empty((2, 2, 3))
    in_block[..., slice_axis] = best
    in_block[..., [axis for axis in range(3) if axis != slice_axis]] = ends @ np.linalg.inv(to_mm).T
    ras = transform_points(block_to_ras(matrix, surface.offset), in_block)
    return AxialAxes(ras[0], ras[1], best + int(surface.offset[slice_axis]))


def _across(contour: NDArray[np.float64], along: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ends (2, 2) of the contour's extent perpendicular to ``along``, midway between its two touchpoints."""
    normal = np.array([-along[1], along[0]])
    heights = contour @ normal
    low, high = contour[heights.argmin()], contour[heights.argmax()]
    middle = (low + high) @ along / 2.0 * along
    return np.stack([middle + heights.min() * normal, middle + heights.max() * normal])


def _hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(points) <= _FEW_POINTS:
        return points
    try:
        return points[ConvexHull(points).vertices]
    except QhullError:
        return points
