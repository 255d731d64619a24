"""Ring B: pictures of a volume with its segments and prompts, drawn by Slicer's displayable managers without a screen.

They show what the slice views of the application show, but are a simulation of it and say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import vtk
from numpy.typing import ArrayLike, NDArray
from vtk.util import numpy_support

from slicer_scene import SlicerScene
from slicer_view import SliceView

#: Window and level in HU of a lung CT.
LUNG = (1500.0, -500.0)
_VIEWS = (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal"))
_GAP = 4


def draw_slices(
    scene: SlicerScene,
    volume_node: Any,
    ras: ArrayLike,
    *,
    field_mm: float = 80.0,
    size: int = 360,
    window_level: tuple[float, float] = LUNG,
    note: str = "Simulation: Slicer's display classes without the application",
) -> NDArray[np.uint8]:
    """Axial, sagittal and coronal slices through a world point, side by side.

    Args:
        scene: where the volume, segmentations and point lists are; all that is visible is drawn.
        volume_node: the background.
        ras: world RAS (3,) in the middle.
        field_mm: width of each view.
        size: width and height of each view in pixels.
        window_level: of the volume's display.
        note: written into the last view.

    Returns:
        (size, 3 * size + gaps, 3) RGB, first row on top.
    """
    display = volume_node.GetDisplayNode()
    display.SetAutoWindowLevel(0)
    display.SetWindowLevel(*window_level)
    tiles = []
    for number, (name, orientation) in enumerate(_VIEWS):
        view = SliceView(scene, f"Picture{name}", orientation, size, size)
        view.show(volume_node)
        view.slice_node.SetFieldOfView(field_mm, field_mm, view.slice_node.GetFieldOfView()[2])
        view.jump(ras)
        _label(view, 3, orientation)
        if number == len(_VIEWS) - 1:
            _label(view, 0, note)
        tiles.append(view.pixels())
        node = view.slice_node
        view.close()
        scene.scene.RemoveNode(node)
    gap = np.full((size, _GAP, 3), 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)


def save_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes (height, width, 3) RGB, first row on top."""
    height, width, _channels = pixels.shape
    image = vtk.vtkImageData()
    image.SetDimensions(width, height, 1)
    rows = np.ascontiguousarray(pixels[::-1]).reshape(-1, 3)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(rows, deep=True))
    writer = vtk.vtkPNGWriter()
    writer.SetInputData(image)
    writer.SetFileName(str(path))
    writer.Write()


def _label(view: SliceView, corner: int, text: str) -> None:
    annotation = vtk.vtkCornerAnnotation()
    annotation.SetText(corner, text)
    annotation.SetMaximumFontSize(14)
    annotation.GetTextProperty().SetColor(1.0, 1.0, 0.6)
    view.renderer.AddViewProp(annotation)


def shown_colors(pixels: NDArray[np.uint8]) -> Sequence[tuple[int, int, int]]:
    """The colors that are not gray, the most frequent first."""
    flat = pixels.reshape(-1, 3).astype(int)
    colored = flat[np.ptp(flat, axis=1) > 30]
    values, counts = np.unique(colored, axis=0, return_counts=True)
    return [tuple(int(x) for x in values[n]) for n in np.argsort(-counts)]
