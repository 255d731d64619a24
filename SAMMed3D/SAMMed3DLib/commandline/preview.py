"""A picture of segmented nodules: axial, coronal and sagittal slices through each, with contours and the click."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ..files.output_files import whole_file
from ..files.volume_io import Volume
from ..inference.geometry import Block, PlacedMask, transform_points, voxel_spacing
from ..inference.nodule_table import number
from ..inference.postprocessing import tight_block
from ..report.slice_view import SMALLEST_VIEW_MM, VIEWS, WINDOW_HU, Outline, draw_slice, in_view, shadow, view_mm
from .prompts import NodulePrompt
from .segmenting import SegmentedNodule

_TILE_PIXELS = 420
_MOST_ROWS = 60  # a taller picture is beyond what Matplotlib draws and people look at

_BACKGROUND, _TEXT, _FAINT = "#0d1117", "#f0f3f6", "#8b98a5"
PREDICTION, REFERENCE, CLICK = "#2fe0c4", "#ffb627", "#ffffff"


@dataclass(frozen=True)
class PreviewRow:
    """One nodule of the picture.

    Attributes:
        title: name of the nodule.
        facts: (what, value) lines beside the slices.
        prediction: the mask that was found.
        clicks: (RAS mm, positive), oldest first; the slices run through the first positive one.
        reference: the mask it should be, if known.
        volume: array [k, j, i] and its IJK-to-RAS matrix, where it is another than the rest of the picture's.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    prediction: PlacedMask
    clicks: tuple[tuple[tuple[float, float, float], bool], ...] = ()
    reference: PlacedMask | None = None
    volume: tuple[NDArray, NDArray] | None = None


def write_picture(
    path: Path, volume: Volume, results: Sequence[SegmentedNodule], reference: NDArray | None = None
) -> None:
    """The picture of what ``segment`` and ``demo`` found; the masks of ``reference`` have the results' labels.

    Raises:
        InputError: the place cannot be written.
    """
    rows = [_preview_row(result, reference) for result in results[:_MOST_ROWS]]
    subtitle = _what_was_asked([result.prompt for result in results])
    if len(results) > len(rows):
        subtitle += f"; the first {len(rows)} are shown"
    write_preview(path, volume.array_kji, volume.ijk_to_ras, rows, volume.name, subtitle)


def _what_was_asked(prompts: Sequence[NodulePrompt]) -> str:
    count = f"{len(prompts)} nodule{'s' * (len(prompts) != 1)}"
    if all(len(prompt.points) == 1 and prompt.box is None for prompt in prompts):
        return f"{count}, one click each"
    numbers = {
        "click": sum(len(prompt.points) for prompt in prompts),
        "box": sum(prompt.box is not None for prompt in prompts),
    }
    plural = {"click": "clicks", "box": "boxes"}
    return ", ".join([count, *(f"{n} {what if n == 1 else plural[what]}" for what, n in numbers.items() if n)])


def _preview_row(result: SegmentedNodule, reference: NDArray | None) -> PreviewRow:
    record = result.record
    facts = [
        ("Volume", f"{number(record.volume_mm3, 0)} mm³"),
        ("Long × short axis", f"{number(record.long_axis_mm, 1)} × {number(record.short_axis_mm, 1)} mm"),
        ("Mean density", f"{number(record.mean_hu, 0)} HU".replace("-", "\u2212")),
        ("Predicted IoU", number(result.prediction.score, 2)),
    ]
    if result.dice is not None:
        facts.append(("Dice", number(result.dice, 2)))
    clicks = tuple(zip(result.prompt.points, result.prompt.positive, strict=True))
    truth = None
    if reference is not None:
        mask, (k, j, i) = tight_block(reference == result.label)
        truth = Block(mask.astype(np.uint8), (int(k), int(j), int(i)))
    return PreviewRow(result.name[:1].upper() + result.name[1:], tuple(facts), result.prediction, clicks, truth)


