"""Makes the network's input: a crop sampled directly from the volume and normalized as the profile says.

Crop tensors have the axes (d0, d1, d2) = (R, A, S): left to right, posterior to anterior, inferior to superior.
Only the part of the volume under the crop is read; the volume is never resampled or copied as a whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..model.profile import PreprocessingProfile
from .geometry import Affine, closest_ras_axes, transform_points, voxel_index, voxel_volume, world_to_ijk
from .sampling import sample_grid

#: Spacing at which the intensity statistics are taken: that of the public checkpoints' training data.
_STATISTICS_SPACING_MM = 1.5
#: Fewer positive voxels than this say nothing about the intensities of soft tissue.
_FEWEST_POSITIVE_VOXELS = 64


@dataclass(frozen=True, eq=False)
class Crop:
    """The grid in the world that the network sees.

    Attributes:
        crop_to_ras: 4x4, crop index (d0, d1, d2) to RAS mm; read-only.
        shape: voxels along d0, d1, d2.
    """

    crop_to_ras: Affine
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        affine = np.array(self.crop_to_ras, dtype=np.float64)
        affine.setflags(write=False)
        object.__setattr__(self, "crop_to_ras", affine)
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Crop) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> tuple[bytes, tuple[int, int, int]]:
        """A dictionary key that is equal for crops that agree to a nanometer."""
        return (np.round(self.crop_to_ras, 6) + 0.0).tobytes(), self.shape

    @property
    def spacing_mm(self) -> float:
        """Edge of a cube with the volume of one crop voxel."""
        return voxel_volume(self.crop_to_ras) ** (1.0 / 3.0)

    @property
    def center_ras(self) -> NDArray[np.float64]:
        """World position of index ``size // 2``, where the click lies."""
        return transform_points(self.crop_to_ras, [size // 2 for size in self.shape])

    def index_of(self, points_ras: ArrayLike) -> NDArray[np.float64]:
        """Continuous crop indices (d0, d1, d2) of RAS points (..., 3)."""
        return world_to_ijk(self.crop_to_ras, points_ras)

    def contains(self, point_ras: ArrayLike, margin: float = 0.0) -> bool:
        """Whether a point lies inside, at least ``margin`` crop voxels away from every face."""
        index = self.index_of(point_ras)
        return bool(np.all(index >= margin - 0.5) and np.all(index <= np.array(self.shape) - 0.5 - margin))


def crop_at(
    center_ras: ArrayLike, spacing_mm: float | None, profile: PreprocessingProfile, ijk_to_ras: NDArray
) -> Crop:
    """Makes the crop of ``profile.crop_size`` voxels with ``center_ras`` on index ``size // 2``.

    Args:
        center_ras: (3,) mm, the click or the middle of an object.
        spacing_mm: edge of a crop voxel; None (or a profile whose spacing is None) takes the volume's own voxels,
            permuted and flipped to the closest R, A, S, and the voxel that holds ``center_ras`` as the center.
        profile: gives the crop's size.
        ijk_to_ras: the volume's matrix, (4, 4).
    """
    size = np.array(profile.crop_size)
    crop_to_ras = np.eye(4)
    if spacing_mm is None or profile.spacing_mm is None:
        axes, signs = closest_ras_axes(ijk_to_ras)
        crop_to_ras[:3, :3] = ijk_to_ras[:3, list(axes)] * np.array(signs)
        center = transform_points(ijk_to_ras, voxel_index(world_to_ijk(ijk_to_ras, center_ras)))
    else:
        crop_to_ras[:3, :3] *= float(spacing_mm)
        center = np.asarray(center_ras, dtype=np.float64)
    crop_to_ras[:3, 3] = center - crop_to_ras[:3, :3] @ (size // 2)
    return Crop(crop_to_ras, (int(size[0]), int(size[1]), int(size[2])))


def sample_volume(array_kji: NDArray, ijk_to_ras: NDArray, crop: Crop, cval: float | None) -> NDArray[np.float32]:
    """Samples the volume on the crop's grid by one trilinear interpolation, float32 (d0, d1, d2).

    A crop voxel whose center lies in the volume's box (outer voxel faces included; the last half voxel repeats the
    border voxel) is interpolated, every other one is ``cval`` or, without one, the nearest voxel of the border.
    There is no smoothing before: the public code has none.

    Args:
        array_kji: (K, J, I), any numeric dtype and memory order.
        ijk_to_ras: (4, 4).
        crop: the grid.
        cval: value outside the volume; None goes on with its border.
    """
    crop_to_ijk = np.linalg.inv(ijk_to_ras) @ crop.crop_to_ras
    return sample_grid(array_kji.transpose(2, 1, 0), crop_to_ijk, crop.shape, cval)


def intensity_statistics(
    array_kji: NDArray, ijk_to_ras: NDArray, center_ras: ArrayLike, profile: PreprocessingProfile
) -> tuple[float, float]:
    """Mean and unbiased standard deviation of the voxels > 0 in the cube of ``profile.statistics_mm`` at a point.

    The cube is sampled at 1.5 mm, which for 192 mm is the very crop that the public code normalizes. Where hardly a
    voxel is positive (deep in a cropped lung) or all are the same, the whole cube inside the volume is used instead;
    a constant image gets a standard deviation of 1.
    """
    crop = _statistics_crop(center_ras, profile)
    return _statistics_of(sample_volume(array_kji, ijk_to_ras, crop, np.nan))


def prepare_crop(
    array_kji: NDArray,
    ijk_to_ras: NDArray,
    crop: Crop,
    profile: PreprocessingProfile,
    statistics_center_ras: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Makes the network's input for a crop: sampled, padded and normalized, float32 (C, d0, d1, d2).

    Args:
        array_kji: (K, J, I) in HU.
        ijk_to_ras: (4, 4).
        crop: the grid to sample.
        profile: padding, intensity rule and channels.
        statistics_center_ras: (3,) center of the cube for the z-score, usually the click; None = the crop's center.
    """
    values = sample_volume(array_kji, ijk_to_ras, crop, profile.outside_hu)
    statistics = 0.0, 1.0
    if profile.intensity == "zscore_positive":
        center = crop.center_ras if statistics_center_ras is None else statistics_center_ras
        same = profile.outside_hu == 0.0 and crop == _statistics_crop(center, profile)
        statistics = _positive_statistics(values) if same else (0.0, 0.0)
        if statistics[1] <= 0.0:
            statistics = intensity_statistics(array_kji, ijk_to_ras, center, profile)
    return normalize_crop(values, crop.spacing_mm, profile, statistics)


def normalize_crop(
    values: NDArray[np.float32], spacing_mm: float, profile: PreprocessingProfile, statistics: tuple[float, float]
) -> NDArray[np.float32]:
    """Normalizes sampled HU (d0, d1, d2) to the network's input (C, d0, d1, d2), float32.

    Args:
        values: of :func:`sample_volume`; may be overwritten.
        spacing_mm: of the crop, for the spacing channel.
        profile: intensity rule and channels.
        statistics: mean and deviation for the z-score, of :func:`intensity_statistics`.
    """
    if profile.intensity == "zscore_positive":
        values -= np.float32(statistics[0])
        values /= np.float32(statistics[1])
        channels = [values]
    else:
        channels = [np.clip((values - low) / (high - low), 0.0, 1.0) for low, high in profile.windows_hu]
    if profile.spacing_channel:
        channels.append(np.full(values.shape, math.log2(spacing_mm), dtype=np.float32))
    return np.stack(channels).astype(np.float32, copy=False)


def _statistics_crop(center_ras: ArrayLike, profile: PreprocessingProfile) -> Crop:
    size = max(1, round(profile.statistics_mm / _STATISTICS_SPACING_MM))
    crop_to_ras = np.eye(4)
    crop_to_ras[:3, :3] *= _STATISTICS_SPACING_MM
    crop_to_ras[:3, 3] = np.asarray(center_ras, dtype=np.float64) - _STATISTICS_SPACING_MM * (size // 2)
    return Crop(crop_to_ras, (size, size, size))


def _positive_statistics(values: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and unbiased deviation of the values > 0 (NaN does not count), or (0, 0) where they say nothing."""
    positive = values[values > 0]
    if positive.size < _FEWEST_POSITIVE_VOXELS:
        return 0.0, 0.0
    mean = float(positive.mean(dtype=np.float64))
    deviation = float(positive.std(dtype=np.float64, ddof=1))
    return (mean, deviation) if deviation > 1e-3 else (0.0, 0.0)


def _statistics_of(values: NDArray[np.float32]) -> tuple[float, float]:
    mean, deviation = _positive_statistics(values)
    if deviation > 0.0:
        return mean, deviation
    inside = values[np.isfinite(values)]
    if inside.size == 0:
        return 0.0, 1.0
    mean, deviation = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
    return mean, deviation if deviation > 1e-3 else 1.0
