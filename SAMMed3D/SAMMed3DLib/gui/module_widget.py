"""The life cycle that the widgets of both modules share. Imported with the module files: nothing heavy, no panel."""

from __future__ import annotations

import sys
from typing import Any

import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

#: What is being computed is waited for this long when the application quits. Runs are not: they go on by themselves.
SHUTDOWN_SECONDS = 2.0


class ModuleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The shell around a module's panel: its life cycle and its parameter node.

    Attributes:
        package: of the module's own code; Reload reads it anew.
        logic: the module's logic.
        panel: what :meth:`makePanel` made; None before ``setup`` and after ``cleanup``.
    """

    package = ""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self.panel: Any = None
        self._parameterNode: Any = None
        self._parameterNodeGuiTag: Any = None

    def makeLogic(self) -> Any:
        """The module's logic."""
        raise NotImplementedError

    def makePanel(self, widget: Any) -> Any:
        """The panel on the loaded .ui file, whose named children are ``self.ui``."""
        raise NotImplementedError

    @property
    def session(self) -> Any:
        return self.panel.session

    def setup(self) -> None:
        """Called when the user opens the module for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = self.makeLogic()
        self.panel = self.makePanel(uiWidget)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        slicer.app.connect("aboutToQuit()", self.cleanup)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the application closes, and before Reload; may be called twice."""
        if self.panel is None:
            return
        slicer.app.disconnect("aboutToQuit()", self.cleanup)
        self.setParameterNode(None)
        self.removeObservers()
        panel, self.panel = self.panel, None
        panel.close(SHUTDOWN_SECONDS)

    def enter(self) -> None:
        """Called each time the user opens the module."""
        self.initializeParameterNode()
        self.panel.enter()

    def exit(self) -> None:
        """Called each time the user opens another module."""
        if self.panel is not None:  # None: the application quits
            self.panel.exit()

    def onReload(self) -> None:
        """Reload replaces the module's file only: its package is read anew too."""
        for name in [name for name in sys.modules if name.partition(".")[0] == self.package]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)
        renewed = getattr(slicer.modules, type(self).__name__)
        if renewed.parent.isEntered:  # Slicer does not say so to the new widget
            renewed.enter()

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        self.setParameterNode(None)

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartImport(self, caller: Any, event: Any) -> None:
        # The parameter node comes before the nodes that it names: the selectors would take their names out of it.
        self.setParameterNode(None)

    def onSceneEndImport(self, caller: Any, event: Any) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Makes sure that there is a parameter node."""
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode: Any) -> None:
        """The parameter node to follow; None between scenes."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            if self.hasObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified):
                self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self.panel.setParameters(parameterNode)

    def _onParametersModified(self, caller: Any = None, event: Any = None) -> None:
        self.panel.onParametersModified()