def write_preview(
    path: Path, array_kji: NDArray, ijk_to_ras: NDArray, rows: Sequence[PreviewRow], title: str, subtitle: str = ""
) -> None:
    """Writes the picture as PNG, whole or not at all.

    Raises:
        InputError: the place cannot be written.
    """
    tile, caption, gap, head, foot = 2.8, 2.25, 0.09, 1.0, 0.42  # inches
    width, height = caption + 3 * (tile + gap) + gap, head + len(rows) * (tile + gap) + foot
    figure = Figure(figsize=(width, height), facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    _draw_head(figure, width, height, title, subtitle, any(row.reference for row in rows))
    for line, row in enumerate(rows):
        bottom = height - head - (line + 1) * tile - line * gap
        array, matrix = row.volume or (array_kji, ijk_to_ras)
        center, edge_mm = _where_to_look(row, matrix)
        _draw_caption(figure, (0.22 / width, (bottom + tile) / height), row, tile / height)
        for column, view in enumerate(VIEWS):
            left = caption + column * (tile + gap)
            axes = figure.add_axes((left / width, bottom / height, tile / width, tile / height))
            if line == 0:
                axes.set_title(view.upper(), color=_FAINT, fontsize=8.5, pad=7)
            _draw_view(axes, view, array, matrix, row, center, edge_mm)
    window = f"{WINDOW_HU[0]:.0f} to {WINDOW_HU[1]:.0f} HU".replace("-", "\u2212")
    figure.text(
        0.22 / width,
        0.17 / height,
        "Radiological view: the patient's right is on the left of the picture.  "
        f"Lung window, {window}.  Slices run through the first click.",
        color=_FAINT,
        fontsize=7.5,
    )
    with whole_file(path) as part:
        figure.savefig(part, dpi=_TILE_PIXELS / tile, facecolor=_BACKGROUND, format="png")


def _where_to_look(row: PreviewRow, ijk_to_ras: NDArray) -> tuple[NDArray, float]:
    """The point (RAS) through which the slices run, and the edge in mm of the square that shows all of the nodule."""
    masks = [block for block in (row.prediction, row.reference) if block is not None and block.mask.any()]
    voxels = [np.argwhere(block.mask) + block.offset_kji for block in masks]
    points = transform_points(ijk_to_ras, np.concatenate([np.zeros((0, 3)), *voxels])[:, ::-1])
    positive = [position for position, is_positive in row.clicks if is_positive]
    if not len(points) and not positive:
        return ijk_to_ras[:3, 3], SMALLEST_VIEW_MM
    center = np.array(positive[0]) if positive else points.mean(axis=0)
    reach = np.abs(points - center).max(initial=0.0)
    return center, view_mm(float(reach))


def _draw_view(
    axes: Axes, view: str, array_kji: NDArray, ijk_to_ras: NDArray, row: PreviewRow, center: NDArray, edge_mm: float
) -> None:
    outlines = [] if row.reference is None else [Outline(row.reference, REFERENCE, 1.1)]
    outlines.append(Outline(row.prediction, PREDICTION, 1.5, filled=True))
    draw_slice(axes, view, array_kji, ijk_to_ras, center, edge_mm, outlines, _TILE_PIXELS)
    slab = edge_mm / _TILE_PIXELS + 0.5 * float(voxel_spacing(ijk_to_ras).max())
    for position, positive in row.clicks:
        right, down, away = in_view(view, np.array(position), center)
        if abs(away) <= slab:
            _draw_click(axes, right, down, positive)


def _draw_click(axes: Axes, x: float, y: float, positive: bool) -> None:
    axes.plot(
        [x],
        [y],
        marker="o",
        markersize=7.5,
        markerfacecolor="none",
        markeredgecolor=CLICK,
        markeredgewidth=1.2,
        path_effects=shadow(2.8),
        zorder=5,
    )
    axes.plot([x], [y], marker="." if positive else "_", markersize=3.2, color=CLICK, zorder=6)


def _draw_caption(figure: Figure, corner: tuple[float, float], row: PreviewRow, height: float) -> None:
    x, y = corner
    figure.text(x, y - 0.02 * height, row.title, color=_TEXT, fontsize=11.5, fontweight="bold", va="top")
    for line, (what, value) in enumerate(row.facts):
        top = y - height * (0.16 + 0.15 * line)
        figure.text(x, top, what.upper(), color=_FAINT, fontsize=6.3, va="top")
        color = PREDICTION if what == "Dice" else _TEXT
        figure.text(x, top - 0.048 * height, value, color=color, fontsize=11, va="top")


def _draw_head(figure: Figure, width: float, height: float, title: str, subtitle: str, reference: bool) -> None:
    figure.text(0.22 / width, 1 - 0.2 / height, title, color=_TEXT, fontsize=15, fontweight="bold", va="top")
    figure.text(0.22 / width, 1 - 0.53 / height, subtitle, color=_FAINT, fontsize=9, va="top")
    outline: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 6.5, "markerfacecolor": "none"}
    entries = [
        Line2D([], [], color=CLICK, label="click", **outline),
        Line2D([], [], color=PREDICTION, label="segmentation", linewidth=2),
    ]
    if reference:
        entries.append(Line2D([], [], color=REFERENCE, label="reference", linewidth=2))
    figure.legend(
        handles=entries,
        loc="upper right",
        bbox_to_anchor=(1 - 0.05 / width, 1 - 0.16 / height),
        ncols=len(entries),
        frameon=False,
        labelcolor=_TEXT,
        fontsize=9,
        handlelength=1.5,
        handletextpad=0.6,
        columnspacing=1.6,
    )
