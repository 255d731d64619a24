"""Classic tools that get the same click: region growing, and a fixed threshold with morphology.

:func:`region_growing` has an adaptive threshold and a smart opening. It follows Kuhnigk et al., "Morphological
segmentation and partial volume analysis for volumetry of solid pulmonary lesions in thoracic CT scans", IEEE TMI
2006;25:417-434 (region growing, erosion until the wall lets go, dilation back within the grown region), with the
half-maximum threshold of Kostis et al., IEEE TMI 2003;22:1259-1274 taken between the lesion and its own lung, so that
ground glass is not lost. Smoothing before growing is the usual step; it was added after a look at the real ground-glass
nodule of the development set, no figure was searched for.

:func:`threshold_morphology` is the simpler tool of growth measurement in screening: -400 HU, half way between lung and
soft tissue, and an opening that cuts off vessels, as in Reeves et al., IEEE TMI 2006;25:435-450. The wall is cut off by
closing the lung (the usual 10 mm), not by their plane. Ground glass lies below its threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from SAMMed3DLib.inference.geometry import Block, voxel_index, voxel_spacing, world_to_ijk

SEARCH_MM = 25.0  # a nodule is at most 30 mm wide; a click off its center still reaches its far side
MARGIN_MM = 6.0  # shown around the search, so that the depth of what leaves it is known
SEED_MM = 2.0
LOWEST_HU, HIGHEST_HU = -800.0, -300.0
SMOOTHING_MM = 0.7  # noise would tear ground glass apart; region growing is always preceded by smoothing (ITK guide)
FIXED_THRESHOLD_HU = -400.0
AIR_HU = -500.0
CLOSING_MM = 10.0
FIXED_OPENING_MM = 1.5  # radius of the ball that a nodule must be able to hold
OPENING_MM = 1.0  # vessels up to 2 mm wide are cut off even where they end inside the search radius


def region_growing(array_kji: np.ndarray, ijk_to_ras: np.ndarray, seed_ras: np.ndarray) -> Block:
    """Segments the lesion at one click.

    Args:
        array_kji: CT in HU, [k, j, i].
        ijk_to_ras: 4x4, (i, j, k) to RAS mm.
        seed_ras: the click, (3,) RAS mm.

    Raises:
        ValueError: the click is outside of the volume.
    """
    block = _block_at(array_kji, ijk_to_ras, seed_ras)
    return block.region(_cut_loose(block.hu > _threshold(block.hu, block.from_seed), block.from_seed, block.spacing))


def threshold_morphology(array_kji: np.ndarray, ijk_to_ras: np.ndarray, seed_ras: np.ndarray) -> Block:
    """Segments the lesion at one click by a fixed threshold and one opening. Arguments as of :func:`region_growing`.

    Raises:
        ValueError: the click is outside of the volume.
    """
    block = _block_at(array_kji, ijk_to_ras, seed_ras)
    inside = _closed_lung(block.hu, block.spacing) & (block.from_seed <= SEARCH_MM)
    dense = _component((block.hu > FIXED_THRESHOLD_HU) & inside, block.from_seed)
    if dense is None:
        return block.region(np.zeros(block.hu.shape, bool))
    depth = ndimage.distance_transform_edt(np.pad(dense, 1, mode="edge"), sampling=block.spacing)[1:-1, 1:-1, 1:-1]
    opening = min(FIXED_OPENING_MM, 0.5 * float(depth[dense].max()))
    core = _component(depth > opening, block.from_seed)
    if core is None:
        return block.region(dense)
    to_core = ndimage.distance_transform_edt(~core, sampling=block.spacing)
    lesion = _component(dense & (to_core <= opening + 0.5 * float(block.spacing.min())), block.from_seed)
    assert lesion is not None  # the core is a part of it
    return block.region(lesion)


def _closed_lung(hu: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Air, closed over what is less than twice ``CLOSING_MM`` wide, without holes; a whole block that shows no wall."""
    tissue = hu >= AIR_HU
    if tissue.all():
        return tissue
    near_air = ndimage.distance_transform_edt(tissue, sampling=spacing) <= CLOSING_MM
    if near_air.all():
        return near_air
    return ndimage.binary_fill_holes(ndimage.distance_transform_edt(near_air, sampling=spacing) > CLOSING_MM)


