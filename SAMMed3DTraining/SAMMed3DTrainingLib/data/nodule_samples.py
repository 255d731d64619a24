"""Makes training samples from labelled scans: one click on one object in one crop, seen as inference sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SAMMed3DLib.inference.field import block_to_ras
from SAMMed3DLib.inference.geometry import slice_step, transform_points, voxel_spacing
from SAMMed3DLib.inference.preprocessing import Crop, crop_at, intensity_statistics, normalize_crop, sample_volume
from SAMMed3DLib.inference.sampling import sample_grid
from SAMMed3DLib.model.profile import PreprocessingProfile

from .augmentation import NO_AUGMENTATION, Augmentation
from .case_cache import CachedCase
from .clicks import ClickSimulator
from .instances import LabelledNodule

#: Share of samples that look as inference first does: at the profile's first spacing, centered on the click.
_FIRST_LOOKS = 0.45
_FIRST_CLICKS = ("challenge", "random", "jitter")
_FIRST_CLICK_SHARES = (0.3, 0.5, 0.2)
#: An empty sample's click keeps this far from every nodule.
_CLEARANCE_MM = 8.0
_PLACES = 256


class NoduleSampler:
    """Samples of the nodules of some cases. No nodule is left out, whatever its size."""

    def __init__(
        self, cases: Sequence[CachedCase], profile: PreprocessingProfile, augmentation: Augmentation = NO_AUGMENTATION
    ) -> None:
        self._cases = list(cases)
        self._profile = profile
        self._augmentation = augmentation
        self._nodules = [(case, nodule) for case in self._cases for nodule in case.nodules]

    def __len__(self) -> int:
        """Number of nodules."""
        return len(self._nodules)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """A view of nodule ``index``; everything random comes from ``rng``."""
        case, nodule = self._nodules[index]
        spacing_kji = voxel_spacing(case.ijk_to_ras)[::-1]
        method = _FIRST_CLICKS[rng.choice(3, p=_FIRST_CLICK_SHARES)]
        nothing = np.zeros_like(nodule.mask)
        click = ClickSimulator(method, seed=rng).next_click(nodule.mask, nothing, tuple(spacing_kji))
        assert click is not None  # a nodule has voxels
        click_kji = np.asarray(click[0]) + nodule.offset_kji
        middle_kji = np.array(nodule.offset_kji) + (np.array(nodule.mask.shape) - 1) / 2

        center = transform_points(case.ijk_to_ras, middle_kji[::-1])
        matrix = self._augmentation.placed(case.ijk_to_ras, center, rng)
        click_ras = transform_points(matrix, click_kji[::-1].astype(float))
        grown = float(np.cbrt(abs(np.linalg.det(matrix[:3, :3]) / np.linalg.det(case.ijk_to_ras[:3, :3]))))
        crop = self._crop(matrix, click_ras, center, nodule.diameter_mm * grown, rng)
        truth = _truth(nodule, matrix, crop, click_ras)
        index_of_click = crop.index_of(click_ras)
        inside = np.clip(np.floor(index_of_click + 0.5).astype(int), 0, np.array(truth.shape) - 1)
        if not truth[tuple(inside)]:
            inside_truth = np.argwhere(truth)
            index_of_click = inside_truth[rng.integers(len(inside_truth))]
        image = self._image(case.array_kji, matrix, crop, click_ras, rng)
        return Sample(
            image, truth, np.asarray(index_of_click, np.float32), crop.spacing_mm, "unknown", nodule.diameter_mm
        )

    def empty(self, rng: np.random.Generator) -> Sample:
        """A click on something in or near the lung that is no nodule; it teaches what a bad mask is.

        Raises:
            ValueError: there is no case.
        """
        if not self._cases:
            raise ValueError("empty samples need at least one case")
        case = self._cases[rng.integers(len(self._cases))]
        voxel = _elsewhere(case, rng)
        place = transform_points(case.ijk_to_ras, voxel[::-1].astype(float))
        matrix = self._augmentation.placed(case.ijk_to_ras, place, rng)
        crop = self._crop(matrix, place, place, float(np.exp(rng.uniform(np.log(3.0), np.log(20.0)))), rng)
        image = self._image(case.array_kji, matrix, crop, place, rng)
        click = np.asarray(crop.index_of(place), np.float32)
        return Sample(image, np.zeros(crop.shape, bool), click, crop.spacing_mm, "none", 0.0)

    def _crop(
        self, matrix: NDArray, click_ras: NDArray, center_ras: NDArray, diameter_mm: float, rng: np.random.Generator
    ) -> Crop:
        """A first look, or one that is zoomed to the nodule with the nodule near the middle."""
        profile = self._profile
        if profile.spacing_mm is None:
            return crop_at(click_ras, None, profile, matrix)
        if rng.random() < _FIRST_LOOKS:
            return crop_at(click_ras, profile.spacing_mm, profile, matrix)
        low, high = profile.spacing_range_mm
        wanted = max(diameter_mm, 1.0) / profile.target_voxels * np.exp(rng.normal(0.0, 0.3))
        spacing = float(np.clip(wanted, low, high))
        if rng.random() < 0.35:
            return crop_at(click_ras, spacing, profile, matrix)
        # The click must stay inside whatever the offset.
        reach = 0.4 * spacing * np.array(profile.crop_size)
        center = center_ras + rng.normal(0.0, 3.0 * spacing, 3)
        return crop_at(np.clip(center, click_ras - reach, click_ras + reach), spacing, profile, matrix)

    def _image(
        self, array_kji: NDArray, matrix: NDArray, crop: Crop, click_ras: NDArray, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        profile = self._profile
        values = sample_volume(array_kji, matrix, crop, profile.outside_hu)
        values = self._augmentation.looked(values, crop.spacing_mm, rng, slice_step(matrix))
        statistics = 0.0, 1.0
        if profile.intensity == "zscore_positive":
            statistics = intensity_statistics(array_kji, matrix, click_ras, profile)
        return normalize_crop(values, crop.spacing_mm, profile, statistics)


def _truth(nodule: LabelledNodule, matrix: NDArray, crop: Crop, click_ras: NDArray) -> NDArray[np.bool_]:
    """The nodule on the crop's grid, smooth and of unchanged volume.

    One smaller than the grid's voxels becomes the voxel that holds the click.
    """
    padded = np.pad(nodule.mask, 1).astype(np.float32)
    to_ras = block_to_ras(matrix, np.array(nodule.offset_kji) - 1)
    share = sample_grid(padded, np.linalg.inv(to_ras) @ crop.crop_to_ras, crop.shape, 0.0)
    # Interpolation keeps the sum; a threshold of one half would make everything convex smaller.
    voxels = round(float(share.sum(dtype=np.float64)))
    positive = share[share > 0.0]
    level = np.partition(positive, -voxels)[-voxels] if 0 < voxels <= positive.size else np.inf
    truth = share >= level
    if not truth.any():
        voxel = np.clip(np.floor(crop.index_of(click_ras) + 0.5).astype(int), 0, np.array(crop.shape) - 1)
        truth[tuple(voxel)] = True
    return truth


def _elsewhere(case: CachedCase, rng: np.random.Generator) -> NDArray[np.int64]:
    """A voxel [k, j, i] away from every nodule, if possible one that is brighter than the lung around it."""
    shape = np.array(case.array_kji.shape)
    spacing = voxel_spacing(case.ijk_to_ras)[::-1]
    places = (rng.random((_PLACES, 3)) * shape).astype(np.int64)
    free = np.ones(len(places), bool)
    for nodule in case.nodules:
        low = np.array(nodule.offset_kji)
        gap = np.maximum(np.maximum(low - places, places - (low + nodule.mask.shape - 1)), 0) * spacing
        free &= np.linalg.norm(gap, axis=1) > _CLEARANCE_MM
    places = places[free] if free.any() else places
    best = places[0]
    for place in places[:_PLACES]:
        reach = np.ceil(6.0 / spacing).astype(int)
        low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, shape)
        around = case.array_kji[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        if -950.0 < np.median(around) < -500.0:
            bright = ndimage.maximum_position(around)
            near = low + np.array(bright)
            return near if rng.random() < 0.6 else place
    return best


@dataclass(frozen=True)
class Sample:
    """One click on one nodule.

    Attributes:
        crop: float32 (C, d0, d1, d2), prepared as the profile says.
        truth: bool (d0, d1, d2); empty where the click is on no nodule.
        click: (3,) crop index of the first click.
        spacing_mm: of the crop.
        kind: solid, part-solid, ground-glass, unknown or none (no nodule).
        diameter_mm: of the nodule.
        known: bool (d0, d1, d2), False where nobody knows whether there is nodule: no loss there. None = all known.
        second_click: (3,) crop index of another first click, whose mask should be the same; None without one.
    """

    crop: np.ndarray
    truth: np.ndarray
    click: np.ndarray
    spacing_mm: float
    kind: str
    diameter_mm: float
    known: np.ndarray | None = None
    second_click: np.ndarray | None = None


def flipped(sample: Sample, rng: np.random.Generator) -> Sample:
    """Random mirror images along every axis and exchange of the two in-plane axes."""
    arrays = {name: getattr(sample, name) for name in ("crop", "truth", "known")}
    clicks = {name: getattr(sample, name) for name in ("click", "second_click")}
    arrays = {name: value for name, value in arrays.items() if value is not None}
    clicks = {name: np.array(value) for name, value in clicks.items() if value is not None}
    for axis in range(3):
        if rng.random() < 0.5:
            arrays = {name: np.flip(value, axis - 3) for name, value in arrays.items()}
            for click in clicks.values():
                click[axis] = sample.truth.shape[axis] - 1 - click[axis]
    if rng.random() < 0.5:
        arrays = {name: value.swapaxes(-3, -2) for name, value in arrays.items()}
        clicks = {name: click[[1, 0, 2]] for name, click in clicks.items()}
    changed: dict[str, Any] = {**{name: np.ascontiguousarray(value) for name, value in arrays.items()}, **clicks}
    return replace(sample, **changed)
