"""Measures a scan's segmented nodules for the findings: type, diameters, volume with interval, place."""

from __future__ import annotations

import dataclasses
import datetime
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from .. import __version__
from ..inference.geometry import (
    Block,
    PlacedMask,
    block_slices,
    slice_step,
    transform_points,
    voxel_spacing,
    world_to_ijk,
)
from ..inference.measurements import SOLID_HU, AxialAxes, NoduleRecord, measure_nodule, measure_with_axes
from ..inference.nodule_table import BY_HAND
from .findings import (
    Diameter,
    Findings,
    Interval,
    Nodule,
    NoduleType,
    Place,
    Point,
    Scan,
    Side,
    SolidCore,
    mean_of_tenths,
    tenth,
    tracking_uid,
)

if TYPE_CHECKING:
    from ..finding.lungs import LungMask

Z95 = 1.959964
#: 95 % limits of the change between two scans of one day, the worst of six commercial packages on solid nodules (de
#: Hoop 2009), and of subsolid ones (Scholten 2015).
REPEAT_LIMITS = {"solid, >= 8 mm": 0.171, "solid, < 8 mm": 0.256, "subsolid": 0.35}
#: Standard deviation of one measurement of a nodule 100 HU denser than the lung around it: a shift of the outline,
#: mm, what each mm of slice distance adds to it, and a part of the volume. Twice the contrast, half the error. Fitted
#: to made-up pairs of 5 to 16 mm, one click each (Testing/benchmarks/follow_up.py growth). Larger ones were not
#: measured: they are taken to be as uncertain, in percent, as the largest; so are contrasts beyond these.
OUTLINE_MM, OUTLINE_PER_SLICE, VOLUME_SHARE = 0.27, 0.15, 0.14
LARGEST_MEASURED_MM, MEASURED_CONTRAST_HU = 16.0, (50.0, 900.0)
#: The lung around a nodule: voxels so far from its mask, below so many HU; with fewer voxels than the third figure lung
#: is taken to have the fourth, HU.
_AROUND_MM, _LUNG_BELOW_HU, _LEAST_AROUND, _USUAL_LUNG_HU = (4.0, 10.0), -600.0, 30, -860.0
#: Size in mm of the cells on which distances to a mask are taken.
_CELL_MM = 1.5

#: Width in mm of a nodule's rim, which is left out of its density since it is partial volume.
_RIM_MM = 1.0
#: Fewest voxels within the rim; a nodule with fewer is judged by its brightest half.
_LEAST_INNER = 8
#: A nodule is solid if at least this share of the voxels inside the rim is denser than so many HU. (Half-way densities
#: are partial volume as often as tissue: the solid part's limit, -300 HU, would call small solid nodules mixed.)
_SOLID_SHARE, _DENSE_HU = 0.4, -200.0
#: Smallest diameter and depth of a part-solid nodule's core: vessels that pass through are thinner.
_SMALLEST_CORE_MM, _LEAST_CORE_DEPTH_MM = 2.5, 0.85
#: A nodule this close to the lung's surface touches it: half a cell of the lungs' grid.
_TOUCHES_MM = 1.0
#: Least share of one lung in the volume of both; and mm to erode from lungs that touch, tried one after the other
#: until they separate.
_LEAST_LUNG_SHARE, _PARTING_MM = 0.1, (0.0, 2.5, 5.0, 9.0, 14.0)


@dataclass(frozen=True, eq=False)
class Segment:
    """One segmented nodule of a scan.

    Attributes:
        label: its value in the segmentation.
        name: for people.
        block: its mask; a Prediction brings its logits, for partial volumes.
        tracking_uid: None makes one, the same each time for the same scan, label and name.
        status: "AI", "reviewed" or "flagged".
        lobe: from a lobe segmentation; None without one.
        measured: figures of a NoduleRecord that were taken from the model's output of this very mask; they come before
            those of the mask, so that a nodule has one volume wherever it is shown. "diameters" as in the table.
        axes_ras: (2, 2, 3) where the long and the short axis of ``measured`` end, in its ``slice_index``; a person
            may have drawn them. None: the mask's.
    """

    label: int
    name: str
    block: PlacedMask
    tracking_uid: str | None = None
    status: Literal["AI", "reviewed", "flagged"] = "AI"
    lobe: str | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)
    axes_ras: NDArray | None = None


