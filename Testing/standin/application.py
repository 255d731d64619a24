"""Stand-ins for qSlicerApplication, its module manager, its layout manager with slice and 3D views, and qMRMLWidget.

The slice views are those of ring B (``slicer_view.SliceView``): real displayable managers and interactors, rendered
offscreen; the widgets around them are empty. They are made when somebody asks for them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import vtk
from PySide6 import QtCore, QtGui, QtWidgets

_SLICES = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}


class qMRMLWidget(QtWidgets.QWidget):
    """A widget with a scene that its children get through connections of the .ui file."""

    mrmlSceneChanged = QtCore.Signal(object)
    SIGNATURES = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        """The scene."""
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        """Slot."""
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class _AbstractView(QtWidgets.QWidget):
    """What ctkVTKAbstractView knows of its pace, which nothing follows here."""

    _rate = 60.0

    def setMaximumUpdateRate(self, rate: float) -> None:
        """Slot: drawn so often a second at most."""
        self._rate = float(rate)

    maximumUpdateRate = QtCore.Property(float, lambda self: self._rate, setMaximumUpdateRate)


class qMRMLSliceView(_AbstractView):
    """The view in a slice widget: an offscreen render window."""

    def __init__(self, view: Any, parent: QtWidgets.QWidget) -> None:
        super().__init__(parent)
        self._view = view

    def interactor(self) -> Any:
        """The vtkRenderWindowInteractor."""
        return self._view.interactor

    def interactorStyle(self) -> Any:
        """Its style, in which GetInteractor() leads to the interactor."""
        return self._view.style

    def renderWindow(self) -> Any:
        """The vtkRenderWindow."""
        return self._view.window

    def mrmlSliceNode(self) -> Any:
        """The slice node."""
        return self._view.slice_node

    def scheduleRender(self) -> None:
        """Slot: nothing waits for a render here."""

    def forceRender(self) -> None:
        """Slot."""
        self._view.render()

    def setViewCursor(self, cursor: QtGui.QCursor) -> None:
        """The cursor over the view."""
        self.setCursor(cursor)

    def setDefaultViewCursor(self, cursor: QtGui.QCursor) -> None:
        """The cursor when none is set."""

    def unsetViewCursor(self) -> None:
        """Slicer sets the arrow (it cannot know the default)."""
        self.setCursor(QtCore.Qt.CursorShape.ArrowCursor)


class qMRMLSliceWidget(QtWidgets.QWidget):
    """A slice view with its (here: absent) controller bar."""

    def __init__(self, view: Any) -> None:
        super().__init__()
        self._slice_view = qMRMLSliceView(view, self)

    def sliceView(self) -> qMRMLSliceView:
        """The view."""
        return self._slice_view

    def mrmlSliceNode(self) -> Any:
        """The slice node."""
        return self._slice_view._view.slice_node

    def mrmlSliceCompositeNode(self) -> Any:
        """The node that names the layers' volumes."""
        return self._slice_view._view.slice_logic.GetSliceCompositeNode()

    def sliceLogic(self) -> Any:
        """The vtkMRMLSliceLogic."""
        return self._slice_view._view.slice_logic

    def interactorStyle(self) -> Any:
        """The view's interactor style."""
        return self._slice_view._view.style


class qMRMLThreeDView(_AbstractView):
    """A 3D view without a window: it remembers where it looks."""

    def __init__(self, node: Any, parent: QtWidgets.QWidget) -> None:
        super().__init__(parent)
        self._node = node
        self.focal_point: tuple[float, float, float] | None = None
        self._interactor = vtk.vtkGenericRenderWindowInteractor()

    def interactor(self) -> Any:
        """The interactor, without a window."""
        return self._interactor

    def mrmlViewNode(self) -> Any:
        """The view node."""
        return self._node

    def resetFocalPoint(self) -> None:
        """Slot."""
        self.focal_point = None

    def setFocalPoint(self, x: float, y: float, z: float) -> None:
        """Slot."""
        self.focal_point = (x, y, z)

    def scheduleRender(self) -> None:
        """Slot."""

    def forceRender(self) -> None:
        """Slot."""


