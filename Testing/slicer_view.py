"""Ring B: a slice view of the application, offscreen, with Slicer's own displayable managers and a simulated mouse.

The application's light box and its Qt event filter are not part of ``slicer-core``: the slice image comes from an
image mapper of our own and mouse events are put straight into the interactor, where Qt's would arrive. Everything
behind that (interactor style, displayable managers, markups widgets) is Slicer's.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import ArrayLike, NDArray
from vtk.util import numpy_support

from slicer_scene import SlicerScene, as_vtk_matrix

_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
)


@functools.cache
def can_draw() -> bool:
    """Whether VTK finds a way to draw here; without one it ends the process."""
    if not sys.platform.startswith("linux"):
        return True
    return _loads("libEGL.so.1") or _loads("libOSMesa.so") or (bool(os.environ.get("DISPLAY")) and _loads("libGL.so.1"))


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


@functools.cache
def _factory() -> Any:
    factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
    for name in _MANAGERS:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)
    return factory


class SliceView:
    """One slice view of ``width`` x ``height`` pixels, named Red (axial), Green (coronal) or Yellow (sagittal).

    Attributes:
        interactor: the vtkRenderWindowInteractor, as ``sliceView().interactor()`` gives in the application.
        slice_node: its vtkMRMLSliceNode.
        slice_logic: its vtkMRMLSliceLogic.
    """

    def __init__(
        self, scene: SlicerScene, name: str = "Red", orientation: str = "Axial", width: int = 400, height: int = 300
    ) -> None:
        self._scene = scene
        factory = _factory()
        factory.SetMRMLApplicationLogic(scene.app)
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(width, height)
        self.renderer = vtk.vtkRenderer()
        self.renderer.SetBackground(0, 0, 0)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkGenericRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self.interactor.Initialize()

        self.slice_logic = slicer.vtkMRMLSliceLogic()
        self.slice_logic.SetMRMLApplicationLogic(scene.app)
        self.slice_logic.SetMRMLScene(scene.scene)
        self.slice_node = self.slice_logic.AddSliceNode(name)
        self.slice_node.SetOrientation(orientation)
        self.slice_node.SetMappedInLayout(1)
        self.slice_logic.ResizeSliceNode(width, height)
        scene.app.GetSliceLogics().AddItem(self.slice_logic)

        self.mapper = vtk.vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self._image = vtk.vtkActor2D()
        self._image.SetMapper(self.mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()
        self._image.SetVisibility(False)
        # First, as what comes later is blended with it.
        self.renderer.AddViewProp(self._image)

        self.group = factory.InstantiateDisplayableManagers(self.renderer)
        self.group.SetMRMLDisplayableNode(self.slice_node)
        self.style = slicer.vtkMRMLSliceViewInteractorStyle()
        self.style.SetSliceLogic(self.slice_logic)
        self.style.SetDisplayableManagers(self.group)
        self.style.SetInteractor(self.interactor)
        self.render()

    def close(self) -> None:
        """Frees the window; the scene must still be open."""
        self.style.SetInteractor(None)
        self.style.SetSliceLogic(None)
        self.group.RemoveAllObservers()
        self._scene.app.GetSliceLogics().RemoveItem(self.slice_logic)
        self.window.Finalize()

    def show(self, volume_node: Any) -> None:
        """Puts a volume into the background and fits the view to it."""
        self.slice_logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume_node.GetID())
        self.slice_logic.FitSliceToBackground()
        self.slice_logic.UpdatePipeline()
        self.render()

    def render(self) -> None:
        """Draws what is pending."""
        self.mapper.SetInputConnection(self.slice_logic.GetImageDataConnection())
        self._image.SetVisibility(self.slice_logic.HasInputs())
        self.window.Render()

    def pixels(self) -> NDArray[np.uint8]:
        """What is on the screen: (height, width, 3) RGB, first row on top."""
        self.render()
        reader = vtk.vtkWindowToImageFilter()
        reader.SetInput(self.window)
        reader.ReadFrontBufferOff()
        reader.Update()
        image = reader.GetOutput()
        width, height, _depth = image.GetDimensions()
        return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()

    def screenshot(self, path: Path) -> None:
        """Writes what is on the screen as PNG."""
        self.render()
        reader = vtk.vtkWindowToImageFilter()
        reader.SetInput(self.window)
        reader.ReadFrontBufferOff()
        writer = vtk.vtkPNGWriter()
        writer.SetInputConnection(reader.GetOutputPort())
        writer.SetFileName(str(path))
        writer.Write()

    def jump(self, ras: ArrayLike) -> None:
        """Centers the view on a world point."""
        self.slice_node.JumpSliceByCentering(*(float(x) for x in np.asarray(ras)))
        self.render()

    def to_pixel(self, ras: ArrayLike) -> tuple[int, int]:
        """The pixel (x, y), y upwards, nearest to a world point."""
        inverse = np.linalg.inv(self._xy_to_ras())
        x, y = (inverse @ np.append(np.asarray(ras, dtype=np.float64), 1.0))[:2]
        return round(x), round(y)

    def to_ras(self, x: int, y: int) -> NDArray[np.float64]:
        """World position of a pixel, (3,)."""
        return (self._xy_to_ras() @ (x, y, 0.0, 1.0))[:3]

    def _xy_to_ras(self) -> NDArray[np.float64]:
        matrix = self.slice_node.GetXYToRAS()
        return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])

    def move(self, x: int, y: int, *, shift: bool = False, control: bool = False) -> None:
        """Moves the pointer."""
        self.interactor.SetEventInformation(x, y, int(control), int(shift), "\0", 0, None)
        self.interactor.InvokeEvent(vtk.vtkCommand.MouseMoveEvent)

    def press(self, button: str = "Left", *, shift: bool = False, control: bool = False) -> None:
        """Presses a button (Left, Middle, Right) where the pointer is."""
        self._button(button, "Press", shift, control)

    def release(self, button: str = "Left", *, shift: bool = False, control: bool = False) -> None:
        """Releases a button."""
        self._button(button, "Release", shift, control)

    def _button(self, button: str, action: str, shift: bool, control: bool) -> None:
        x, y = self.interactor.GetEventPosition()
        self.interactor.SetEventInformation(x, y, int(control), int(shift), "\0", 0, None)
        self.interactor.InvokeEvent(f"{button}Button{action}Event")

    def click(self, x: int, y: int, *, button: str = "Left", shift: bool = False, control: bool = False) -> None:
        """Moves there, presses and releases."""
        self.move(x, y, shift=shift, control=control)
        self.press(button, shift=shift, control=control)
        self.release(button, shift=shift, control=control)

    def drag(
        self, start: tuple[int, int], end: tuple[int, int], *, button: str = "Left", steps: int = 5, shift: bool = False
    ) -> None:
        """Presses at ``start``, moves in ``steps`` to ``end`` and releases."""
        self.move(*start, shift=shift)
        self.press(button, shift=shift)
        for step in range(1, steps + 1):
            x, y = (round(a + (b - a) * step / steps) for a, b in zip(start, end, strict=True))
            self.move(x, y, shift=shift)
        self.release(button, shift=shift)

    def wheel(self, forward: bool = True) -> None:
        """Turns the wheel by one notch where the pointer is."""
        self.interactor.InvokeEvent("MouseWheelForwardEvent" if forward else "MouseWheelBackwardEvent")

    def leave(self) -> None:
        """The pointer leaves the view."""
        self.interactor.InvokeEvent(vtk.vtkCommand.LeaveEvent)


def place_mode(scene: SlicerScene, markups_node: Any, persistent: bool = True) -> None:
    """What the Markups toolbar's place button does."""
    selection, interaction = scene.app.GetSelectionNode(), scene.app.GetInteractionNode()
    selection.SetReferenceActivePlaceNodeClassName(markups_node.GetClassName())
    selection.SetActivePlaceNodeID(markups_node.GetID())
    interaction.SetPlaceModePersistence(int(persistent))
    interaction.SetCurrentInteractionMode(interaction.Place)


def set_slice_to_ras(view: SliceView, matrix: ArrayLike) -> None:
    """Turns a view into any plane."""
    view.slice_node.GetSliceToRAS().DeepCopy(as_vtk_matrix(matrix))
    view.slice_node.UpdateMatrices()
    view.render()