@dataclass(frozen=True, eq=False)
class MeasuredScan:
    """One scan with its nodules and their findings.

    Attributes:
        array_kji: (K, J, I) HU.
        ijk_to_ras: (4, 4), to the coordinates of the findings.
        path: where the scan was read from; None where that is not known.
        lungs: of the scan.
        segments: the masks, by the labels of the findings.
        findings: of this scan alone.
    """

    array_kji: NDArray
    ijk_to_ras: NDArray
    path: Path | None
    lungs: LungMask
    segments: tuple[Segment, ...]
    findings: Findings


def segments_of(
    labels_kji: NDArray, names: dict[int, str] | None = None, uids: dict[int, str] | None = None
) -> list[Segment]:
    """Lists the nodules of a label map, one for each label in it."""
    names, uids = names or {}, uids or {}
    found = []
    for label, place in enumerate(ndimage.find_objects(labels_kji), start=1):
        if place is not None:
            mask = (labels_kji[place] == label).astype(np.uint8)
            start = (place[0].start, place[1].start, place[2].start)
            found.append(Segment(label, names.get(label, f"nodule {label}"), Block(mask, start), uids.get(label)))
    return found


def measure_scan(
    scan: Scan,
    array_kji: NDArray,
    ijk_to_ras: NDArray,
    segments: Sequence[Segment],
    lungs: LungMask | None = None,
    model: str = "unknown",
    progress: Callable[[int, int], object] | None = None,
) -> Findings:
    """Measures every nodule of a scan, the largest first.

    Args:
        scan: from :func:`.scan_facts.scan_of`.
        array_kji: (K, J, I) HU.
        ijk_to_ras: (4, 4).
        segments: empty ones are left out.
        lungs: for side and distance to the pleura.
        model: name of the model that made the masks.
        progress: called with (done, total).
    """
    surface = LungSurface(lungs) if lungs is not None and lungs.found else None
    # without a series UID the voxels themselves tell one scan from another of the same name
    source = scan.series_uid or f"{scan.name} {zlib.crc32(np.ascontiguousarray(array_kji[::8, ::8, ::8]).tobytes())}"
    nodules = []
    for number, segment in enumerate(segments, start=1):
        if np.asarray(segment.block.mask).any():
            nodules.append(_nodule(source, array_kji, ijk_to_ras, segment, surface))
        if progress is not None:
            progress(number, len(segments))
    nodules.sort(key=lambda nodule: -nodule.volume_mm3)
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    return Findings(scan, tuple(nodules), now.isoformat(), f"SAMMed3D {__version__}", model)


def _nodule(
    source: str, array_kji: NDArray, ijk_to_ras: NDArray, segment: Segment, surface: LungSurface | None
) -> Nodule:
    measured, axes = measure_with_axes(segment.block, array_kji, ijk_to_ras)
    assert axes is not None  # only masks with voxels are listed
    record = _with_figures(measured, segment.measured)
    if segment.axes_ras is not None:
        measured_in = int(segment.measured.get("slice_index", record.slice_index))
        axes = AxialAxes(segment.axes_ras[0], segment.axes_ras[1], measured_in)
        record = dataclasses.replace(record, slice_index=measured_in)
    note = str(segment.measured.get("note") or record.note)
    kind, reason, core = nodule_type(segment.block, array_kji, ijk_to_ras)
    long_axis, short_axis = _diameter(axes.long_ras), _diameter(axes.short_ras)
    return Nodule(
        tracking_uid=segment.tracking_uid or tracking_uid(source, str(segment.label), segment.name),
        label=segment.label,
        name=segment.name,
        type=kind,
        type_reason=reason,
        long_axis=long_axis,
        short_axis=short_axis,
        mean_diameter_mm=mean_of_tenths(axes.long_axis_mm, axes.short_axis_mm),
        volume_mm3=record.volume_mm3,
        volume_interval_mm3=volume_interval(
            record, contrast_hu(segment.block, array_kji, ijk_to_ras), slice_step(ijk_to_ras)
        ),
        mean_hu=record.mean_hu,
        mass_mg=record.mass_mg,
        place=_place(segment, record, ijk_to_ras, surface),
        solid=_solid_core(core, segment.block, array_kji, ijk_to_ras) if kind == "part-solid" else None,
        status=segment.status,
        diameters_by_hand=segment.measured.get("diameters") == BY_HAND,
        remarks=(note,) if note else (),
    )


def _with_figures(record: NoduleRecord, known: Mapping[str, Any]) -> NoduleRecord:
    """Returns a mask's record with the volume, and its range over clicks, that the model's output gave."""
    volume = known.get("volume_mm3")
    if not volume or not record.volume_mm3:
        return record
    low, high = (known.get(key) for key in ("volume_low_mm3", "volume_high_mm3"))
    return dataclasses.replace(
        record,
        volume_mm3=volume,
        equivalent_diameter_mm=record.equivalent_diameter_mm * float(np.cbrt(volume / record.volume_mm3)),
        mass_mg=record.mass_mg * volume / record.volume_mm3,
        volume_low_mm3=math.nan if low is None else low,
        volume_high_mm3=math.nan if high is None else high,
    )


