"""SAMMed3D: click a lung nodule in a CT, get its segmentation and its measurements.

This file holds what Slicer looks for. The work is done in SAMMed3DLib, which is imported when the module is first
opened or a script asks for it, never at Slicer's start.
"""

from __future__ import annotations

import sys
from typing import Annotated

import qt
import slicer
import vtk
from slicer import vtkMRMLMarkupsFiducialNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

PACKAGE = "SAMMed3DLib"
#: A finished request is waited for this long when the application quits.
SHUTDOWN_SECONDS = 2.0


class SAMMed3D(ScriptedLoadableModule):
    """What Slicer's module list shows."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SAMMed3D")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Markups"]
        self.parent.contributors = ["The SAMMed3D developers"]
        self.parent.helpText = _("""
<p>Click on a lung nodule in any slice view and get its 3D segmentation and its measurements.</p>
<ol><li>Load a chest CT, or take one from Sample Data.</li><li>Press <b>Add nodule</b> (N).</li>
<li>Click a nodule. Further clicks add to it, Shift-clicks take away; drag a point and the nodule follows.</li></ol>
<p><b>Segment all nodules</b> finds them by itself: go through the list with A (accept), X (delete) and Q, W.</p>
<p>For research, not for clinical use. See the
<a href="https://github.com/SlicerSAMMed3D/SlicerSAMMed3D">documentation</a>.</p>
""")
        self.parent.acknowledgementText = _("""
Built on the idea of SAM-Med3D (Wang et al., arXiv:2310.15161) and Segment Anything (Kirillov et al., ICCV 2023).
Nodule shapes: LIDC-IDRI, CC BY 3.0 (Armato et al., doi:10.7937/K9/TCIA.2015.LO9QL9SX).
""")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData() -> None:
    """Adds the chest phantom and the tutorial's CT to the Sample Data module."""
    from SAMMed3DLib.gui.sample_data import register

    register()


@parameterNodeWrapper
class SAMMed3DParameterNode:
    """What the scene remembers of the panel.

    inputVolume - the CT that is clicked in.
    segmentation - where the nodules are, one segment each.
    prompts - the points of all nodules.
    everyClickIsNew, doNotOverlap, show3d - the options of the same names.
    sensitivity - "more / fewer" after Segment all nodules, 0 to 1.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    prompts: vtkMRMLMarkupsFiducialNode
    everyClickIsNew: bool = False
    doNotOverlap: bool = False
    show3d: bool = False
    sensitivity: Annotated[float, WithinRange(0, 1)] = 0.5


class SAMMed3DWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel's shell: its life cycle and its parameter node."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: SAMMed3DLogic | None = None
        self.panel = None
        self._parameterNode: SAMMed3DParameterNode | None = None
        self._parameterNodeGuiTag = None

    @property
    def session(self):
        return self.panel.session

    @property
    def clicks(self):
        return self.panel.clicks

    def useModel(self, name: str) -> None:
        """Uses a model of the store by its name, such as one just adopted after a training; open nodules go on."""
        self.panel.models.choose(name)

    def setup(self) -> None:
        """Called when the user opens the module for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        from SAMMed3DLib.gui.panel import makePanel

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/SAMMed3D.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = SAMMed3DLogic()
        self.panel = makePanel(uiWidget, self.ui)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.ui.volumeSelector.connect("nodeAdded(vtkMRMLNode*)", self._onVolumeAdded)
        slicer.app.connect("aboutToQuit()", self.cleanup)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the application closes, and before Reload; may be called twice."""
        if self.panel is None:
            return
        slicer.app.disconnect("aboutToQuit()", self.cleanup)
        self.ui.volumeSelector.disconnect("nodeAdded(vtkMRMLNode*)", self._onVolumeAdded)
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
        """Reload replaces this file only: SAMMed3DLib is read anew too."""
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)
        renewed = slicer.modules.SAMMed3DWidget
        if renewed.parent.isEntered:  # Slicer does not say so to the new widget
            renewed.enter()

    def onSceneStartClose(self, caller, event) -> None:
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartImport(self, caller, event) -> None:
        # The parameter node comes before the nodes that it names: the selectors would take their names out of it.
        self.setParameterNode(None)

    def onSceneEndImport(self, caller, event) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Makes sure that there is a parameter node, and picks the CT that is on screen."""
        self.setParameterNode(self.logic.getParameterNode())
        self._pickVolume()

    def _pickVolume(self) -> None:
        if self._parameterNode is not None and not self._parameterNode.inputVolume:
            self._parameterNode.inputVolume = self.logic.activeVolume()

    def _onVolumeAdded(self, node) -> None:
        # Whoever adds a node fills it afterwards: look at it when that is done.
        qt.QTimer.singleShot(0, self._pickVolume)

    def setParameterNode(self, parameterNode: SAMMed3DParameterNode | None) -> None:
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            if self.hasObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified):
                self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self.panel.setParameters(parameterNode)

    def _onParametersModified(self, caller=None, event=None) -> None:
        self.panel.onParametersModified()


class SAMMed3DLogic(ScriptedLoadableModuleLogic):
    """The same segmentation for scripts, without the panel.

    Example::

        from SAMMed3D import SAMMed3DLogic
        segmentId = SAMMed3DLogic().segment(volumeNode, [(-45.2, 10, -300)])
        segmentIds = SAMMed3DLogic().segmentAll(volumeNode)
    """

    def getParameterNode(self) -> SAMMed3DParameterNode:
        return SAMMed3DParameterNode(super().getParameterNode())

    @staticmethod
    def activeVolume() -> vtkMRMLScalarVolumeNode | None:
        """The volume on screen, else the first one of the scene; label maps and empty nodes do not count."""
        selection = slicer.app.applicationLogic().GetSelectionNode()
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        volumes = [node for node in volumes if node.GetImageData() and not node.IsA("vtkMRMLLabelMapVolumeNode")]
        active = selection.GetActiveVolumeID() if selection is not None else None
        return next((node for node in volumes if node.GetID() == active), volumes[0] if volumes else None)

    @staticmethod
    def segment(volumeNode, points, labels=None, segmentationNode=None, segmentId=None) -> str:
        """Segments one nodule; see :func:`SAMMed3DLib.scene.scripting.segment`."""
        from SAMMed3DLib.scene import scripting

        return scripting.segment(volumeNode, points, labels, segmentationNode, segmentId)

    @staticmethod
    def segmentAll(volumeNode, segmentationNode=None) -> list[str]:
        """Finds and segments all nodules; see :func:`SAMMed3DLib.scene.scripting.segmentAll`."""
        from SAMMed3DLib.scene import scripting

        return scripting.segmentAll(volumeNode, segmentationNode)


class SAMMed3DTest(ScriptedLoadableModuleTest):
    """The whole flow with the bundled model on a synthetic chest; nothing is downloaded."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_ClickingOnThePhantom()

    def test_ClickingOnThePhantom(self) -> None:
        from SAMMed3DLib.selftest import run

        run(self)
