"""Splits a label map into nodules (every connected component of every value), and sorts them into groups."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from SAMMed3DLib.inference.geometry import block_slices, slice_step, voxel_volume
from SAMMed3DLib.inference.mask_regions import components
from SAMMed3DLib.inference.measurements import SOLID_HU

_LARGEST_INDEX = 65535
#: Upper bounds (equivalent diameter, mm) and names, after the Fleischner and Lung-RADS thresholds.
SIZES = ((6.0, "<6 mm"), (8.0, "6-8 mm"), (15.0, "8-15 mm"), (30.0, "15-30 mm"), (np.inf, ">30 mm"))
DENSITIES = ("solid", "part-solid", "ground glass", "unknown")
THICKNESSES = ((1.25, "slices <=1.25 mm"), (2.5, "slices 1.25-2.5 mm"), (np.inf, "slices >2.5 mm"))
#: Share of the inside above SOLID_HU: below the first a ground glass nodule, above the second a solid one.
_SOLID_SHARES = (0.10, 0.60)
_FEW_VOXELS = 8
_IN_PLANE = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]


@dataclass(frozen=True, eq=False)
class LabelledNodule:
    """One nodule of a label map.

    Attributes:
        value: its value in the label map.
        component: number of the component among those of that value, from 1, the largest first.
        mask: (nk, nj, ni) bool, the smallest block that holds it.
        offset_kji: index (k, j, i) of the block's first voxel in the volume.
        volume_mm3: number of voxels x voxel volume.
    """

    value: int
    component: int
    mask: NDArray[np.bool_]
    offset_kji: tuple[int, int, int]
    volume_mm3: float

    @property
    def name(self) -> str:
        """Unique in its case: ``value`` where the value has one component, else ``value.component``."""
        return f"{self.value}.{self.component}"

    @property
    def voxels(self) -> int:
        """Number of voxels inside."""
        return int(np.count_nonzero(self.mask))

    @property
    def diameter_mm(self) -> float:
        """Diameter of the sphere of the same volume."""
        return float(np.cbrt(6.0 / np.pi * self.volume_mm3))

    @property
    def slices_kji(self) -> tuple[slice, slice, slice]:
        """The block's place: ``volume[n.slices_kji]`` has the shape of ``n.mask``."""
        return block_slices(self)


def split_instances(
    labels_kji: NDArray, ijk_to_ras: ArrayLike, ignored: Collection[int] = ()
) -> tuple[LabelledNodule, ...]:
    """All nodules of a label map, ordered by value and falling size. None is dropped, however small.

    Label maps number their nodules (one value each), or give all of them one value; both come out the same. Voxels of
    a component touch by a face, an edge or a corner.

    Args:
        labels_kji: (K, J, I) whole numbers, 0 outside.
        ijk_to_ras: (4, 4), for the volume of a voxel.
        ignored: values that are no nodules (nnU-Net's "ignore" label).
    """
    labels = np.asarray(labels_kji)
    values: NDArray | None = None
    if labels.size and labels.max() > _LARGEST_INDEX:
        # Values that are codes rather than numbers: an index for each, or the search needs memory up to the largest.
        values = np.unique(labels[labels > 0])
        labels = np.where(labels > 0, np.searchsorted(values, labels) + 1, 0)
    voxel_mm3 = voxel_volume(np.asarray(ijk_to_ras, dtype=np.float64))
    nodules: list[LabelledNodule] = []
    for index, box in enumerate(ndimage.find_objects(labels.astype(np.int32, copy=False)), start=1):
        value = index if values is None else int(values[index - 1])
        if box is None or value in ignored:
            continue
        numbered, count = components(labels[box] == index)
        found: list[tuple[NDArray[np.bool_], tuple[int, int, int], float]] = []
        for number, part in enumerate(ndimage.find_objects(numbered), start=1):
            mask = numbered[part] == number
            k, j, i = (int(a.start + b.start) for a, b in zip(box, part, strict=True))
            found.append((mask, (k, j, i), float(np.count_nonzero(mask)) * voxel_mm3))
        found.sort(key=lambda item: -item[2])
        nodules += [LabelledNodule(value, n, *item) for n, item in enumerate(found[:count], start=1)]
    return tuple(nodules)


def size_group(diameter_mm: float) -> str:
    """Name of the size group of an equivalent diameter; a bound belongs to the group above it."""
    return next(name for bound, name in SIZES if diameter_mm < bound)


def thickness_group(ijk_to_ras: NDArray) -> str:
    """Name of the group of a scan's slice thickness (its spacing along the axis nearest to the patient's)."""
    thickness = slice_step(ijk_to_ras)
    return next(name for bound, name in THICKNESSES if thickness <= bound + 1e-3)


def density_group(array_kji: NDArray, nodule: LabelledNodule) -> str:
    """ "solid", "part-solid" or "ground glass" by the HU in the reference, "unknown" where the image holds no HU.

    The outermost voxels, which are half lung, are left out where enough remain. A share of at most 10 % above -300 HU
    is a vessel in ground glass; of 60 % and more, the rest is border.
    """
    if array_kji.min() > -200:
        return "unknown"
    inside = ndimage.binary_erosion(np.pad(nodule.mask, 1))[1:-1, 1:-1, 1:-1]
    if np.count_nonzero(inside) < _FEW_VOXELS:
        inside = ndimage.binary_erosion(np.pad(nodule.mask, 1), _IN_PLANE)[1:-1, 1:-1, 1:-1]
    if np.count_nonzero(inside) < _FEW_VOXELS:
        inside = nodule.mask
    share = float(np.mean(array_kji[nodule.slices_kji][inside] > SOLID_HU))
    low, high = _SOLID_SHARES
    return "ground glass" if share <= low else "solid" if share >= high else "part-solid"
