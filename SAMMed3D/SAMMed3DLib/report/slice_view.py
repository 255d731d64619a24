"""Draws slices of a CT through a nodule, with outlines: axial, coronal and sagittal, as radiologists look at them.

Slices are sampled in patient coordinates, so that they are true to scale and upright for oblique and anisotropic
volumes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import ndimage

from ..inference.geometry import PlacedMask, voxel_spacing, world_to_ijk

#: Right and down in the picture, in RAS, as radiologists look at it: the patient's right on the left, the front on top
#: or on the left; then the letters for its left, right, top and bottom edge.
VIEWS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], str]] = {
    "axial": ((-1, 0, 0), (0, -1, 0), "RLAP"),
    "coronal": ((-1, 0, 0), (0, 0, -1), "RLSI"),
    "sagittal": ((0, -1, 0), (0, 0, -1), "APSI"),
}
WINDOW_HU = (-1250.0, 250.0)  # center -500, width 1500: a lung window
SMALLEST_VIEW_MM, LARGEST_VIEW_MM = 30.0, 140.0


@dataclass(frozen=True, eq=False)
class Outline:
    """The outline of a mask and how it is drawn."""

    block: PlacedMask
    color: str
    width: float
    filled: bool = False


def view_mm(reach_mm: float) -> float:
    """Returns the edge in mm of the square that shows everything within ``reach_mm`` of its middle."""
    return float(np.clip(2.9 * reach_mm, SMALLEST_VIEW_MM, LARGEST_VIEW_MM))


def draw_slice(
    axes: Axes,
    view: str,
    array_kji: NDArray,
    ijk_to_ras: NDArray,
    center: NDArray,
    edge_mm: float,
    outlines: Sequence[Outline],
    pixels: int,
) -> None:
    """Draws one slice through ``center`` (RAS mm), a square of ``edge_mm``; the axes are in mm from the center."""
    right, down, letters = VIEWS[view]
    half = edge_mm / 2
    steps = (np.arange(pixels) + 0.5) / pixels * edge_mm - half
    plane = center + steps[None, :, None] * np.array(right, float) + steps[:, None, None] * np.array(down, float)
    kji = world_to_ijk(ijk_to_ras, plane)[..., ::-1]
    axes.imshow(
        _hu_at(array_kji, kji), cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=(-half, half, half, -half)
    )
    axes.set_axis_off()
    smoothing = 0.3 * float(voxel_spacing(ijk_to_ras).min()) / (edge_mm / pixels)
    for order, outline in enumerate(outlines, start=2):
        inside = ndimage.gaussian_filter(_share_at(outline.block, kji), smoothing)
        if inside.max() <= 0.5:
            continue
        lines = axes.contour(
            steps, steps, inside, levels=(0.5,), colors=outline.color, linewidths=outline.width, zorder=order
        )
        lines.set(path_effects=shadow(outline.width + 1.3))
        if outline.filled:
            axes.contourf(steps, steps, inside, levels=(0.5, 2.0), colors=outline.color, alpha=0.13)
    axes.set_xlim(-half, half)
    axes.set_ylim(half, -half)
    _draw_marks(axes, letters, edge_mm)


def in_view(view: str, ras: NDArray, center: NDArray) -> tuple[float, float, float]:
    """Converts a point to mm to the right, down, and out of the slice."""
    right, down, _ = VIEWS[view]
    offset = np.asarray(ras) - center
    return float(offset @ right), float(offset @ down), float(offset @ np.cross(right, down))


def _hu_at(array_kji: NDArray, kji: NDArray) -> NDArray:
    """Samples HU at continuous voxel indices (n, n, 3): cubic, from the block that is needed; air outside."""
    shape = np.array(array_kji.shape)
    low = np.clip(np.floor(kji.min(axis=(0, 1))).astype(int) - 4, 0, shape - 1)
    high = np.clip(np.ceil(kji.max(axis=(0, 1))).astype(int) + 5, low + 1, shape)
    block = array_kji[low[0] : high[0], low[1] : high[1], low[2] : high[2]].astype(np.float32)
    values = ndimage.map_coordinates(block, np.moveaxis(kji - low, -1, 0), order=3, mode="nearest")
    outside = ((kji < -0.5) | (kji > shape - 0.5)).any(axis=-1)
    return np.where(outside, WINDOW_HU[0], np.clip(values, block.min(), block.max()))


def _share_at(block: PlacedMask, kji: NDArray) -> NDArray:
    coordinates = np.moveaxis(kji - np.array(block.offset_kji), -1, 0)
    mask = (np.asarray(block.mask) != 0).astype(np.float32)
    return ndimage.map_coordinates(mask, coordinates, order=1, mode="constant", cval=0.0)


def shadow(width: float = 2.2) -> list[patheffects.AbstractPathEffect]:
    """Returns path effects that set a line or a text off from any background; width in points."""
    return [patheffects.Stroke(linewidth=width, foreground="#000000a8"), patheffects.Normal()]


def write_text(axes: Axes, x: float, y: float, text: str, color: str, size: float, ha: str, va: str) -> None:
    """Writes a shadowed text at a place of the picture, (0, 0) at its lower left and (1, 1) at its upper right."""
    axes.text(x, y, text, transform=axes.transAxes, color=color, fontsize=size, ha=ha, va=va, path_effects=shadow())


def _draw_marks(axes: Axes, letters: str, edge_mm: float) -> None:
    """Orientation letters (left, right, top, bottom) and a scale bar."""
    color = "#d5dce3"
    places = ((0.03, 0.5), (0.97, 0.5), (0.5, 0.965), (0.5, 0.035))
    for letter, (x, y) in zip(letters, places, strict=True):
        write_text(axes, x, y, letter, color, 8, "center", "center")
    bar = 10.0 if edge_mm < 90 else 20.0
    length = bar / edge_mm
    axes.plot(
        [0.96 - length, 0.96],
        [0.05, 0.05],
        transform=axes.transAxes,
        color=color,
        linewidth=1.6,
        solid_capstyle="butt",
        path_effects=shadow(),
    )
    write_text(axes, 0.96 - length / 2, 0.062, f"{bar:.0f} mm", color, 6.5, "center", "bottom")
