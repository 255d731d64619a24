"""Turns an existing mask into a prompt: from voxels to the low-resolution logits that the decoder takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .field import block_to_ras
from .geometry import box_corners, transform_points, voxel_volume
from .postprocessing import tight_block
from .preprocessing import Crop
from .sampling import sample_grid

#: Logit of a cell that lies wholly inside the mask.
_FULL_LOGIT = 8.0


def mask_block(mask: Any, shape_kji: Sequence[int]) -> tuple[NDArray[np.bool_], tuple[int, int, int]]:
    """Cuts out the smallest block of a mask; returns it and its first voxel (k, j, i).

    Args:
        mask: (K, J, I) array of the volume's shape (0 outside), or an object with ``mask`` and ``offset_kji``.
        shape_kji: shape of the volume.

    Raises:
        InputError: another shape, a block that leaves the volume, or an empty mask.
    """
    offset = np.array(getattr(mask, "offset_kji", (0, 0, 0)), dtype=np.int64)
    values = np.asarray(getattr(mask, "mask", mask))
    if values.ndim != 3 or np.any(offset < 0) or np.any(offset + np.array(values.shape) > np.array(shape_kji)):
        raise InputError(
            f"the mask has shape {values.shape} at {tuple(offset)}, the volume has {tuple(shape_kji)}: "
            "give a mask of the volume's shape [k, j, i]"
        )
    if not hasattr(mask, "offset_kji") and values.shape != tuple(shape_kji):
        raise InputError(f"the mask has shape {values.shape}, the volume {tuple(shape_kji)}: they must be the same")
    block, start = tight_block(values != 0)
    if not block.any():
        raise InputError("the mask is empty: give points or a box instead")
    start = start + offset
    return block, (int(start[0]), int(start[1]), int(start[2]))


def mask_extent(
    block: NDArray[np.bool_], offset_kji: Sequence[int], ijk_to_ras: NDArray
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Measures a mask: equivalent diameter (mm), edges of its bounding box along R, A, S (3,), and its center (3,)."""
    corners = box_corners([-0.5] * 3, np.array(block.shape) - 0.5)
    world = transform_points(block_to_ras(ijk_to_ras, offset_kji), corners)
    volume = np.count_nonzero(block) * voxel_volume(ijk_to_ras)
    low, high = world.min(axis=0), world.max(axis=0)
    return float((6.0 / np.pi * volume) ** (1.0 / 3.0)), high - low, (low + high) / 2.0


def logits_of_mask(
    block: NDArray[np.bool_],
    offset_kji: Sequence[int],
    ijk_to_ras: NDArray,
    crop: Crop,
    cells: tuple[int, int, int] = (32, 32, 32),
) -> NDArray[np.float32]:
    """Makes logits on a crop's low-resolution grid: linear in the share of a cell that the mask covers, 0 at half."""
    padded = np.pad(block, 1).astype(np.float32)
    to_block = np.linalg.inv(block_to_ras(ijk_to_ras, np.asarray(offset_kji) - 1))
    factors = [max(1, round(size / n)) for size, n in zip(crop.shape, cells, strict=True)]
    fine_shape = tuple(n * factor for n, factor in zip(cells, factors, strict=True))
    fine_to_crop = np.diag([*(np.array(crop.shape) / np.array(fine_shape)), 1.0])
    fine_to_crop[:3, 3] = 0.5 * np.diag(fine_to_crop)[:3] - 0.5
    fine = sample_grid(padded, to_block @ crop.crop_to_ras @ fine_to_crop, fine_shape, 0.0)
    split = [length for n, factor in zip(cells, factors, strict=True) for length in (n, factor)]
    coverage = fine.reshape(split).mean(axis=(1, 3, 5))
    return (2.0 * coverage - 1.0) * np.float32(_FULL_LOGIT)
