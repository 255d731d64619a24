"""Pictures of a nodule: axial, coronal and sagittal slices with its outline and both axes, at one date or two."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..inference.geometry import PlacedMask, transform_points
from .document import MOST_PICTURES
from .findings import Diameter, Findings, Nodule
from .measuring import MeasuredScan
from .slice_view import VIEWS, Outline, draw_slice, in_view, shadow, view_mm, write_text

OUTLINE, LONG, SHORT, LABEL = "#2fe0c4", "#ffb627", "#ff7ab6", "#f0f3f6"
_TILE_INCHES, _TILE_PIXELS, _GAP = 2.2, 300, 0.05


@dataclass(frozen=True, eq=False)
class Seen:
    """A nodule in its scan, to be drawn as one row.

    Attributes:
        title: of its row, such as the date.
    """

    title: str
    nodule: Nodule
    block: PlacedMask
    array_kji: NDArray
    ijk_to_ras: NDArray


def pictures_of(findings: Findings, current: MeasuredScan, prior: MeasuredScan | None) -> dict[str, bytes]:
    """Draws the largest nodules; returns PNG bytes by their tracking UIDs, with the prior's row below."""
    made = {}
    for nodule in findings.nodules[:MOST_PICTURES]:
        rows = [_seen(current, nodule, findings.scan.date or "")]
        before = findings.prior_nodule(nodule.tracking_uid)
        if prior is not None and before is not None:
            rows.append(_seen(prior, before, prior.findings.scan.date or "prior"))
        made[nodule.tracking_uid] = nodule_picture(*rows)
    return made


def _seen(scan: MeasuredScan, nodule: Nodule, title: str) -> Seen:
    block = next(each.block for each in scan.segments if each.label == nodule.label)
    return Seen(title, nodule, block, scan.array_kji, scan.ijk_to_ras)


def nodule_picture(*rows: Seen) -> bytes:
    """Draws a PNG with three slices a row, all rows at one scale; the axial slice is the one that was measured."""
    centers = [_center(row) for row in rows]
    edge = max(view_mm(_reach(row, center)) for row, center in zip(rows, centers, strict=True))
    width, height = 3 * _TILE_INCHES + 2 * _GAP, len(rows) * (_TILE_INCHES + _GAP) - _GAP
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    for line, (row, center) in enumerate(zip(rows, centers, strict=True)):
        bottom = height - (line + 1) * _TILE_INCHES - line * _GAP
        for column, view in enumerate(VIEWS):
            left = column * (_TILE_INCHES + _GAP)
            axes = figure.add_axes((left / width, bottom / height, _TILE_INCHES / width, _TILE_INCHES / height))
            draw_slice(
                axes,
                view,
                row.array_kji,
                row.ijk_to_ras,
                center,
                edge,
                [Outline(row.block, OUTLINE, 1.2)],
                _TILE_PIXELS,
            )
            if view == "axial":
                _draw_axis(axes, row.nodule.long_axis, center, LONG)
                _draw_axis(axes, row.nodule.short_axis, center, SHORT)
                write_text(axes, 0.03, 0.91, row.title, LABEL, 10.0, "left", "bottom")
            write_text(axes, 0.03, 0.03, view, LABEL, 10.0, "left", "bottom")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_TILE_PIXELS / _TILE_INCHES)
    return stream.getvalue()


def _center(row: Seen) -> NDArray:
    """The center of the mask, in the slice of the axes."""
    center = np.array(row.nodule.place.centroid_ras)
    axis = row.nodule.long_axis
    center[2] = (axis.start_ras[2] + axis.end_ras[2]) / 2.0
    return center


def _reach(row: Seen, center: NDArray) -> float:
    voxels = np.argwhere(row.block.mask) + np.asarray(row.block.offset_kji)
    points = transform_points(row.ijk_to_ras, voxels[:, ::-1])
    return float(np.abs(points - center).max(initial=0.0))


def _draw_axis(axes: Axes, axis: Diameter, center: NDArray, color: str) -> None:
    start, end = (in_view("axial", np.array(point), center) for point in (axis.start_ras, axis.end_ras))
    axes.plot(
        [start[0], end[0]],
        [start[1], end[1]],
        color=color,
        linewidth=1.1,
        marker="|",
        markersize=4,
        path_effects=shadow(2.4),
        zorder=6,
    )
    # the length stands beyond the line's end; down in the picture is up for offsets
    outwards = np.subtract(end[:2], start[:2]) * (1.0, -1.0)
    outwards = 16.0 * outwards / max(float(np.linalg.norm(outwards)), 1e-6)
    axes.annotate(
        f"{axis.length_mm:.1f}",
        end[:2],
        tuple(outwards),
        color=color,
        textcoords="offset points",
        fontsize=10,
        path_effects=shadow(2.4),
        zorder=7,
        ha="center",
        va="center",
    )