def _diameter(ends_ras: NDArray) -> Diameter:
    start, end = (_point(point) for point in ends_ras)
    return Diameter(tenth(float(np.linalg.norm(ends_ras[1] - ends_ras[0]))), start, end)


def _point(ras: NDArray) -> Point:
    return float(ras[0]), float(ras[1]), float(ras[2])


def contrast_hu(block: PlacedMask, array_kji: NDArray, ijk_to_ras: NDArray) -> float:
    """Returns how much denser a nodule is than the lung around it: the difference of their medians, HU."""
    mask = np.asarray(block.mask) != 0
    spacing = voxel_spacing(ijk_to_ras)[::-1]
    offset, margin = np.array(block.offset_kji), np.ceil(_AROUND_MM[1] / spacing).astype(int)
    low = np.maximum(offset - margin, 0)
    high = np.minimum(offset + mask.shape + margin, array_kji.shape)
    inside = np.zeros(high - low, bool)
    inside[tuple(slice(a, a + n) for a, n in zip(offset - low, mask.shape, strict=True))] = mask
    every = np.maximum((_CELL_MM / spacing).astype(int), 1)
    cells = tuple(slice(None, None, step) for step in every)
    away = ndimage.distance_transform_edt(~inside[cells], sampling=spacing * every)
    values = array_kji[tuple(slice(a, b) for a, b in zip(low, high, strict=True))][cells]
    around = values[(away >= _AROUND_MM[0]) & (away <= _AROUND_MM[1]) & (values < _LUNG_BELOW_HU)]
    lung = float(np.median(around)) if len(around) >= _LEAST_AROUND else _USUAL_LUNG_HU
    return float(np.median(array_kji[block_slices(block)][mask])) - lung


def volume_interval(record: NoduleRecord, contrast: float, slice_mm: float) -> Interval:
    """Returns the 95 % interval of a volume, over repeated scans and clicks of made-up nodules.

    A shift of the whole outline makes 6 shift / diameter of the volume; it is larger for thick slices. A part of the
    volume is added. Both are inverse to the contrast: where a faint nodule ends is anybody's guess. The range over
    clicks elsewhere in the nodule, where it was asked for, lies within the interval.
    """
    shift = math.hypot(OUTLINE_MM, OUTLINE_PER_SLICE * slice_mm)
    surface = 6.0 * shift / min(record.equivalent_diameter_mm, LARGEST_MEASURED_MM)
    least, most = MEASURED_CONTRAST_HU
    width = math.exp(Z95 * math.hypot(surface, VOLUME_SHARE) * 100.0 / min(max(contrast, least), most))
    low, high = record.volume_mm3 / width, record.volume_mm3 * width
    if math.isfinite(record.volume_low_mm3) and math.isfinite(record.volume_high_mm3):
        low, high = min(low, record.volume_low_mm3), max(high, record.volume_high_mm3)
    return Interval(low, high)


def repeat_limit(kind: NoduleType, volume_mm3: float) -> float:
    """Returns the share by which an unchanged nodule's volume may differ between two scans of one day (95 %)."""
    if kind != "solid":
        return REPEAT_LIMITS["subsolid"]
    return REPEAT_LIMITS["solid, >= 8 mm" if volume_mm3 >= math.pi / 6.0 * 8.0**3 else "solid, < 8 mm"]


