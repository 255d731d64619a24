"""The network's answer as a field of logits in the world: one low-resolution part per crop, blended where they overlap.

Interpolating this field is the only way from the network back to voxels; it is thresholded (> 0) after that, never
before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .geometry import transform_points, voxel_volume
from .preprocessing import Crop
from .sampling import sample_grid

#: Logit where no crop reaches.
OUTSIDE_LOGIT = -20.0
#: Logits carried into another crop are clamped to this, so that clicks can still correct them.
_LARGEST_PRIOR = 20.0
#: Around its click, within about this many radii of the object, a correction counts in full, far away with this share.
_NEAR_RADII, _FAR_SHARE = 0.5, 0.7


@dataclass(frozen=True, eq=False)
class Part:
    """Logits of one crop.

    Attributes:
        crop: the grid the network saw.
        logits: (m0, m1, m2) float32, the decoder's low-resolution mask on the crop's axes; cell m covers
            ``size / m`` crop voxels (align_corners=False).
        anchor_ras: (3,) the click whose surroundings gave the intensity statistics.
    """

    crop: Crop
    logits: NDArray[np.float32]
    anchor_ras: NDArray[np.float64]

    @property
    def cells_to_ras(self) -> NDArray[np.float64]:
        """Matrix (4, 4) from the index of a low-resolution cell to RAS mm."""
        return self.crop.crop_to_ras @ cells_to_crop(self.crop.shape, self.logits.shape)

    @property
    def cell_mm(self) -> float:
        """Edge of a cube with the volume of one low-resolution cell."""
        return float(self.crop.spacing_mm * (np.prod(self.crop.shape) / np.prod(self.logits.shape)) ** (1.0 / 3.0))

    def interiority(self, point_ras: ArrayLike) -> float:
        """How deep a point lies in the crop: 1 in its middle, 0 on its faces, negative outside."""
        size = np.array(self.crop.shape)
        depth = (self.crop.index_of(point_ras) + 0.5) / size
        return float(2.0 * np.minimum(depth, 1.0 - depth).min())


def cells_to_crop(crop_shape: Sequence[int], cells: Sequence[int]) -> NDArray[np.float64]:
    """Matrix (4, 4) from the index of a low-resolution cell to crop indices: ``(m + 0.5) * size / cells - 0.5``."""
    scale = np.array(crop_shape, dtype=np.float64) / np.array(cells, dtype=np.float64)
    affine = np.diag([*scale, 1.0])
    affine[:3, 3] = 0.5 * scale - 0.5
    return affine


def sample_parts(
    parts: Sequence[Part], grid_to_ras: NDArray, shape: tuple[int, int, int], outside: float = OUTSIDE_LOGIT
) -> NDArray[np.float32]:
    """Samples the field on a grid: trilinear in each part, and where parts overlap their weighted mean.

    The weights fall smoothly to zero at each crop's faces, so that the field has no step where a crop ends inside
    another one.

    Args:
        parts: at least one.
        grid_to_ras: (4, 4), grid index to RAS mm.
        shape: of the grid.
        outside: value where no part reaches.
    """
    to_cells = [np.linalg.inv(part.cells_to_ras) @ grid_to_ras for part in parts]
    samples = [sample_grid(part.logits, affine, shape, outside) for part, affine in zip(parts, to_cells, strict=True)]
    if len(parts) == 1:
        return samples[0]
    total = np.zeros(shape, dtype=np.float32)
    blended = np.zeros(shape, dtype=np.float32)
    for part, sampled in zip(parts, samples, strict=True):
        weight = _weights(part.crop, grid_to_ras, shape)
        total += weight
        blended += weight * sampled
    reached = total > 0.0
    np.divide(blended, total, out=blended, where=reached)
    # on the outermost faces every weight is zero though a part does reach there
    blended[~reached] = np.max(samples, axis=0)[~reached]
    return blended


def values_at(parts: Sequence[Part], points_ras: NDArray) -> NDArray[np.float32]:
    """Samples the field at single points (n, 3)."""
    values = []
    for point in points_ras:
        affine = np.eye(4)
        affine[:3, 3] = point
        values.append(sample_parts(parts, affine, (1, 1, 1))[0, 0, 0])
    return np.array(values, dtype=np.float32)


def _weights(crop: Crop, grid_to_ras: NDArray, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Blending weights of a crop: the product over its axes of sin^2, 1 in the middle, 0 on the faces and outside."""
    affine = np.linalg.inv(crop.crop_to_ras) @ grid_to_ras
    steps = [np.arange(n, dtype=np.float64) for n in shape]
    weight = np.ones(shape, dtype=np.float32)
    for axis, size in enumerate(crop.shape):
        position = (
            affine[axis, 3]
            + (affine[axis, 0] * steps[0])[:, None, None]
            + (affine[axis, 1] * steps[1])[None, :, None]
            + (affine[axis, 2] * steps[2])[None, None, :]
        )
        depth = np.clip((position + 0.5) / size, 0.0, 1.0).astype(np.float32)
        weight *= np.sin(np.float32(np.pi) * depth) ** 2
    weight[weight < 1e-12] = 0.0
    return weight


def prior_logits(parts: Sequence[Part], crop: Crop, cells: tuple[int, int, int] = (32, 32, 32)) -> NDArray[np.float32]:
    """Resamples the present logits to the low-resolution grid of a crop: the mask prompt for the next decoding.

    The only part's logits stay unchanged on its own crop; otherwise they are clamped, and 0 (undecided) where no part
    reaches.
    """
    if len(parts) == 1 and parts[0].crop == crop and parts[0].logits.shape == cells:
        return parts[0].logits
    grid_to_ras = crop.crop_to_ras @ cells_to_crop(crop.shape, cells)
    return np.clip(sample_parts(parts, grid_to_ras, cells, outside=0.0), -_LARGEST_PRIOR, _LARGEST_PRIOR)


def corrected(part: Part, before: NDArray[np.float32], click_ras: NDArray) -> Part:
    """Makes a correction count in full around its click, and less the further away: what nobody clicked stays steady.

    Args:
        part: the network's answer to the click.
        before: logits of the mask before it, of the same cells.
        click_ras: (3,) mm.

    Returns:
        the part with the weighted means of both logits; the weight of the answer is 1 at the click.
    """
    centers = transform_points(part.cells_to_ras, np.argwhere(np.ones_like(part.logits, dtype=bool)))
    squared = ((centers - click_ras) ** 2).sum(axis=1).reshape(part.logits.shape)
    radius = np.cbrt(3.0 / (4.0 * np.pi) * np.count_nonzero(before > 0.0) * voxel_volume(part.cells_to_ras))
    weight = np.maximum(np.exp(-0.5 * squared / (_NEAR_RADII * radius) ** 2), _FAR_SHARE).astype(np.float32)
    logits = weight * part.logits + (np.float32(1.0) - weight) * before
    logits.setflags(write=False)
    return dataclasses.replace(part, logits=logits)


def block_to_ras(ijk_to_ras: NDArray, offset_kji: Sequence[int] | NDArray) -> NDArray[np.float64]:
    """Matrix (4, 4) from the index (k, j, i) within a block of the volume to RAS mm."""
    affine = np.eye(4)
    affine[:3, :3] = ijk_to_ras[:3, [2, 1, 0]]
    affine[:3, 3] = transform_points(ijk_to_ras, np.asarray(offset_kji)[::-1])
    return affine
