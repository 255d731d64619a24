"""Features that tell a nodule from a vessel in one answer of the network, all from a small grid of cells.

A nodule is compact, ends on all sides and keeps its size when the threshold moves; a vessel is long, goes on beyond its
mask, and its mask leaks along it. Everything is measured in the crop that shows the object at its proper zoom, so that
the numbers hardly depend on size and voxel spacing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ..inference.field import Part
from ..inference.geometry import transform_points, voxel_index, voxel_spacing, voxel_volume, world_to_ijk
from ..inference.mask_regions import components
from ..inference.postprocessing import tight_block
from ..inference.predictor import SamPredictor3D
from ..inference.sampling import sample_grid
from .lungs import LungMask

#: Cells around a point in which its object is looked for.
_NEAR_CELLS = 2
#: Logit (a probability of 0.05) of the wider outline with which the growth is measured.
_GENEROUS_LOGIT = -3.0
#: The surroundings are a shell between these distances from the mask, as shares of its radius.
_SHELL = (0.25, 0.75)


@dataclass(frozen=True)
class LookFeatures:
    """Features of one object in one look (an answer of the network at a candidate).

    Attributes:
        predicted_iou: of the network, NaN where that was never trained.
        stability: how little the mask changes when the threshold moves, 0 to 1: IoU of the masks at the two offsets.
        diameter_mm: of the sphere of the same volume.
        elongation: longest by shortest of the three axes (square roots of the moments), 1 for a sphere.
        slenderness: longest by middle axis; large for tubes, 1 for disks.
        compactness: share of the mask within the sphere of its volume at its center; 1 for a sphere.
        growth: natural log of how many times larger the mask of the wider outline is.
        off_center: distance from point to center, in radii.
        contrast_hu: mean inside minus median of the shell around.
        mean_hu: inside.
        continued: share of the shell that is about as dense as the inside, as where a vessel goes on.
        outside_lung: share of the mask outside of the lungs; 0 where no lungs are known.
        near_wall: share of the shell outside of the lungs.
        center_ras: (3,) mm, its center of mass.
    """

    predicted_iou: float
    stability: float
    diameter_mm: float
    elongation: float
    slenderness: float
    compactness: float
    growth: float
    off_center: float
    contrast_hu: float
    mean_hu: float
    continued: float
    outside_lung: float
    near_wall: float
    center_ras: tuple[float, float, float]


@dataclass(frozen=True)
class Agreement:
    """Agreement of clicks elsewhere in an object: in a nodule they give the same mask, in a vessel another piece of it.

    Attributes:
        mean, least: IoU of their masks with that of the object.
        predicted_iou: mean of the network's, NaN where that was never trained.
    """

    mean: float
    least: float
    predicted_iou: float


def object_at(part: Part, point_ras: ArrayLike, threshold: float = 0.0) -> NDArray[np.bool_] | None:
    """Returns the cells above ``threshold`` that are connected to those at a point; None where none is near it."""
    labels, count = components(part.logits > threshold)
    point = world_to_ijk(part.cells_to_ras, point_ras)
    center = voxel_index(point)
    low = np.clip(center - _NEAR_CELLS, 0, np.array(labels.shape) - 1)
    high = np.clip(center + _NEAR_CELLS + 1, 1, labels.shape)
    window = labels[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
    found = np.argwhere(window)
    if not len(found):
        return None
    nearest = found[np.argmin(((found + low - point) ** 2).sum(axis=1))]
    return labels == window[tuple(nearest)]


def seen_object(part: Part, point_ras: ArrayLike, threshold: float = 0.0) -> NDArray[np.bool_]:
    """:func:`object_at` of a look that saw something. Raises ValueError where it did not."""
    cells = object_at(part, point_ras, threshold)
    if cells is None:
        raise ValueError(f"there is no object at {point_ras!r}")
    return cells


def points_within(part: Part, point_ras: ArrayLike) -> NDArray[np.float64]:
    """Two points (2, 3) mm in the object at a point: on its longest axis, halfway from its middle to its ends."""
    cells = transform_points(part.cells_to_ras, np.argwhere(seen_object(part, point_ras)))
    center = cells.mean(axis=0)
    apart = cells - center
    variance, axes = np.linalg.eigh(apart.T @ apart / len(cells))
    # of an ellipsoid, the half axis is sqrt(5) standard deviations
    halfway = 0.5 * math.sqrt(5.0 * max(float(variance[2]), 0.0)) * axes[:, 2]
    return np.stack([center + halfway, center - halfway])


def agreement_of(
    part: Part, point_ras: ArrayLike, others: Sequence[Part], points_ras: ArrayLike, ious: Sequence[float | None]
) -> Agreement:
    """Measures how far clicks elsewhere agree with the object at a point.

    Args:
        part, point_ras: the object.
        others: what the network answered in the same crop to clicks at ``points_ras`` (n, 3), and its predicted
            ``ious``.
    """
    own = seen_object(part, point_ras)
    shares = []
    for other, point in zip(others, np.reshape(points_ras, (-1, 3)), strict=True):
        cells = object_at(other, point)
        same = 0.0 if cells is None else np.count_nonzero(cells & own) / np.count_nonzero(cells | own)
        shares.append(float(same))
    known = [iou for iou in ious if iou is not None]
    return Agreement(float(np.mean(shares)), min(shares), float(np.mean(known)) if known else math.nan)


def describe(
    part: Part,
    point_ras: ArrayLike,
    predicted_iou: float | None,
    hu: NDArray[np.float32],
    in_lung: NDArray[np.bool_] | None = None,
    offset: float = 1.0,
) -> LookFeatures | None:
    """Computes the features of the object at a point, or None where the network sees nothing.

    Args:
        part: logits of the look.
        point_ras: (3,) mm, the click.
        predicted_iou: None where the network does not know.
        hu: the volume on the grid of ``part.cells_to_ras``, of the logits' shape.
        in_lung: which of those cells lie in the lungs; None where nothing is known.
        offset: of the logits, for the stability (SAM's ``stability_score_offset``).
    """
    cells = object_at(part, point_ras)
    if cells is None:
        return None
    spread = seen_object(part, point_ras, _GENEROUS_LOGIT)
    loose = seen_object(part, point_ras, -offset)
    count = np.count_nonzero(cells)
    volume = count * voxel_volume(part.cells_to_ras)
    radius = float((3.0 / (4.0 * math.pi) * volume) ** (1.0 / 3.0))

    edges = voxel_spacing(part.cells_to_ras)
    index = np.argwhere(cells)
    weight = 1.0 / (1.0 + np.exp(-part.logits[cells].astype(np.float64)))
    center = weight @ index / weight.sum()
    apart = (index - center) * edges
    moments = np.linalg.eigvalsh((apart * weight[:, None]).T @ apart / weight.sum() + np.diag(edges**2) / 12.0)
    point = (world_to_ijk(part.cells_to_ras, point_ras) - center) * edges

    inside, shell, shell_lung = _surroundings(cells, hu, in_lung, edges, radius)
    mean = float(inside.mean())
    level = 0.5 * (mean + float(np.percentile(shell, 10))) if len(shell) else -math.inf
    center_ras = transform_points(part.cells_to_ras, center)
    return LookFeatures(
        predicted_iou=math.nan if predicted_iou is None else float(predicted_iou),
        stability=float(np.count_nonzero(loose & (part.logits > offset)) / np.count_nonzero(loose)),
        diameter_mm=2.0 * radius,
        elongation=float(np.sqrt(moments[2] / moments[0])),
        slenderness=float(np.sqrt(moments[2] / moments[1])),
        compactness=float(np.mean((apart**2).sum(axis=1) <= radius**2)),
        growth=math.log(np.count_nonzero(spread) / count),
        off_center=float(np.linalg.norm(point)) / radius,
        contrast_hu=mean - float(np.median(shell)) if len(shell) else 0.0,
        mean_hu=mean,
        continued=float(np.mean(shell > level)) if len(shell) else 1.0,
        outside_lung=0.0 if in_lung is None else float(np.mean(~in_lung[cells])),
        near_wall=0.0 if in_lung is None or not len(shell) else float(np.mean(~shell_lung)),
        center_ras=(float(center_ras[0]), float(center_ras[1]), float(center_ras[2])),
    )


def _surroundings(
    cells: NDArray[np.bool_], hu: NDArray[np.float32], in_lung: NDArray[np.bool_] | None, edges: NDArray, radius: float
) -> tuple[NDArray, NDArray, NDArray]:
    """HU inside, HU of the shell around the object, and whether each of the shell's cells lies in the lungs."""
    far = max(_SHELL[1] * radius, 3.0 * float(edges.mean()))
    near = max(_SHELL[0] * radius, 1.0 * float(edges.mean()))
    block, start = tight_block(cells)
    reach = np.ceil(far / edges).astype(int) + 1
    low, high = np.maximum(start - reach, 0), np.minimum(start + block.shape + reach, cells.shape)
    window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    distance = ndimage.distance_transform_edt(~cells[window], sampling=edges)
    shell = (distance > near) & (distance <= far)
    lung = np.ones(0, dtype=bool) if in_lung is None else in_lung[window][shell]
    return hu[cells], hu[window][shell], lung


@dataclass(frozen=True)
class ClickPlace:
    """A place to click.

    Attributes:
        point_ras: (3,) mm, the center of a voxel.
        response: of the blob filter; NaN where there was none.
        probability: that a nodule is there, as far as can be told before the click.
    """

    point_ras: tuple[float, float, float]
    response: float = float("nan")
    probability: float = 1.0


@dataclass(frozen=True, eq=False)
class Look:
    """The result of one click: the place, the network's answer and the object's features."""

    place: ClickPlace
    part: Part
    features: LookFeatures


class Looker:
    """Describes objects of a predictor's image.

    Args:
        predictor: its image is set.
        lungs: for the features that speak of the lungs; None = unknown.
        stability_offset: of the logits.
    """

    def __init__(self, predictor: SamPredictor3D, lungs: LungMask | None, stability_offset: float) -> None:
        self._predictor = predictor
        self._lungs = lungs
        self._offset = stability_offset

    def describe(self, place: ClickPlace, part: Part, score: float | None) -> Look | None:
        """The look that a part shows of the object at a place, or None where there is none."""
        features = describe(part, place.point_ras, score, *self._surroundings(part), self._offset)
        return None if features is None else Look(place, part, features)

    def agreement(self, look: Look) -> Agreement:
        """Measures the agreement of two clicks elsewhere in the object, in the crop that shows it: no encoding."""
        points = points_within(look.part, look.place.point_ras)
        parts, ious = self._predictor.decode_clicks(look.part.crop, look.part.anchor_ras, points)
        return agreement_of(look.part, look.place.point_ras, parts, points, ious)

    def _surroundings(self, part: Part) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """HU and lung on the cells of a part."""
        cells, shape = part.cells_to_ras, part.logits.shape
        to_ijk = np.linalg.inv(self._predictor.ijk_to_ras) @ cells
        outside = self._predictor.profile.outside_hu
        hu = sample_grid(self._predictor.image_kji.transpose(2, 1, 0), to_ijk, shape, outside)
        if self._lungs is None:
            return hu, None
        to_grid = np.linalg.inv(self._lungs.grid_to_ras) @ cells
        return hu, sample_grid(self._lungs.mask.transpose(2, 1, 0), to_grid, shape, 0.0) > 0.5
