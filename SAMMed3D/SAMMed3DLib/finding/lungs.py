"""Finds the lungs by thresholds and shape alone: coarse, but closed over nodules at the pleura.

All work is done on one coarse grid with axes R, A, S, so that oblique, tilted and thick-sliced volumes are treated
alike and the cost hardly depends on the number of slices. A region of aerated tissue is a lung if it is large enough,
dark but not as dark as air, and not open to the air around the patient, as mattresses and the foam in tables are. The
air in an emphysematous lung is lung.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ..inference.geometry import as_affine, box_corners, closest_ras_axes, extent_ras, transform_points, world_to_ijk
from ..inference.sampling import sample_grid
from .coarse_grid import CoarseVolume, Progress, coarse_volume, in_threads, report

CELL_MM = 2.0
"""Edge of a cell of the mask; larger in volumes of more than ``_MOST_CELLS``."""

_MOST_CELLS = 8_000_000
#: Values beyond are clipped: padding below -1024 is air, metal and bone are tissue.
_RANGE_HU = (-1024.0, 300.0)
#: Cells darker than this are air, brighter than ``_TISSUE_HU`` tissue, and between them aerated.
_AIR_HU, _TISSUE_HU = -965.0, -500.0
_BODY_HU = -300.0
_LUNG_HU, _WALL_HU = -860.0, 40.0
#: Half the width that a region must have; thinner ones are the edges between air and skin, and bronchi.
_CORE_MM = 4.0
_SMALLEST_CORE_MM3 = 15e3
_SMALLEST_LUNG_MM3 = 40e3
#: Air regions larger than this, or at a side of the volume, surround the patient, unless they are within a lung: so
#: much, then, of what lies so far around them is aerated, too. Around the air outside it is 0.01, even in noisy scans.
_OUTER_AIR_MM3 = 150e3
_AROUND_AIR_MM = (3.0, 7.0)
_LEAST_AERATED_AROUND = 0.2
#: Half the thickness of a layer that hides the air around the patient: a chest wall is thicker, a table's shell is not.
_SHELL_MM = 2.0
#: Of the dark cells around padding of 0 HU at least this share is air; around soft tissue at the side of a scan that is
#: cropped to the lungs it is lung.
_AIR_AROUND_PADDING = 0.2
#: Of the sight lines from a lung to the left, right, front and back, the share that may meet the air around the
#: patient, and the share that must end at tissue (the others leave the volume, since scans are cut at the lungs).
_MOST_OPEN, _LEAST_BOUNDED = 0.15, 0.5
#: Radius of the closing, which brings nodules at the pleura and vessels into the mask.
_CLOSING_MM = 12.0
_LARGEST_HOLE_MM2 = 900.0
_STEPS = 10
#: Slices of a volume that are sampled at once.
_SLAB = 8
_OPEN, _BOUNDED = 1, 2
#: Voxels below this HU are padding if they make up this share of the volume; a cell with more than that share of them
#: holds no data.
_PADDING_HU, _LEAST_PADDED, _PADDED_SHARE = -1100, 0.005, 0.1
#: A field of view fills its circle or rectangle by at least this share; a body in air without noise does not.
_WHOLE_VIEW = 0.97
#: Cross-section of a lung at the end of a scan from which it is cut, and the share of a lung that the other one has.
_CUT_MM2, _LEAST_OTHER_LUNG = 1000.0, 0.15


@dataclass(frozen=True, eq=False)
class LungMask:
    """The lungs with their vessels and nodules, up to the pleura.

    Attributes:
        mask: bool [k, j, i] on a coarse grid, axes S, A, R.
        grid_to_ras: (4, 4), grid index (i, j, k) to RAS mm.
        found: False where no lungs were found; the mask is empty then, and the caller may search the whole volume.
        message: a sentence for users on what was found.
        share: float32 of the mask's shape, how much of each cell is lung, 0..1: the pleura lies where it is 1/2. None
            where only the mask is known.
        notes: what is missing of the lungs, one sentence each: the scan ends in them, or one was not found.
    """

    mask: NDArray[np.bool_]
    grid_to_ras: NDArray[np.float64]
    found: bool
    message: str
    share: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> NDArray[np.float32]:
        """Share of lung in each cell: ``share`` if it is known, else 1 in the mask."""
        return self.mask.astype(np.float32) if self.share is None else self.share

    def share_at(self, points_ras: ArrayLike) -> NDArray[np.float32]:
        """Returns the share of lung at points (..., 3): 1 inside, 0 outside, between at the border (trilinear)."""
        points = np.asarray(points_ras, dtype=np.float64)
        index = world_to_ijk(self.grid_to_ras, points.reshape(-1, 3))[:, ::-1]
        share = ndimage.map_coordinates(self.cells, index.T, order=1, mode="grid-constant")
        return share.reshape(points.shape[:-1])

    def voxels(
        self, shape_kji: Sequence[int], ijk_to_ras: NDArray, progress: Progress | None = None
    ) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
        """The lungs in a volume's voxels: a block [k, j, i], 1 where more than half is lung, and its first voxel.

        Args:
            shape_kji: of the volume.
            ijk_to_ras: (4, 4) of the volume.
            progress: called with (done, total); returning False cancels.

        Raises:
            PredictionCancelled: ``progress`` returned False.
        """
        cells = np.argwhere(self.mask)[:, ::-1]
        if not len(cells):
            return np.zeros((1, 1, 1), np.uint8), (0, 0, 0)
        corners = box_corners(cells.min(axis=0) - 1.0, cells.max(axis=0) + 1.0)
        ijk = world_to_ijk(ijk_to_ras, transform_points(self.grid_to_ras, corners))
        low = np.clip(np.floor(ijk.min(axis=0)), 0, np.array(shape_kji[::-1]) - 1).astype(int)
        high = np.clip(np.ceil(ijk.max(axis=0)) + 1, low + 1, shape_kji[::-1]).astype(int)
        block = np.zeros((high - low)[::-1], np.uint8)
        to_cells = np.linalg.inv(self.grid_to_ras) @ ijk_to_ras
        for start in range(0, len(block), _SLAB):
            part = block[start : start + _SLAB]
            first = np.eye(4)
            first[:3, 3] = low + (0, 0, start)
            share = sample_grid(self.cells.transpose(2, 1, 0), to_cells @ first, part.shape[::-1], 0.0)
            part[:] = share.transpose(2, 1, 0) > 0.5
            report(progress, min(start + _SLAB, len(block)), len(block))
        i, j, k = (int(each) for each in low)
        return block, (k, j, i)

    def box_ras(self) -> NDArray[np.float64]:
        """The lowest and the highest R, A, S of the lungs' cells, (2, 3) mm; there must be some."""
        cells = np.argwhere(self.mask)[:, ::-1]
        corners = transform_points(self.grid_to_ras, np.stack([cells.min(axis=0), cells.max(axis=0)]))
        return np.stack([corners.min(axis=0), corners.max(axis=0)])


