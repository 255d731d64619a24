"""Makes training samples of real nodules from tight crops with every reader's mask (``lidc_voi``).

A crop ends a few voxels beyond its nodule, so that what the network sees around it has to be made up, in a new way each
time lest it be learned: the crop's own edge carried on with noise, a real lung that the edge fades into, or the bare
edge (what inference makes of a volume that ends there).  Beyond a face where the nodule runs out of its crop there is
no loss, since its course is not known.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SAMMed3DLib.inference.geometry import transform_points, voxel_spacing
from SAMMed3DLib.inference.preprocessing import Crop, crop_at, prepare_crop
from SAMMed3DLib.inference.sampling import sample_grid
from SAMMed3DLib.inference.zoom import ZoomPolicy
from SAMMed3DLib.model.profile import PreprocessingProfile
from SAMMed3DLib.synthesis import NoduleShapes
from SAMMed3DLib.synthesis.nodules import correlated_noise
from SAMMed3DTrainingLib.data.clicks import bounding_box, interior_distance
from SAMMed3DTrainingLib.data.nodule_samples import Sample, flipped

from .backgrounds import Background

REAL_CROPS = "lidc_voi"
"""Their folder in the shared data."""
SURROUNDS = ("edge", "lung", "end")
SURROUND_SHARES = (0.45, 0.45, 0.10)
FIRST_CLICKS = ("inner", "center", "border", "outside", "anywhere")
FIRST_CLICK_SHARES = (0.40, 0.20, 0.25, 0.10, 0.05)
FIRST_LOOKS = 0.3
"""Share of samples that look as inference first does: at the profile's first spacing, centered on the click."""
MASS_SHARE = 0.07
MASS_MM = (30.0, 100.0)
_MASS_FROM_MM = 8.0
GLASS_SHARE = 0.12
"""Share of samples that are ground glass or part-solid, enlarged: hardly a real one here is over 15 mm."""
GLASS_MM = (12.0, 34.0)
_GLASS_FROM_MM = 6.0
_MARGIN_MM = (20.0, 36.0)
_FEWEST_VOXELS = 6


@dataclass(frozen=True, eq=False)
class RealCrop:
    """A real nodule in its tight crop.

    Attributes:
        name: of the file.
        hu: float32 [k, j, i].
        votes: bool (readers, k, j, i), outlines excluded.
        ijk_to_ras: (4, 4).
        diameter_mm: of the consensus.
        texture: mean rating, 1 ground glass to 5 solid.
        margin, lobulation, spiculation: mean ratings, 1 to 5; a margin of 1 is blurred.
        open_below, open_above: whether the nodule reaches the first, the last slice.
    """

    name: str
    hu: NDArray[np.float32]
    votes: NDArray[np.bool_]
    ijk_to_ras: NDArray[np.float64]
    diameter_mm: float
    texture: float
    margin: float
    lobulation: float
    spiculation: float
    open_below: bool
    open_above: bool

    @property
    def consensus(self) -> NDArray[np.bool_]:
        """Voxels that at least half of the readers enclosed."""
        return consensus_of(self.votes)

    @property
    def weight(self) -> float:
        """Relative frequency of drawing it: higher for rare and hard nodules."""
        weight = 3.5 if self.texture <= 3 else 1.0
        if self.diameter_mm > 15:
            weight = max(weight, 2.0) * 1.5
        if self.margin <= 3 or self.spiculation >= 3 or self.lobulation >= 3:
            weight *= 1.5
        return min(weight, 6.0) * (0.6 if self.open_below or self.open_above else 1.0)