@dataclass(frozen=True, eq=False)
class _SeedSurroundings:
    """The surroundings of a seed: smoothed HU, mm from the seed, mm of a voxel along k, j, i, the first voxel."""

    hu: np.ndarray
    from_seed: np.ndarray
    spacing: np.ndarray
    first: np.ndarray

    def region(self, lesion: np.ndarray) -> Block:
        """A mask of the block, holes filled, as a region of the volume."""
        if not lesion.any():
            seed = self.first + np.unravel_index(int(self.from_seed.argmin()), self.hu.shape)
            k, j, i = (int(value) for value in seed)
            return Block(np.zeros((1, 1, 1), dtype=np.uint8), (k, j, i))
        lesion = ndimage.binary_fill_holes(lesion)
        box = ndimage.find_objects(lesion.astype(np.uint8))[0]
        k, j, i = (int(start + part.start) for start, part in zip(self.first, box, strict=True))
        return Block(lesion[box].astype(np.uint8), (k, j, i))


def _block_at(array_kji: np.ndarray, ijk_to_ras: np.ndarray, seed_ras: np.ndarray) -> _SeedSurroundings:
    """Raises ValueError where the seed is outside of the volume."""
    seed = voxel_index(world_to_ijk(ijk_to_ras, seed_ras))[::-1]
    if np.any(seed < 0) or np.any(seed >= array_kji.shape):
        raise ValueError(f"the seed {tuple(np.round(seed_ras, 1))} (RAS mm) is outside of the volume")
    spacing = voxel_spacing(ijk_to_ras)[::-1]
    reach = np.ceil((SEARCH_MM + MARGIN_MM) / spacing).astype(int)
    low, high = np.maximum(seed - reach, 0), np.minimum(seed + reach + 1, array_kji.shape)
    hu = array_kji[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.float32)
    hu = ndimage.gaussian_filter(hu, SMOOTHING_MM / spacing)
    distance = np.sqrt(
        sum(
            ((axis - middle) * step) ** 2
            for axis, middle, step in zip(np.ogrid[tuple(map(slice, hu.shape))], seed - low, spacing, strict=True)
        )
    )
    return _SeedSurroundings(hu, distance, spacing, low)


def _threshold(hu: np.ndarray, distance: np.ndarray) -> float:
    """Half way between the lesion at the seed and the lung around it."""
    nearest = min(6, distance.size - 1)  # the seed's neighbors, where voxels are larger than SEED_MM
    lesion = float(hu[distance <= max(SEED_MM, float(np.partition(distance.ravel(), nearest)[nearest]))].mean())
    air = hu[(hu < -600) & (hu > -1000)]
    lung = float(np.median(air)) if air.size else -850.0
    return float(np.clip((min(lesion, 100.0) + lung) / 2, LOWEST_HU, HIGHEST_HU))


def _cut_loose(grown: np.ndarray, from_seed: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The part of the grown region that belongs to the seed: without the wall and the vessels it touches."""
    body = _component(grown, from_seed)
    if body is None:
        return np.zeros_like(grown)
    # The block's border is no edge of the tissue: what goes on beyond it counts as deep.
    depth = ndimage.distance_transform_edt(np.pad(body, 1, mode="edge"), sampling=spacing)[1:-1, 1:-1, 1:-1]
    beyond = body & (from_seed > SEARCH_MM)
    deepest = float(depth[from_seed <= 5.0].max())
    opening = min(OPENING_MM, 0.5 * deepest)
    step = 0.5 * float(spacing.min())
    core = _component(depth > opening, from_seed)
    while core is not None and (core & beyond).any() and opening + step < deepest:
        opening += step
        core = _component(depth > opening, from_seed)
    if core is None:
        return body & ~beyond
    to_core = ndimage.distance_transform_edt(~core, sampling=spacing)
    lesion = _component(body & ~beyond & (to_core <= opening + step), from_seed)
    assert lesion is not None  # the core's part near the seed is in it
    return lesion


def _component(mask: np.ndarray, from_seed: np.ndarray, reach_mm: float = 5.0) -> np.ndarray | None:
    """The 6-connected component whose voxel is nearest to the seed; None where none is within ``reach_mm``."""
    labels, count = ndimage.label(mask)
    if not count:
        return None
    nearest = np.argmin(np.where(mask, from_seed, np.inf))
    if from_seed.flat[nearest] > reach_mm:
        return None
    return labels == labels.flat[nearest]