class qMRMLThreeDWidget(QtWidgets.QWidget):
    """A 3D view with its (here: absent) controller bar."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self._view = qMRMLThreeDView(node, self)

    def threeDView(self) -> qMRMLThreeDView:
        """The view."""
        return self._view

    def mrmlViewNode(self) -> Any:
        """The view node."""
        return self._view.mrmlViewNode()


class qSlicerLayoutManager(QtCore.QObject):
    """Red, Green, Yellow and one 3D view, in every layout."""

    layoutChanged = QtCore.Signal(int)

    def __init__(self, scene: Any, parent: QtCore.QObject) -> None:
        super().__init__(parent)
        self._scene = scene
        self._layout = 3
        self._slices: dict[str, qMRMLSliceWidget] = {}
        self._three_d: qMRMLThreeDWidget | None = None

    def sliceViewNames(self) -> tuple[str, ...]:
        """Names of the views in the layout."""
        return tuple(_SLICES)

    def sliceWidget(self, name: str) -> qMRMLSliceWidget | None:
        """The widget of a view, None where there is none."""
        if name in _SLICES and name not in self._slices:
            from slicer_view import SliceView

            self._slices[name] = qMRMLSliceWidget(SliceView(self._scene, name, _SLICES[name]))
        return self._slices.get(name)

    def threeDWidget(self, index: int) -> qMRMLThreeDWidget | None:
        """The 3D view."""
        if self._three_d is None and index == 0:
            self._three_d = qMRMLThreeDWidget(self._scene.scene.AddNewNodeByClass("vtkMRMLViewNode", "View1"))
        return self._three_d if index == 0 else None

    def mrmlSliceLogics(self) -> Any:
        """A vtkCollection of the views' logics."""
        return self._scene.app.GetSliceLogics()

    def setLayout(self, layout: int) -> None:
        """Slot."""
        if layout != self._layout:
            self._layout = layout
            self.layoutChanged.emit(layout)

    def resetSliceViews(self) -> None:
        """Slot: fits the views to their volumes."""
        for widget in self._slices.values():
            widget.sliceLogic().FitSliceToBackground()

    def close(self) -> None:
        """Frees the views' windows (for the host)."""
        for widget in self._slices.values():
            widget.sliceView()._view.close()
        self._slices.clear()

    layout = QtCore.Property(int, lambda self: self._layout, lambda self, layout: self.setLayout(layout))
    threeDViewCount = QtCore.Property(int, lambda self: 1)


class qSlicerModuleManager(QtCore.QObject):
    """Knows the modules that the host loaded."""

    moduleAboutToBeUnloaded = QtCore.Signal(str)
    moduleLoaded = QtCore.Signal(str)

    def __init__(self, parent: QtCore.QObject) -> None:
        super().__init__(parent)
        self.loaded: dict[str, Any] = {}

    def module(self, name: str) -> Any:
        """A module by its name."""
        return self.loaded.get(name)

    def modulesNames(self) -> list[str]:
        """Names of all."""
        return list(self.loaded)


class qSlicerApplication(QtWidgets.QApplication):
    """``slicer.app``. One a process; each host gives it a scene."""

    startupCompleted = QtCore.Signal()

    def __init__(self) -> None:
        super().__init__(["SlicerApp (simulated)"])
        self.setApplicationName("Slicer")
        self._folder = tempfile.TemporaryDirectory(prefix="sammed3d-standin-")
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        for scope in (QtCore.QSettings.Scope.UserScope, QtCore.QSettings.Scope.SystemScope):
            QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, scope, self._folder.name)
        self.setOrganizationName("NA-MIC")
        self._scene: Any = None
        self._layout_manager: qSlicerLayoutManager | None = None
        self._settings: QtCore.QSettings | None = None
        self.testing = False
        """What testingEnabled() answers. False: a user sits there, dialogs need an answer."""
        self.pauses = 0
        """How many times drawing is paused now."""

    def open(self, scene: Any, *, with_layout: bool) -> None:
        """Starts over with a ring-B scene (for the host)."""
        self._scene = scene
        self._modules = qSlicerModuleManager(self)
        self._layout_manager = qSlicerLayoutManager(scene, self) if with_layout else None
        file = Path(self._folder.name) / "Slicer.ini"
        self._settings = QtCore.QSettings(str(file), QtCore.QSettings.Format.IniFormat)
        self._settings.clear()
        QtCore.QSettings().clear()

    def close_scene(self) -> None:
        """Frees what :meth:`open` made (for the host)."""
        if self._layout_manager is not None:
            self._layout_manager.close()
            self._layout_manager.deleteLater()
            self._layout_manager = None
        self._modules.deleteLater()
        self._scene = None

    def applicationLogic(self) -> Any:
        """The vtkSlicerApplicationLogic."""
        return self._scene.app

    def mrmlScene(self) -> Any:
        """The scene."""
        return self._scene.scene

    def layoutManager(self) -> qSlicerLayoutManager | None:
        """None without a main window (``--no-main-window``)."""
        return self._layout_manager

    def moduleManager(self) -> qSlicerModuleManager:
        """The module manager."""
        return self._modules

    def testingEnabled(self) -> bool:
        """As with ``--testing``."""
        return self.testing

    def settings(self) -> QtCore.QSettings | None:
        """The user's settings."""
        return self._settings

    userSettings = settings

    def pauseRender(self) -> None:
        """No view draws until it is called for."""
        self.pauses += 1

    def resumeRender(self) -> None:
        """Takes back one call of pauseRender."""
        self.pauses -= 1
        assert self.pauses >= 0, "drawing is not paused"

    def setOverrideCursor(self, cursor: QtGui.QCursor) -> None:
        """Offscreen: nothing to see."""

    def restoreOverrideCursor(self) -> None:
        """Offscreen: nothing to see."""

    temporaryPath = QtCore.Property(str, lambda self: self._folder.name)
    majorVersion = QtCore.Property(int, lambda self: 5)
    minorVersion = QtCore.Property(int, lambda self: 12)
    documentationBaseUrl = QtCore.Property(str, lambda self: "https://slicer.readthedocs.io/en/latest/")


CLASSES = (
    qMRMLWidget,
    qMRMLSliceView,
    qMRMLSliceWidget,
    qMRMLThreeDView,
    qMRMLThreeDWidget,
    qSlicerLayoutManager,
    qSlicerModuleManager,
    qSlicerApplication,
)