def consensus_of(votes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Computes the voxels (k, j, i) of at least half of the readers' masks (readers, k, j, i)."""
    return (votes.mean(axis=0) >= 0.5) & votes.any(axis=0)


def training_shapes(shared_data: Path) -> NoduleShapes:
    """The shapes that training may draw: without those of the scans that acceptance keeps back, if a list names any."""
    file = shared_data / REAL_CROPS / "held_back_scans.txt"
    kept_back = [int(line) for line in file.read_text(encoding="utf-8").split()] if file.exists() else []
    return NoduleShapes.load(without_scans=kept_back)


def read_crops(folder: Path, split: str = "train") -> list[RealCrop]:
    """The crops of one split (see the folder's README), in the order of its index."""
    with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return [_read(folder, row) for row in rows]


def _read(folder: Path, row: dict[str, str]) -> RealCrop:
    with np.load(folder / f"{row['name']}.npz", allow_pickle=False) as data:
        hu, readers = data["hu"].astype(np.float32), int(data["nvotes"])
        votes = np.unpackbits(data["votes"])[: readers * hu.size].reshape(readers, *hu.shape).astype(bool)
        affine = np.asarray(data["affine"], np.float64)
    number = {
        key: float(row[key]) if row[key] else np.nan
        for key in ("texture", "margin", "lobulation", "spiculation", "equivalent_diameter_mm")
    }
    return RealCrop(
        row["name"],
        hu,
        votes,
        affine,
        number["equivalent_diameter_mm"],
        number["texture"],
        number["margin"],
        number["lobulation"],
        number["spiculation"],
        int(row["slices_below"]) < 1,
        int(row["slices_above"]) < 1,
    )


class RealSampler:
    """Draws samples from crops; everything random comes from ``rng``.

    Args:
        crops: of patients that training may use.
        backgrounds: real lungs around them.
        profile: how a crop is prepared.
        rng: source of all randomness.
    """

    def __init__(
        self,
        crops: Sequence[RealCrop],
        backgrounds: Sequence[Background],
        profile: PreprocessingProfile,
        rng: np.random.Generator,
    ) -> None:
        self._crops, self._backgrounds, self._profile, self._rng = list(crops), list(backgrounds), profile, rng
        self._zoom = ZoomPolicy(profile)
        weights = np.array([crop.weight for crop in self._crops])
        self._shares = weights / weights.sum()
        whole = np.array([not (crop.open_below or crop.open_above) for crop in self._crops])
        diameters = np.array([crop.diameter_mm for crop in self._crops])
        glass = np.array([crop.texture <= 3.5 for crop in self._crops])
        self._enlarging = [
            (share, limits_mm, np.flatnonzero(chosen))
            for share, limits_mm, chosen in (
                (MASS_SHARE, MASS_MM, whole & (diameters >= _MASS_FROM_MM)),
                (GLASS_SHARE, GLASS_MM, whole & glass & (diameters >= _GLASS_FROM_MM)),
            )
        ]

    def sample(self) -> Sample:
        """The next sample."""
        while True:
            sample = self.sample_of(*self._drawn())
            if sample is not None:
                return sample

    def _drawn(self) -> tuple[RealCrop, float | None]:
        """A nodule and the diameter that it is enlarged to, mm."""
        draw = self._rng.random()
        for share, limits_mm, chosen in self._enlarging:
            if len(chosen) and draw < share:
                crop = self._crops[self._rng.choice(chosen)]
                return crop, float(np.exp(self._rng.uniform(*np.log(limits_mm))))
            draw -= share
        return self._crops[self._rng.choice(len(self._crops), p=self._shares)], None

    def sample_of(self, nodule: RealCrop, enlarged_mm: float | None = None) -> Sample | None:
        """A view of one nodule, enlarged to a diameter where one is given; None where too little of it is seen."""
        rng = self._rng
        truth = nodule.consensus
        hu, affine, diameter = nodule.hu, nodule.ijk_to_ras.copy(), nodule.diameter_mm
        if enlarged_mm is not None and enlarged_mm > diameter:
            hu, truth, affine = _enlarged(hu, truth, affine, enlarged_mm / diameter)
            diameter = enlarged_mm
        block = self._surrounded(hu, truth, affine, nodule)
        scale = 1.0 if enlarged_mm else float(np.exp(rng.normal(0, 0.12)))
        turned = self._placed(block.ijk_to_ras, scale)
        diameter *= scale
        truth = np.pad(truth, block.width)

        spacing_kji = voxel_spacing(turned)[::-1]
        clicks = [self._click(truth, spacing_kji, block.width) for _ in range(2)]
        clicks_ras = [transform_points(turned, click[::-1]) for click in clicks]
        crop = self._view(truth, turned, diameter, clicks_ras)
        scanned_hu, scanned_affine = self._scanned(block.hu, turned)
        image = prepare_crop(scanned_hu, scanned_affine, crop, self._profile)
        truth_on = _mask_on_crop(truth, turned, crop)
        known_on = None
        if block.unknown is not None:
            known_on = _on_crop(block.unknown.astype(np.float32), turned, crop) < 0.05
            truth_on &= known_on
        if truth_on.sum() < _FEWEST_VOXELS:
            return None
        first, second = (np.asarray(crop.index_of(click), np.float32) for click in clicks_ras)
        limit = np.array(crop.shape) - 1
        second_click = None if np.any(second < 0) or np.any(second > limit) else second
        kind = "ground-glass" if nodule.texture <= 2 else "part-solid" if nodule.texture <= 3.5 else "solid"
        sample = Sample(
            image,
            truth_on,
            np.clip(first, 0, limit).astype(np.float32),
            crop.spacing_mm,
            kind,
            diameter,
            known=known_on,
            second_click=second_click,
        )
        return flipped(sample, rng)

    # -- around the crop -----------------------------------------------------------------------------------------------

    def _surrounded(
        self, hu: NDArray[np.float32], mask: NDArray[np.bool_], affine: NDArray, nodule: RealCrop
    ) -> _CropAround:
        rng = self._rng
        kind = SURROUNDS[rng.choice(3, p=SURROUND_SHARES)]
        spacing = voxel_spacing(affine)[::-1]
        count = np.ceil(rng.uniform(*_MARGIN_MM) / spacing).astype(int)
        width = tuple((int(n), int(n)) for n in count)
        moved = affine.copy()
        moved[:3, 3] -= affine[:3, :3] @ count[::-1]
        lung = hu[(hu < -600) & (hu > -1000)]
        level = float(np.median(lung)) if lung.size > 50 else -850.0
        shadow = np.pad(ndimage.binary_dilation(mask.any(axis=0), iterations=3), width[1:])
        out = np.pad(hu, width, mode="edge")
        if kind == "end":
            pass  # as inference goes on where a volume ends
        elif kind == "edge" or not self._backgrounds:
            self._carry_on(out, hu, level, shadow, width)
        else:
            self._fade_into_lung(out, moved, level, shadow, width, spacing, hu)
        unknown = None
        if nodule.open_below or nodule.open_above:
            unknown = np.zeros(out.shape, bool)
            below, above = width[0][0], width[0][0] + len(hu)
            if nodule.open_below:
                unknown[:below] = shadow
            if nodule.open_above:
                unknown[above:] = shadow
        return _CropAround(out, moved, unknown, width)

    def _carry_on(
        self,
        out: NDArray[np.float32],
        hu: NDArray[np.float32],
        level: float,
        shadow: NDArray[np.bool_],
        width: tuple[tuple[int, int], ...],
    ) -> None:
        """Continues the crop's edge with noise; above and below, with lung where the nodule was."""
        rng = self._rng
        near = hu[np.abs(hu - level) < 120]
        sd = min(60.0, float(near.std())) if near.size > 50 else 30.0
        (pz, _), (py, _), (px, _) = width
        for part in (slice(0, pz), slice(pz + len(hu), None)):
            block = out[part]
            noise = ndimage.gaussian_filter(rng.standard_normal(block.shape, np.float32), (0.4, 0.7, 0.7))
            fill = shadow[None] & (block < -200)
            block[fill] = (level + noise * (sd / max(float(noise.std()), 1e-6)))[fill]
        beside = np.ones(out.shape, bool)
        beside[:, py:-py, px:-px] = False
        noise = rng.standard_normal(out.shape, np.float32)
        out += np.where(beside, noise * np.float32(sd * rng.uniform(0.2, 0.8)), 0)

    def _fade_into_lung(
        self,
        out: NDArray[np.float32],
        affine: NDArray,
        level: float,
        shadow: NDArray[np.bool_],
        width: tuple[tuple[int, int], ...],
        spacing: NDArray,
        hu: NDArray[np.float32],
    ) -> None:
        """Fades the crop's edge into a real lung within some millimeters, at once where the nodule's shadow is."""
        rng = self._rng
        apart = []
        for size, (before, _), step in zip(out.shape, width, spacing, strict=True):
            index = np.arange(size)
            apart.append(np.maximum(np.maximum(before - index, index - (size - 1 - before)), 0) * step)
        z, y, x = np.meshgrid(*apart, indexing="ij", sparse=True)
        keep = np.exp(-np.sqrt(z**2 + y**2 + x**2) / rng.uniform(1.5, 10.0)).astype(np.float32)
        hidden = ndimage.gaussian_filter(shadow.astype(np.float32), 1.0)
        (pz, _), _, _ = width
        for part in (slice(0, pz), slice(pz + len(hu), None)):
            keep[part] *= 1 - hidden
        edge = np.concatenate([hu[:, [0, -1]].ravel(), hu[:, :, [0, -1]].ravel()])
        lung = self._lung(out.shape, affine, "wall" if (edge > -300).mean() > 0.12 else "lung")
        aerated = lung[(lung < -600) & (lung > -1000)]
        if aerated.size > 50:
            shift = float(np.clip(level - np.median(aerated), -100, 100))
            lung += shift * np.clip((-300 - lung) / 300, 0, 1)
        out *= keep
        out += (1 - keep) * lung

    def _lung(self, shape_kji: tuple[int, ...], affine: NDArray, kind: str) -> NDArray[np.float32]:
        """Samples a background at a random place, on the voxels of a block: float32 [k, j, i]."""
        rng = self._rng
        scan = self._backgrounds[rng.integers(len(self._backgrounds))]
        for _ in range(20):
            sites = scan.sites[kind if len(scan.sites[kind]) else "lung"]
            site = sites[rng.integers(len(sites))]
            reach = np.ceil(15.0 / voxel_spacing(scan.ijk_to_ras)).astype(int)
            window = tuple(
                slice(max(int(a), 0), int(b)) for a, b in zip((site - reach)[::-1], (site + reach)[::-1], strict=True)
            )
            if not scan.lesion[window].any():
                break
        linear = np.linalg.inv(scan.ijk_to_ras[:3, :3]) @ affine[:3, :3]
        to_scan = np.eye(4)
        to_scan[:3, :3] = linear
        to_scan[:3, 3] = site - linear @ (np.array(shape_kji[::-1]) / 2)
        sampled = sample_grid(scan.hu.transpose(2, 1, 0), to_scan, shape_kji[::-1], None)
        return np.array(sampled.transpose(2, 1, 0), np.float32)

    # -- the view ------------------------------------------------------------------------------------------------------

    def _placed(self, affine: NDArray, scale: float) -> NDArray[np.float64]:
        """The block's matrix, enlarged and turned about the axis of the body."""
        rng = self._rng
        angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.4 else 0.0
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
        placed = affine.copy()
        placed[:3] = scale * turn @ affine[:3]
        return placed

    def _click(
        self, truth: NDArray[np.bool_], spacing_kji: NDArray, width: tuple[tuple[int, int], ...]
    ) -> NDArray[np.float64]:
        """A first click, (k, j, i) in voxels."""
        rng = self._rng
        kind = FIRST_CLICKS[rng.choice(len(FIRST_CLICKS), p=FIRST_CLICK_SHARES)]
        voxel = first_click(truth, spacing_kji, kind, rng)
        for axis, (before, after) in enumerate(width):
            voxel[axis] = np.clip(voxel[axis], before, truth.shape[axis] - 1 - after)
        jitter = rng.uniform(-0.4, 0.4, 3) if rng.random() < 0.5 else np.zeros(3)
        return voxel + jitter

    def _view(
        self, truth: NDArray[np.bool_], affine: NDArray, diameter_mm: float, clicks_ras: Sequence[NDArray]
    ) -> Crop:
        """Draws the crop: a first look, one zoomed to the nodule near its middle, or a step of zooming out."""
        rng, profile = self._rng, self._profile
        low, high = profile.spacing_range_mm
        click = clicks_ras[0]
        if rng.random() < FIRST_LOOKS:
            return crop_at(click, float(profile.spacing_mm or 1.0), profile, affine)
        box = bounding_box(truth)
        assert box is not None
        corners = np.array([[p.start for p in box], [p.stop - 1 for p in box]])[:, ::-1].astype(float)
        extent = (corners[1] - corners[0] + 1) * voxel_spacing(affine)
        center = transform_points(affine, corners.mean(axis=0))
        spacing = self._zoom.spacing_for(diameter_mm, extent) * float(np.exp(rng.normal(0.0, 0.22)))
        if rng.random() < 0.06:
            spacing *= 1.5
        spacing = float(np.clip(spacing, low, high))
        draw = rng.random()
        if draw < 0.2:
            return crop_at(click, spacing, profile, affine)
        # The clicks must stay inside whatever the offset.
        reach = 0.42 * spacing * np.array(profile.crop_size)
        center = center + rng.normal(0.0, (1.5 if draw < 0.75 else 5.0) * spacing, 3)
        return crop_at(np.clip(center, click - reach, click + reach), spacing, profile, affine)

    def _scanned(self, hu: NDArray[np.floating], affine: NDArray) -> tuple[NDArray[np.floating], NDArray]:
        """Imitates differences between scanners: slice thickness, kernel, noise, calibration."""
        rng = self._rng
        slice_mm = float(voxel_spacing(affine)[2])
        most = int(3.2 / slice_mm)
        if most > 1 and rng.random() < 0.25:
            merge = int(rng.integers(2, most + 1))
            start = int(rng.integers(merge))
            usable = (len(hu) - start) // merge * merge
            if usable >= 2 * merge:
                hu = hu[start : start + usable].reshape(-1, merge, *hu.shape[1:]).mean(axis=1)
                affine = affine.copy()
                affine[:3, 3] += affine[:3, 2] * (start + (merge - 1) / 2)
                affine[:3, 2] *= merge
        spacing = voxel_spacing(affine)[::-1]
        draw = rng.random()
        if draw < 0.2:
            hu = ndimage.gaussian_filter(hu, rng.uniform(0.3, 0.8) / spacing, truncate=3)
        elif draw < 0.35:
            hu = hu + rng.uniform(0.2, 0.9) * (hu - ndimage.gaussian_filter(hu, 0.8 / spacing, truncate=3))
        if rng.random() < 0.35:
            hu = hu + rng.uniform(3, 35) * correlated_noise(rng, hu.shape, spacing, rng.uniform(0.6, 1.5))
        return hu * np.float32(rng.uniform(0.97, 1.03)) + np.float32(rng.normal(0, 12)), affine


@dataclass(frozen=True, eq=False)
class _CropAround:
    """A crop with its surroundings: HU [k, j, i], matrix, where nothing is known, and what was added around."""

    hu: NDArray[np.float32]
    ijk_to_ras: NDArray[np.float64]
    unknown: NDArray[np.bool_] | None
    width: tuple[tuple[int, int], ...]


def first_click(
    mask: NDArray[np.bool_], spacing_kji: NDArray, kind: str, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draws a first click as a person's, (k, j, i): the inner half, the middle, the outer third, one or two voxels
    outside in the plane, or anywhere."""
    box = bounding_box(mask)
    assert box is not None
    start = np.array([max(part.start - 3, 0) for part in box])
    mask = mask[tuple(slice(n, part.stop + 3) for n, part in zip(start, box, strict=True))]
    if kind == "outside":
        plane = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]
        around = ndimage.binary_dilation(mask, plane, iterations=int(rng.integers(1, 3))) & ~mask
        places = np.argwhere(around)
    elif kind == "anywhere":
        places = np.argwhere(mask)
    else:
        depth = interior_distance(mask, spacing_kji)
        deepest = depth.max()
        inside = {"inner": depth > 0.5 * deepest, "center": depth >= 0.999 * deepest}.get(
            kind, mask & (depth <= max(deepest / 3, depth[mask].min()))
        )
        places = np.argwhere(inside)
    return (places[rng.integers(len(places))] + start).astype(float)


def _on_crop(values: NDArray[np.float32], affine: NDArray, crop: Crop) -> NDArray[np.float32]:
    return sample_grid(values.transpose(2, 1, 0), np.linalg.inv(affine) @ crop.crop_to_ras, crop.shape, 0.0)


def _mask_on_crop(mask: NDArray[np.bool_], affine: NDArray, crop: Crop) -> NDArray[np.bool_]:
    """Resamples a mask to the crop's grid, smooth and of unchanged volume."""
    share = _on_crop(mask.astype(np.float32), affine, crop)
    # Interpolation keeps the sum; a threshold of one half would make everything convex smaller.
    voxels = round(float(share.sum(dtype=np.float64)))
    positive = share[share > 0.0]
    if not 0 < voxels <= positive.size:
        return np.zeros(crop.shape, bool)
    return share >= np.partition(positive, -voxels)[-voxels]


def _enlarged(
    hu: NDArray[np.float32], mask: NDArray[np.bool_], affine: NDArray, factor: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    """Enlarges the crop by ``factor``, on voxels of at most 1.1 mm and slices of at most 2 mm."""
    spacing = voxel_spacing(affine)[::-1]
    zoom = np.maximum(spacing * factor / (2.0, 1.1, 1.1), 1.0)
    large = ndimage.zoom(hu, zoom, order=1)
    grown = ndimage.zoom(mask.astype(np.float32), zoom, order=1) >= 0.5
    scaled = affine.copy()
    steps = (np.array(hu.shape) - 1) / np.maximum(np.array(large.shape) - 1, 1)
    scaled[:3, :3] = affine[:3, :3] * (factor * steps[::-1])
    return large, grown, scaled