def extent_around(
    shape_kji: tuple[int, ...], ijk_to_ras: NDArray, lungs: LungMask | None, margin_mm: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lowest and the highest R, A, S of the part of a volume that is searched: up to a margin around the lungs."""
    low, high = extent_ras(shape_kji, ijk_to_ras)
    if lungs is None or not lungs.found:
        return low, high
    box = lungs.box_ras()
    return np.maximum(low, box[0] - margin_mm), np.minimum(high, box[1] + margin_mm)


def find_lungs(array_kji: NDArray, ijk_to_ras: ArrayLike, progress: Progress | None = None) -> LungMask:
    """Finds the lungs in a CT.

    Args:
        array_kji: (K, J, I) in HU, any numeric dtype.
        ijk_to_ras: (4, 4).
        progress: called with (done, total); returning False cancels.

    Returns:
        A mask; ``found`` is False, with the reason in ``message``, where there are no lungs.

    Raises:
        InputError: the matrix is none.
        PredictionCancelled: ``progress`` returned False.
    """
    affine = as_affine(ijk_to_ras)
    coarse = coarse_volume(
        array_kji,
        affine,
        CELL_MM,
        _MOST_CELLS,
        *_RANGE_HU,
        lambda share: report(progress, int(share * _STEPS * 0.6), _STEPS),
    )
    padding = _padded_cells(array_kji, affine, coarse)
    values = np.where(padding, np.float32(_RANGE_HU[0]), coarse.values)  # as all that lies beyond the volume
    coarse = dataclasses.replace(coarse, values=values, known=coarse.known & ~padding)
    reason = _no_ct(coarse, array_kji)
    if reason:
        return _not_found(coarse, reason)
    report(progress, 6, _STEPS)
    lungs = _lung_regions(coarse, lambda: report(progress, 6, _STEPS))
    report(progress, 7, _STEPS)
    if not lungs.any():
        return _not_found(coarse, "no lungs were found in this volume; the whole volume can be searched instead")
    closed = _close_each(lungs, coarse, lambda share: report(progress, 7 + int(2 * share), _STEPS))
    report(progress, _STEPS, _STEPS)
    liters = np.count_nonzero(closed) * coarse.cell_mm**3 / 1e6
    share = _share_of_cells(closed, coarse.values) * coarse.known
    return LungMask(
        closed,
        coarse.grid_to_ras,
        True,
        f"lungs found: {liters:.1f} liters in the volume",
        share,
        _missing_parts(closed, padding, coarse),
    )


def _padded_cells(array_kji: NDArray, ijk_to_ras: NDArray, coarse: CoarseVolume) -> NDArray[np.bool_]:
    """Cells beyond the field of view, which hold what the scanner or a converter filled in: not air, but unknown.

    Values darker than any air are padding wherever they are many. Other values are where they fill, without any noise
    and in all slices alike, what a circle or a rectangle leaves over.
    """
    planes, axis = _axial_planes(array_kji, ijk_to_ras)
    sample = planes[:: max(1, len(planes) // 16)]
    if np.count_nonzero(sample < _PADDING_HU) > _LEAST_PADDED * sample.size:
        padded: NDArray = array_kji < _PADDING_HU
    else:
        outside = _outside_of_view(sample)
        if outside is None:
            return np.zeros(coarse.known.shape, bool)
        padded = np.broadcast_to(np.expand_dims(outside, axis), array_kji.shape)
    share = coarse_volume(padded, ijk_to_ras, CELL_MM, _MOST_CELLS, 0.0, 1.0)
    return (share.values > _PADDED_SHARE) & coarse.known


def _axial_planes(array_kji: NDArray, ijk_to_ras: NDArray) -> tuple[NDArray, int]:
    """The volume with its axis nearest to S first, and which axis of [k, j, i] that is."""
    axis = 2 - closest_ras_axes(ijk_to_ras)[0][2]
    return np.moveaxis(array_kji, axis, 0), axis


def _outside_of_view(planes: NDArray) -> NDArray[np.bool_] | None:
    """Pixels of one and the same value in all planes around a round or rectangular field of view, or None."""
    corners = planes[0][[0, 0, -1, -1], [0, -1, 0, -1]]
    values, counts = np.unique(corners, return_counts=True)
    outside = (planes == values[counts.argmax()]).all(axis=0)
    inside = ~outside
    if outside.mean() < _LEAST_PADDED or not inside.any():
        return None
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # Circles are cut off where the image ends; their center is the image's then, else the box's.
    grid = np.indices(outside.shape, np.float32)
    for center in ((np.array(outside.shape) - 1) / 2, np.array((rows[0] + rows[-1], columns[0] + columns[-1])) / 2):
        radius = np.hypot(*(grid - center[:, None, None].astype(np.float32)))
        disc = radius <= radius[inside].max()
        if not disc.all() and np.count_nonzero(inside) > _WHOLE_VIEW * np.count_nonzero(disc):
            return outside
    return outside if box.mean() > _WHOLE_VIEW and box.size < outside.size else None


def _missing_parts(lungs: NDArray[np.bool_], padding: NDArray[np.bool_], coarse: CoarseVolume) -> tuple[str, ...]:
    """Returns sentences for users on parts of the lungs that the volume lacks."""
    notes = []
    area = coarse.cell_mm**2
    known = np.flatnonzero(coarse.known.any(axis=(1, 2)))
    ends = [
        name for name, k in (("below", known[0]), ("above", known[-1])) if np.count_nonzero(lungs[k]) * area > _CUT_MM2
    ]
    if ends:
        notes.append(f"the scan ends within the lungs ({' and '.join(ends)}): nodules beyond are not in it")
    sideways = ndimage.binary_dilation(lungs, np.ones((1, 3, 3), bool)) & ~lungs & ~coarse.known
    sides = np.count_nonzero(lungs[:, [0, -1]]) + np.count_nonzero(lungs[:, :, [0, -1]])
    if (np.count_nonzero(sideways) + sides) * area > _CUT_MM2:
        notes.append("the field of view cuts the lungs: nodules outside of it are not in the scan")
    filled = lungs.any(axis=(1, 2))
    body = (coarse.values > _BODY_HU) & coarse.known & filled[:, None, None]  # type: ignore[index]  # numpy's any(axis)
    if body.any():
        middle = np.median(np.nonzero(body)[2])
        left = int(np.count_nonzero(np.nonzero(lungs)[2] < middle))
        smaller, larger = sorted((left, np.count_nonzero(lungs) - left))
        if smaller < _LEAST_OTHER_LUNG * larger:
            side = "right" if left < larger else "left"
            notes.append(
                f"only the {side} lung was found: the other one has no air, is not in the scan or was missed; "
                "the whole volume can be searched instead"
            )
    return tuple(notes)


def _share_of_cells(closed: NDArray[np.bool_], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Computes the share of lung in each cell; at the surface, the cell's density tells where the pleura runs in it."""
    share = closed.astype(np.float32)
    surface = ndimage.binary_dilation(closed) & ~closed
    share[surface] = np.clip((_WALL_HU - values[surface]) / (_WALL_HU - _LUNG_HU), 0.0, 1.0)
    return share


def _no_ct(coarse: CoarseVolume, array_kji: NDArray) -> str:
    """Returns the reason why the volume cannot show lungs, or ""."""
    values = coarse.values[coarse.known]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if high - low < 1.0:
        # the clipped and averaged values are all the same; the volume's own need not be
        low, high = float(array_kji.min()), float(array_kji.max())
        if low == high:
            return f"the volume is {low:g} everywhere: there is nothing to find in it"
    if low > _TISSUE_HU:
        return (
            f"no lungs were found: the darkest part of the volume has {low:.0f}, where lung has about -850 HU. "
            "If this is a chest CT, its values must be in Hounsfield units"
        )
    return ""


def _not_found(coarse: CoarseVolume, message: str) -> LungMask:
    return LungMask(np.zeros(coarse.values.shape, bool), coarse.grid_to_ras, False, message)


def _lung_regions(coarse: CoarseVolume, tick: Callable[[], None]) -> NDArray[np.bool_]:
    """Aerated tissue of the lungs, without their vessels; ``tick`` is called now and then."""
    values, cell = coarse.values, coarse.cell_mm
    air = (values < _AIR_HU) & coarse.known
    aerated = (values < _TISSUE_HU) & ~air & coarse.known
    outer = _outer_air(air, aerated, coarse) | _padding(air, coarse)
    tick()
    # beyond the border of the volume the lung goes on
    passable = aerated | (air & ~outer) | ~coarse.known
    core = aerated & ndimage.binary_erosion(passable, iterations=max(1, round(_CORE_MM / cell)), border_value=1)
    labels, count = ndimage.label(core)
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * cell**3
    sizes[0] = 0.0
    # every other slice is enough
    chosen = np.intersect1d(np.flatnonzero(sizes >= _SMALLEST_CORE_MM3), labels[::2])
    if not len(chosen):
        return np.zeros(values.shape, bool)
    tick()
    tissue = values > _BODY_HU
    opened = _mean_sight(_without_shells(tissue, coarse), outer, _OPEN, labels, chosen)
    tick()
    bounded = _mean_sight(tissue, outer, _BOUNDED, labels, chosen)
    tick()
    lungs = np.isin(labels, chosen[(opened <= _MOST_OPEN) & (bounded >= _LEAST_BOUNDED)])
    lungs = ndimage.binary_dilation(lungs, iterations=round(_CORE_MM / cell) + 2, mask=aerated)
    return _without_small(lungs | _bullae(lungs, air & ~outer), cell)


def _bullae(lungs: NDArray[np.bool_], air: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Regions of air that border on lung with more than half of their surface."""
    labels, count = ndimage.label(air)
    if not count:
        return air
    surface = ndimage.grey_dilation(labels, size=(3, 3, 3))
    surface[labels > 0] = 0
    numbers = np.unique(surface[surface > 0])
    share = np.asarray(ndimage.mean(lungs, surface, numbers))
    return np.isin(labels, numbers[share > 0.5])


def _outer_air(air: NDArray[np.bool_], aerated: NDArray[np.bool_], coarse: CoarseVolume) -> NDArray[np.bool_]:
    """The air around the patient: large regions, and those at a side (left, right, front, back) of the volume."""
    labels, count = ndimage.label(air)
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * coarse.cell_mm**3
    at_side = np.zeros(count + 1, bool)
    unknown = ndimage.binary_dilation(~coarse.known, border_value=0)
    for part in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1], labels[unknown]):
        at_side[np.unique(part)] = True
    outer = (at_side & (sizes > 1000.0)) | (sizes > _OUTER_AIR_MM3)
    outer[0] = False
    for number in np.flatnonzero(outer & ~at_side):
        outer[number] = not _lies_in_lung(labels == number, air | aerated, coarse.cell_mm)
    return outer[labels]


def _lies_in_lung(region: NDArray[np.bool_], aerated: NDArray[np.bool_], cell: float) -> bool:
    """Whether a region of air is in a lung; around the air outside, behind a thin edge, lies skin."""
    near, far = (max(1, round(reach / cell)) for reach in _AROUND_AIR_MM)
    close = ndimage.binary_dilation(region, iterations=near)
    around = ndimage.binary_dilation(close, iterations=max(1, far - near)) & ~close
    return bool(np.count_nonzero(aerated & around) > _LEAST_AERATED_AROUND * np.count_nonzero(around))


def _without_shells(tissue: NDArray[np.bool_], coarse: CoarseVolume) -> NDArray[np.bool_]:
    """Tissue without thin layers, such as the shell of a table; what lies beyond the volume counts as tissue."""
    width = max(1, round(_SHELL_MM / coarse.cell_mm))
    thick = ndimage.binary_erosion(tissue | ~coarse.known, iterations=width, border_value=1)
    return ndimage.binary_dilation(thick, iterations=width) & tissue


def _padding(air: NDArray[np.bool_], coarse: CoarseVolume) -> NDArray[np.bool_]:
    """Cells of exactly 0 HU in the corners, where scanners and converters pad beyond a round field of view.

    They are told from soft tissue by the air that they border on.
    """
    labels, _ = ndimage.label((coarse.values == 0.0) & coarse.known)
    corners = labels[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    padding = np.isin(labels, np.unique(corners[corners > 0]))
    if not padding.any():
        return padding
    around = ndimage.binary_dilation(padding, iterations=4) & ~ndimage.binary_dilation(padding, iterations=2)
    dark = np.count_nonzero(coarse.values[around] < _TISSUE_HU)
    if np.count_nonzero(air[around]) <= _AIR_AROUND_PADDING * dark:
        return np.zeros_like(padding)
    # with the cells where padding and air are mixed, which look like tissue
    return ndimage.binary_dilation(padding, iterations=3)


def _mean_sight(
    tissue: NDArray[np.bool_], outer: NDArray[np.bool_], kind: int, labels: NDArray, chosen: NDArray
) -> NDArray[np.float64]:
    """For each of the ``chosen`` regions, the share of its sight lines in the axial plane that end at ``kind``.

    Args:
        tissue, outer: what ends a line: tissue (``_BOUNDED``), the air around the patient (``_OPEN``).
        kind: which of them to count.
        labels: the regions; every other slice is asked.
        chosen: numbers of those to tell of.
    """
    ends = np.where(outer[::2], np.int8(_OPEN), np.where(tissue[::2], np.int8(_BOUNDED), np.int8(0)))

    def look(direction: tuple[int, bool], tick: Callable[[], None]) -> NDArray[np.bool_]:
        axis, flip = direction
        seen = _last_event(np.flip(ends, axis) if flip else ends, axis)
        tick()
        return (np.flip(seen, axis) if flip else seen) == kind

    directions = [(axis, flip) for axis in (1, 2) for flip in (False, True)]
    share = sum((seen.astype(np.float32) for seen in in_threads(look, directions)), np.zeros(ends.shape, np.float32))
    return np.asarray(ndimage.mean(share / len(directions), labels[::2], chosen))


def _last_event(event: NDArray[np.int8], axis: int) -> NDArray[np.int8]:
    """The nearest value that is not 0 at a lower index along an axis, 0 where there is none."""
    index = np.where(
        event != 0,
        np.expand_dims(np.arange(1, event.shape[axis] + 1, dtype=np.int32), tuple(a for a in range(3) if a != axis)),
        0,
    )
    last = np.maximum.accumulate(index, axis=axis)
    return np.where(last > 0, np.take_along_axis(event, np.maximum(last - 1, 0), axis=axis), np.int8(0))


def _without_small(lungs: NDArray[np.bool_], cell: float) -> NDArray[np.bool_]:
    labels, count = ndimage.label(lungs)
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * cell**3
    keep = sizes >= _SMALLEST_LUNG_MM3
    keep[0] = False
    return keep[labels]


def _close_each(lungs: NDArray[np.bool_], coarse: CoarseVolume, progress: Callable[[float], None]) -> NDArray[np.bool_]:
    """Each lung closed by a ball and its holes filled slice by slice; together, they would be closed over the heart."""
    labels, count = ndimage.label(lungs)
    out = lungs.copy()
    reach = int(np.ceil(_CLOSING_MM / coarse.cell_mm)) + 1

    def close(
        numbered: tuple[int, tuple[slice, ...]], tick: Callable[[], None]
    ) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
        number, box = numbered
        grown = tuple(
            slice(max(s.start - reach, 0), min(s.stop + reach, n)) for s, n in zip(box, lungs.shape, strict=True)
        )
        closed = _closed(labels[grown] == number, _CLOSING_MM / coarse.cell_mm)
        closed &= coarse.known[grown]
        filled = np.stack([_filled(plane, _LARGEST_HOLE_MM2 / coarse.cell_mm**2) for plane in closed])
        tick()
        return grown, filled

    boxes = list(enumerate(ndimage.find_objects(labels), start=1))
    for grown, filled in in_threads(close, boxes, lambda done: progress(done / max(count, 1))):
        out[grown] |= filled
    return out


def _filled(plane: NDArray[np.bool_], most_cells: float) -> NDArray[np.bool_]:
    """A slice with its small holes filled: vessels and nodules, but not the dome of the diaphragm."""
    holes, count = ndimage.label(ndimage.binary_fill_holes(plane) & ~plane)
    small = np.bincount(holes.ravel(), minlength=count + 1) <= most_cells
    small[0] = False
    return plane | small[holes]


def _closed(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Closing by a ball; the mask goes on beyond the border of its array."""
    pad = int(np.ceil(radius)) + 1
    padded = np.pad(mask, pad, mode="edge")
    dilated = ndimage.distance_transform_edt(~padded) <= radius
    eroded = ndimage.distance_transform_edt(np.pad(dilated, 1, constant_values=False))[1:-1, 1:-1, 1:-1] > radius
    return (eroded | padded)[(slice(pad, -pad),) * 3]
