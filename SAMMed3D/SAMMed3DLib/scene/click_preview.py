"""Outlines in the slice views what a click would give where the pointer rests."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from .mask_block import MaskBlock
from .volume_geometry import toVtk

#: Marks our model.
PREVIEW_MARK = "SAMMed3D.Preview"


class ClickPreview:
    """Draws a thin outline, never in 3D; its model is made when first needed, neither listed nor saved with the scene.

    Attributes:
        block: the voxels that are outlined, None while nothing is.
    """

    def __init__(self, scene: Any) -> None:
        self.block: MaskBlock | None = None
        self._scene = scene
        self._id = ""

    @property
    def _node(self) -> Any | None:
        node = self._scene.GetNodeByID(self._id) if self._id else None
        return node if node is not None and node.GetAttribute(PREVIEW_MARK) else None

    def show(self, block: MaskBlock, ijkToWorld: NDArray, color: tuple[float, float, float]) -> None:
        """Outline voxels, and nothing else.

        Args:
            block: a block that is not empty.
            ijkToWorld: (4, 4) from the volume's index (i, j, k, 1).
            color: of the segment that a click would make.
        """
        self.prepare()
        node = self._node
        if node is None:
            return
        node.SetAndObserveMesh(_surface(block, ijkToWorld))
        with slicer.util.NodeModify(node.GetDisplayNode()) as display:
            display.SetColor(*((1.0 + part) / 2.0 for part in color))
            display.SetVisibility(True)
        self.block = block

    def hide(self) -> None:
        """Takes the outline away."""
        if self.block is not None:
            self.block = None
            if self._node is not None:
                self._node.SetDisplayVisibility(False)

    def close(self) -> None:
        """Remove the model."""
        self.block = None
        if self._node is not None:
            self._scene.RemoveNode(self._node)
        self._id = ""

    def prepare(self) -> None:
        """Makes the model, hidden, unless it is there: adding nodes takes the application a while."""
        if self._node is not None:
            return
        display, node = slicer.vtkMRMLModelDisplayNode(), slicer.vtkMRMLModelNode()
        for each in (display, node):
            each.SetSaveWithScene(False)
            each.SetHideFromEditors(True)
        display.SetVisibility(False)
        display.SetVisibility2D(True)
        display.SetVisibility3D(False)
        display.SetSliceIntersectionThickness(1)
        node.SetName("Preview of a click")
        node.SetAttribute(PREVIEW_MARK, "1")
        node.SetSelectable(False)
        node.SetAndObserveDisplayNodeID(self._scene.AddNode(display).GetID())
        self._id = self._scene.AddNode(node).GetID()


def _surface(block: MaskBlock, ijkToWorld: NDArray) -> vtk.vtkPolyData:
    """The surface of the voxels of a block, halfway between the centers of those inside and outside, in the world."""
    (k, j, i), (nk, nj, ni) = block.offset_kji, block.mask.shape
    image = vtk.vtkImageData()
    image.SetExtent(i - 1, i + ni, j - 1, j + nj, k - 1, k + nk)
    voxels = np.pad(block.mask != 0, 1).astype(np.uint8)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(voxels.ravel(), deep=True))
    edges, place, placed = vtk.vtkFlyingEdges3D(), vtk.vtkTransform(), vtk.vtkTransformPolyDataFilter()
    edges.SetInputData(image)
    edges.SetValue(0, 0.5)
    edges.ComputeNormalsOff()
    edges.ComputeScalarsOff()
    place.SetMatrix(toVtk(ijkToWorld))
    placed.SetTransform(place)
    placed.SetInputConnection(edges.GetOutputPort())
    placed.Update()
    return placed.GetOutput()
