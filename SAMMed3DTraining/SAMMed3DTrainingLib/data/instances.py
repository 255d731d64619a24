"""From a label map to single nodules: every value, and in it every connected component, is one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from SAMMed3DLib.inference.geometry import voxel_volume

_LARGEST_INDEX = 65535
_TOUCHING = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True, eq=False)
class Nodule:
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
        k, j, i = (slice(start, start + n) for start, n in zip(self.offset_kji, self.mask.shape, strict=True))
        return k, j, i


def split_instances(
    labels_kji: NDArray, ijk_to_ras: ArrayLike, ignored: Collection[int] = ()
) -> tuple[Nodule, ...]:
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
    nodules: list[Nodule] = []
    for index, box in enumerate(ndimage.find_objects(labels.astype(np.int32, copy=False)), start=1):
        value = index if values is None else int(values[index - 1])
        if box is None or value in ignored:
            continue
        components, count = ndimage.label(labels[box] == index, _TOUCHING)
        found = []
        for number, part in enumerate(ndimage.find_objects(components), start=1):
            mask = components[part] == number
            first = tuple(int(a.start + b.start) for a, b in zip(box, part, strict=True))
            found.append((mask, first, float(np.count_nonzero(mask)) * voxel_mm3))
        found.sort(key=lambda item: -item[2])
        nodules += [Nodule(value, n, *item) for n, item in enumerate(found[:count], start=1)]
    return tuple(nodules)