def nodule_type(block: PlacedMask, array_kji: NDArray, ijk_to_ras: NDArray) -> tuple[NoduleType, str, NDArray]:
    """Classifies a nodule: solid, part-solid or ground glass, the reason, and the solid core's mask (as the block).

    The rim, where voxels hold lung too, is left out. Solid: at least 40 % of the rest lie above -200 HU. Part-solid:
    less, but with a connected core above -300 HU of at least 2.5 mm, which reaches 0.85 mm deep. Otherwise ground
    glass. Chosen on readers' texture of LIDC-IDRI (Resources/Documentation/findings.md has the counts).
    """
    mask = np.asarray(block.mask) != 0
    values = array_kji[block_slices(block)].astype(np.float32)
    spacing = voxel_spacing(ijk_to_ras)[::-1]
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    inner = mask & (depth > _RIM_MM + 0.5 * float(spacing.min()))
    what = "inside its rim"
    if np.count_nonzero(inner) < _LEAST_INNER:
        inner = mask & (values >= np.median(values[mask]))
        what = "of its brighter half"
    share = float(np.mean(values[inner] > _DENSE_HU))
    core = _largest_part(mask & (values > SOLID_HU))
    core_mm = float(np.cbrt(6.0 / math.pi * np.count_nonzero(core) * abs(np.linalg.det(ijk_to_ras[:3, :3]))))
    fact = f"{100 * share:.0f} % {what} above {_DENSE_HU:.0f} HU"
    if share >= _SOLID_SHARE:
        return "solid", fact, core
    deepest = float(ndimage.distance_transform_edt(np.pad(core, 1), sampling=spacing).max())
    if core_mm >= _SMALLEST_CORE_MM and deepest >= _LEAST_CORE_DEPTH_MM:
        return "part-solid", f"{fact}, core above {SOLID_HU:.0f} HU of {core_mm:.1f} mm", core
    return "ground-glass", f"{fact}, no core above {SOLID_HU:.0f} HU of {_SMALLEST_CORE_MM:g} mm", core


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns the largest connected part (over faces)."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


def _solid_core(core: NDArray[np.bool_], block: PlacedMask, array_kji: NDArray, ijk_to_ras: NDArray) -> SolidCore:
    record = measure_nodule(Block(core.astype(np.uint8), block.offset_kji), array_kji, ijk_to_ras)
    long_axis, short_axis = record.long_axis_mm, record.short_axis_mm
    return SolidCore(record.volume_mm3, tenth(long_axis), tenth(short_axis), mean_of_tenths(long_axis, short_axis))


def _place(segment: Segment, record: NoduleRecord, ijk_to_ras: NDArray, surface: LungSurface | None) -> Place:
    side: Side | None = None
    distance = None
    if surface is not None:
        voxels = np.argwhere(segment.block.mask) + np.asarray(segment.block.offset_kji)
        points = transform_points(ijk_to_ras, voxels[:, ::-1])
        side = surface.side(points.mean(axis=0))
        reach = surface.distance_mm(points) - 0.5 * float(voxel_spacing(ijk_to_ras).mean())
        distance = 0.0 if reach < _TOUCHES_MM else round(reach, 1)
    return Place(record.centroid_ras, record.slice_index + 1, side, segment.lobe, distance)


def _two_lungs(mask: NDArray[np.bool_], cell_mm: float) -> list[NDArray[np.bool_]]:
    """Separates the two lungs, or their insides where they touch; empty where there are not exactly two."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1] * cell_mm
    for layer in _PARTING_MM:
        labels, count = ndimage.label(depth > layer)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        large = np.flatnonzero(sizes >= _LEAST_LUNG_SHARE * max(int(sizes.sum()), 1)) + 1
        if len(large) == 2:
            return [labels == number for number in large]
    return []


class LungSurface:
    """The lungs' outer surface: tells the side of a point and its distance to the surface."""

    def __init__(self, lungs: LungMask) -> None:
        self._lungs = lungs
        self._cell = float(voxel_spacing(lungs.grid_to_ras).mean())
        around = ndimage.binary_dilation(lungs.mask) & ~lungs.mask
        self._outside = cKDTree(self._ras(around))
        self._sides: list[tuple[Side, cKDTree]] = []
        parts = _two_lungs(lungs.mask, self._cell)
        if parts:
            right, left = sorted((self._ras(part) for part in parts), key=lambda points: -float(points[:, 0].mean()))
            self._sides = [("right", cKDTree(right[::4])), ("left", cKDTree(left[::4]))]

    def _ras(self, mask: NDArray) -> NDArray:
        return transform_points(self._lungs.grid_to_ras, np.argwhere(mask)[:, ::-1])

    def side(self, ras: NDArray) -> Side | None:
        """Returns the nearest lung's side; None where there are not exactly two lungs."""
        if not self._sides:
            return None
        return min(self._sides, key=lambda each: float(each[1].query(ras)[0]))[0]

    def distance_mm(self, points_ras: NDArray) -> float:
        """Returns the least distance of points to the surface, 0 where one of them lies outside."""
        index = np.rint(world_to_ijk(self._lungs.grid_to_ras, points_ras))[:, ::-1].astype(int)
        within = np.all((index >= 0) & (index < self._lungs.mask.shape), axis=1)
        inside = np.zeros(len(index), bool)
        inside[within] = self._lungs.mask[tuple(index[within].T)]
        if not inside.all():
            return 0.0
        return max(0.0, float(self._outside.query(points_ras)[0].min()) - 0.5 * self._cell)
