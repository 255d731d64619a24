"""Chooses spacing and place of the crop: a policy without a network, so that it can be tested and tuned.

The decoder's mask has only 32 cells along an edge, so a small nodule needs a fine crop and a large one a coarse one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..model.profile import PreprocessingProfile
from .field import Part
from .geometry import transform_points, voxel_index, voxel_spacing, voxel_volume, world_to_ijk
from .postprocessing import tight_block
from .preprocessing import Crop, crop_at
from .sampling import sample_grid

#: Cells around a click in which its object is looked for.
_NEAR_CELLS = 2
#: Cells at least this deep, relative to the deepest one, are the thickest part of an object.
_DEEP_SHARE = 0.75
#: Steps of the spacing to an octave. With places on voxels they let clicks elsewhere in an object mostly share a crop,
#: its embedding and its mask.
_STEPS = 4
#: Moves a middle off the boundary of two voxels, in mm: the same one is then nearest however the volume is stored.
_OFF_TIES = (1e-4, 2e-4, 3e-4)


@dataclass(frozen=True, eq=False)
class ObjectView:
    """The clicked object as one part shows it.

    Attributes:
        diameter_mm: of the sphere of the same volume.
        extent_mm: (3,) edges of the bounding box along the crop's axes, positive clicks included.
        center_ras: (3,) middle of that box.
        cells: number of low-resolution cells inside; a few say little about the size.
        touches_border: it runs out of the crop where the volume goes on.
    """

    diameter_mm: float
    extent_mm: NDArray[np.float64]
    center_ras: NDArray[np.float64]
    cells: int
    touches_border: bool


def view_object(part: Part, clicks_ras: NDArray, shape_kji: Sequence[int], ijk_to_ras: NDArray) -> ObjectView | None:
    """Measures the object at the positive clicks (n, 3) in a part; None where the mask is empty there."""
    cells = _object_cells(part, clicks_ras)
    if cells is None:
        return None
    ras_to_cells = np.linalg.inv(part.cells_to_ras)
    block, start = tight_block(cells)
    seeds = transform_points(ras_to_cells, clicks_ras)
    low = np.minimum(start - 0.5, seeds.min(axis=0))
    high = np.maximum(start + np.array(block.shape) - 0.5, seeds.max(axis=0))
    cell_edges = voxel_spacing(part.cells_to_ras)
    return ObjectView(
        diameter_mm=float((6.0 / np.pi * _volume_mm3(part, cells)) ** (1.0 / 3.0)),
        extent_mm=(high - low) * cell_edges,
        center_ras=transform_points(part.cells_to_ras, (low + high) / 2.0),
        cells=int(cells.sum()),
        touches_border=_runs_out(cells, part, shape_kji, ijk_to_ras),
    )


def _object_cells(part: Part, clicks_ras: NDArray) -> NDArray[np.bool_] | None:
    """The components of positive cells that hold, or nearly hold, a click."""
    labels, count = ndimage.label(part.logits > 0.0)
    wanted = np.zeros(count + 1, dtype=bool)
    for click in world_to_ijk(part.cells_to_ras, clicks_ras):
        center = voxel_index(click)
        if np.any(center < -_NEAR_CELLS) or np.any(center >= np.array(labels.shape) + _NEAR_CELLS):
            continue
        start = np.maximum(center - _NEAR_CELLS, 0)
        window = labels[tuple(slice(int(a), int(b) + _NEAR_CELLS + 1) for a, b in zip(start, center, strict=True))]
        found = np.argwhere(window)
        if len(found):
            nearest = found[np.argmin(((found + start - click) ** 2).sum(axis=1))]
            wanted[window[tuple(nearest)]] = True
    wanted[0] = False
    return wanted[labels] if wanted.any() else None


def deepest_point(part: Part, clicks_ras: NDArray) -> NDArray[np.float64] | None:
    """Finds the middle (3,) mm of the thickest part of the object at the positive clicks; None where there is none.

    It hardly depends on where in the object the clicks are, and so makes one click as good as another.
    """
    cells = _object_cells(part, clicks_ras)
    if cells is None:
        return None
    block, start = tight_block(cells)
    depth = ndimage.distance_transform_edt(np.pad(block, 1), sampling=voxel_spacing(part.cells_to_ras))
    depth = depth[1:-1, 1:-1, 1:-1]
    labels, count = ndimage.label(depth >= _DEEP_SHARE * depth.max())
    sums = ndimage.sum(depth, labels, np.arange(1, count + 1))
    weights = np.where(labels == 1 + int(np.argmax(sums)), depth, 0.0)
    index = np.argwhere(weights > 0.0)
    middle = np.average(index, axis=0, weights=weights[weights > 0.0])
    if not block[tuple(np.round(middle).astype(int))]:  # a bent object
        middle = index[np.argmax(weights[weights > 0.0])]
    return transform_points(part.cells_to_ras, middle + start)


def distance_outside(part: Part, click_ras: NDArray) -> float:
    """Measures how far in mm a click lies from the nearest cell inside; infinite where none is inside."""
    inside = np.argwhere(part.logits > 0.0)
    if not len(inside):
        return float("inf")
    apart = transform_points(part.cells_to_ras, inside) - click_ras
    return float(np.sqrt((apart**2).sum(axis=1).min()))


def points_elsewhere(part: Part, clicks_ras: NDArray) -> NDArray[np.float64] | None:
    """Finds four points (4, 3) mm inside the object at the clicks, halfway from its middle to its ends along two axes.

    These are the longest axis and the next one; where a bent object lets such a point lie outside, the nearest cell
    inside is taken.
    None where there is no object.
    """
    cells = _object_cells(part, clicks_ras)
    if cells is None:
        return None
    inside = transform_points(part.cells_to_ras, np.argwhere(cells))
    middle = inside.mean(axis=0)
    variance, axes = np.linalg.eigh((inside - middle).T @ (inside - middle) / len(inside))
    # of an ellipsoid, the half axis is sqrt(5) standard deviations
    halfway = 0.5 * np.sqrt(5.0 * np.maximum(variance, 0.0)) * axes
    wanted = middle + np.stack([halfway[:, 2], -halfway[:, 2], halfway[:, 1], -halfway[:, 1]])
    apart = np.linalg.norm(inside[None] - wanted[:, None], axis=-1)
    nearest = apart.argmin(axis=1)
    return np.where(apart.min(axis=1)[:, None] > part.cell_mm, inside[nearest], wanted)


def _volume_mm3(part: Part, cells: NDArray[np.bool_]) -> float:
    """Measures the volume with logit > 0 around some cells, on a grid of a quarter (large objects: half) of a cell."""
    block, start = tight_block(cells)
    low = np.maximum(start - 1, 0)
    high = np.minimum(start + np.array(block.shape) + 1, cells.shape)
    region = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    own = ndimage.maximum_filter(cells[region], size=3)
    logits = np.where(own & ~((part.logits[region] > 0.0) & ~cells[region]), part.logits[region], -1.0)
    factor = 4 if max(logits.shape) <= 14 else 2
    shape = tuple(factor * n for n in logits.shape)
    fine = np.diag([1.0 / factor] * 3 + [1.0])
    fine[:3, 3] = 0.5 / factor - 0.5
    inside = np.count_nonzero(sample_grid(logits, fine, (shape[0], shape[1], shape[2]), -1.0) > 0.0)
    return inside / factor**3 * voxel_volume(part.cells_to_ras)


def _runs_out(cells: NDArray[np.bool_], part: Part, shape_kji: Sequence[int], ijk_to_ras: NDArray) -> bool:
    """Whether more than 1 % of the cells lie on a face of the crop beyond which there is still volume."""
    size = np.array(cells.shape)
    index = np.argwhere(cells)
    outward = (index == size - 1).astype(np.int64) - (index == 0)
    border = np.any(outward != 0, axis=1)
    if not border.any():
        return False
    beyond = world_to_ijk(ijk_to_ras, transform_points(part.cells_to_ras, index[border] + outward[border]))
    goes_on = np.all((beyond >= -0.5) & (beyond <= np.array(shape_kji[::-1]) - 0.5), axis=1)
    return bool(goes_on.sum() > 0.01 * len(index))


@dataclass(frozen=True)
class ZoomPolicy:
    """Decides when to encode another crop, where, and at which spacing.

    Attributes:
        profile: first spacing, allowed range, and the size that an object should have.
        first_change: on the first click the crop changes if the wanted spacing differs by more than this factor.
        later_change: the same for later clicks; larger, so that the crop does not flicker between two sizes.
        zoom_out: factor of one step out while the object touches the border.
        largest_step: largest factor of one step in; from a few cells (or none) only ``careful_step``.
        few_cells: objects of fewer cells than this are not trusted to tell their size.
        fill: share of the crop's edge that an object may take.
        margin: share of the crop's edge that lies at least between a click and the faces.
        widest_mm: a crop may have at least this edge, whatever spacing the profile ends with: masses of 100 mm fit.
        look_far: whether an answer that is not sure is compared with a look from so far.
        first_moves, later_moves: how often the crop may change on one click.
    """

    profile: PreprocessingProfile
    first_change: float = 1.3
    later_change: float = 1.5
    zoom_out: float = 1.5
    largest_step: float = 3.0
    careful_step: float = 2.0
    few_cells: int = 4
    fill: float = 0.7
    margin: float = 0.15
    widest_mm: float = 192.0
    look_far: bool = True
    first_moves: int = 2
    later_moves: int = 1

    def spacing_for(self, diameter_mm: float, extent_mm: NDArray) -> float:
        """Returns the spacing that shows an object of this size well, within the bounds."""
        edges = np.array(self.profile.crop_size, dtype=np.float64)
        wanted = max(diameter_mm / self.profile.target_voxels, float((np.asarray(extent_mm) / edges).max()) / self.fill)
        return float(np.clip(wanted, self.profile.spacing_range_mm[0], self.coarsest_mm))

    @property
    def coarsest_mm(self) -> float:
        """The largest spacing for objects that finer crops do not hold: crops of that edge are always allowed."""
        return max(self.profile.spacing_range_mm[1], self.widest_mm / max(self.profile.crop_size))

    def spacing_for_clicks(self, clicks_ras: NDArray) -> float:
        """Returns the finest allowed spacing of a crop that holds clicks (n, 3) well inside, or the coarsest."""
        spread = np.ptp(np.reshape(clicks_ras, (-1, 3)), axis=0)
        inner = np.array(self.profile.crop_size) * (1.0 - 2.0 * self.margin)
        return float(np.clip((spread / inner).max(), self.profile.spacing_range_mm[0], self.coarsest_mm))

    def crop_of_all(
        self, view: ObjectView | None, crop: Crop, clicks_ras: NDArray, ijk_to_ras: NDArray, diameter_mm: float = 0.0
    ) -> Crop:
        """Makes a crop, not finer than ``crop``, that holds the seen object and positive clicks (n, 3) beside it.

        It shows an object of at least ``diameter_mm`` well.
        """
        low, high = clicks_ras.min(axis=0), clicks_ras.max(axis=0)
        if view is not None:
            low = np.minimum(low, view.center_ras - view.extent_mm / 2.0)
            high = np.maximum(high, view.center_ras + view.extent_mm / 2.0)
        wanted = self.spacing_for(diameter_mm, high - low)
        spacing = float(np.clip(wanted, crop.spacing_mm, self.coarsest_mm))
        return crop_at(self._center((low + high) / 2.0, spacing, clicks_ras), spacing, self.profile, ijk_to_ras)

    def next_spacing(self, view: ObjectView | None, spacing_mm: float) -> float:
        """Returns the spacing to try after ``spacing_mm`` showed ``view`` (None: nothing at the click)."""
        low = self.profile.spacing_range_mm[0]
        if view is None:
            # too small to be seen at this spacing, or not seen at all: one careful look closer
            return max(spacing_mm / self.careful_step, min(low, spacing_mm))
        if view.touches_border:
            return min(spacing_mm * self.zoom_out, max(self.coarsest_mm, spacing_mm))
        step = self.careful_step if view.cells < self.few_cells else self.largest_step
        return max(self.spacing_for(view.diameter_mm, view.extent_mm), spacing_mm / step)

    def next_crop(
        self,
        view: ObjectView | None,
        crop: Crop,
        tried_mm: Sequence[float],
        clicks_ras: NDArray,
        ijk_to_ras: NDArray,
        *,
        first: bool,
    ) -> Crop | None:
        """Chooses the crop to encode next; None keeps the present one.

        Args:
            view: what the latest crop shows.
            crop: the latest crop.
            tried_mm: spacings already tried on this click, that of ``crop`` among them.
            clicks_ras: (n, 3) positive clicks, which stay well inside.
            ijk_to_ras: (4, 4) of the volume.
            first: the object's first click.
        """
        if self.profile.spacing_mm is None or len(tried_mm) > (self.first_moves if first else self.later_moves):
            return None
        if view is None and (not first or len(tried_mm) > 1):
            return None
        low, spacing = self.profile.spacing_range_mm[0], self.next_spacing(view, crop.spacing_mm)
        if view is None:
            return crop_at(clicks_ras[-1], spacing, self.profile, ijk_to_ras) if spacing < crop.spacing_mm else None
        middle = view.center_ras
        change = self.first_change if first or view.touches_border else self.later_change
        aside = False
        if first and self.profile.prompt_rule == "all":
            steps = np.round(_STEPS * np.log2(spacing / self.profile.spacing_mm))
            spacing = float(np.clip(self.profile.spacing_mm * 2.0 ** (steps / _STEPS), low, self.coarsest_mm))
            aside = len(tried_mm) == 1 and not view.touches_border
            middle = transform_points(ijk_to_ras, np.round(world_to_ijk(ijk_to_ras, middle + _OFF_TIES)))
        if any(max(spacing / old, old / spacing) <= change for old in tried_mm):
            if not aside:
                return None
            spacing = crop.spacing_mm
        wanted = crop_at(self._center(middle, spacing, clicks_ras), spacing, self.profile, ijk_to_ras)
        return None if wanted.key == crop.key else wanted

    def crop_beside(self, crop: Crop, factor: float, clicks_ras: NDArray, ijk_to_ras: NDArray) -> Crop:
        """A crop of ``factor`` times the spacing, within the bounds, in the same place and around the same clicks."""
        low = self.profile.spacing_range_mm[0]
        spacing = float(np.clip(crop.spacing_mm * factor, min(low, crop.spacing_mm), self.coarsest_mm))
        return crop_at(self._center(crop.center_ras, spacing, clicks_ras), spacing, self.profile, ijk_to_ras)

    def _center(self, center_ras: NDArray, spacing_mm: float, clicks_ras: NDArray) -> NDArray[np.float64]:
        """The object's middle, moved as little as needed to keep the clicks (the newest first) off the border."""
        half = spacing_mm * np.array(self.profile.crop_size) * (0.5 - self.margin)
        center = np.asarray(center_ras, dtype=np.float64)
        for click in clicks_ras:
            center = np.clip(center, click - half, click + half)
        return center


def best_view(views: Sequence[ObjectView | None]) -> int:
    """Chooses which look of a click to keep: the latest that holds the whole object, else the first.

    An object that still touches the border after zooming out is a leak, and zooming with a leak helps nobody. A look
    that sees nothing never replaces one that sees something.
    """
    whole = [index for index, view in enumerate(views) if view is not None and not view.touches_border]
    if whole:
        return whole[-1]
    seen = [index for index, view in enumerate(views) if view is not None]
    return seen[0] if seen else len(views) - 1
