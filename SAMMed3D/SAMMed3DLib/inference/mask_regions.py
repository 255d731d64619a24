"""Connected components of a mask, and its most interior voxel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .errors import InputError

#: A voxel and all that touch it by a face, an edge or a corner.
NEIGHBORS_26 = np.ones((3, 3, 3), dtype=bool)


def components(mask: NDArray) -> tuple[NDArray[np.int32], int]:
    """Numbers the connected components of a mask; voxels that touch by a face, an edge or a corner belong together.

    Args:
        mask: of any number of axes, nonzero inside.

    Returns:
        an array of its shape, 0 outside and 1 to n inside, and n.
    """
    labels, count = ndimage.label(mask, np.ones((3,) * mask.ndim, dtype=bool))
    return labels, int(count)


def most_interior_voxel(
    mask_kji: NDArray, spacing_kji: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> tuple[int, int, int]:
    """Finds the voxel of a mask with the largest distance in mm to the background, which the array's border belongs to.

    Of several such voxels the one nearest to the mask's centroid is taken, so that the answer does not depend on the
    direction of the axes.

    Args:
        mask_kji: (K, J, I), nonzero inside.
        spacing_kji: voxel size in mm along k, j, i.

    Returns:
        (k, j, i) of a voxel inside the mask.

    Raises:
        InputError: the mask is empty or not three-dimensional.
    """
    inside = np.asarray(mask_kji) != 0
    if inside.ndim != 3:
        raise InputError(f"a mask has 3 axes, not {inside.ndim}")
    block = ndimage.find_objects(inside.astype(np.uint8))
    if not block:
        raise InputError("the mask is empty: there is no voxel to click")
    spacing = np.asarray(spacing_kji, dtype=np.float64)
    distance = ndimage.distance_transform_edt(np.pad(inside[block[0]], 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    deepest = np.argwhere(distance >= distance.max() * (1.0 - 1e-6))
    centroid = np.argwhere(inside[block[0]]).mean(axis=0)
    nearest = deepest[np.argmin(np.linalg.norm((deepest - centroid) * spacing, axis=1))]
    k, j, i = (int(index) + part.start for index, part in zip(nearest, block[0], strict=True))
    return k, j, i
