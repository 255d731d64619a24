"""SAMMed3D: click a lung nodule in a CT, get its segmentation and its measurements.

This file holds what Slicer looks for. The work is done in SAMMed3DLib, which is imported when the module is first
opened or a script asks for it; at Slicer's start only the shell of the panel is.
"""

from __future__ import annotations

from typing import Annotated

import qt
import slicer
from slicer import vtkMRMLMarkupsFiducialNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

from SAMMed3DLib.gui.module_widget import ModuleWidget


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
<ol><li>Load a chest CT, or take one from Sample Data.</li><li>Press <b>Click nodules</b> (N).</li>
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
    everyClickIsNew, doNotOverlap, clickSelects, show3d, zoomToNodule, showMeasure, showPreview - the options of
    the same names.
    outlineWidth, fillOpacity - how nodules are drawn in the slices.
    priorVolume, priorSegmentation - the earlier CT of the follow-up, and its nodules.
    sensitivity - "more / fewer" after Segment all nodules, 0 to 1.
    thoroughSearch - Segment all nodules asks a detector of record too.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    prompts: vtkMRMLMarkupsFiducialNode
    priorVolume: vtkMRMLScalarVolumeNode
    priorSegmentation: vtkMRMLSegmentationNode
    everyClickIsNew: bool = False
    doNotOverlap: bool = True
    clickSelects: bool = True
    show3d: bool = False
    zoomToNodule: bool = True
    showMeasure: bool = True
    showPreview: bool = True
    outlineWidth: Annotated[float, WithinRange(1, 8)] = 1.0
    fillOpacity: Annotated[float, WithinRange(0, 1)] = 0.25
    sensitivity: Annotated[float, WithinRange(0, 1)] = 0.5
    thoroughSearch: bool = False


class SAMMed3DWidget(ModuleWidget):
    """The panel's shell."""

    package = "SAMMed3DLib"

    def makeLogic(self) -> SAMMed3DLogic:
        """The module's logic."""
        return SAMMed3DLogic()

    def makePanel(self, widget):
        """The panel on the loaded .ui file."""
        from SAMMed3DLib.gui.panel import makePanel

        self.ui.volumeSelector.connect("nodeAdded(vtkMRMLNode*)", self._onVolumeAdded)
        return makePanel(widget, self.ui)

    @property
    def clicks(self):
        return self.panel.clicks

    def useModel(self, name: str) -> None:
        """Uses a model of the store by its name, such as one just adopted after a training; open nodules go on."""
        self.panel.models.choose(name)

    def cleanup(self) -> None:
        """Called when the application closes, and before Reload; may be called twice."""
        if self.panel is not None:
            self.ui.volumeSelector.disconnect("nodeAdded(vtkMRMLNode*)", self._onVolumeAdded)
        ModuleWidget.cleanup(self)

    def initializeParameterNode(self) -> None:
        """Makes sure that there is a parameter node, and picks the CT that is on screen."""
        ModuleWidget.initializeParameterNode(self)
        self._pickVolume()

    def _pickVolume(self) -> None:
        if self._parameterNode is not None and not self._parameterNode.inputVolume:
            self._parameterNode.inputVolume = self.logic.activeVolume()

    def _onVolumeAdded(self, node) -> None:
        # Whoever adds a node fills it afterwards: look at it when that is done.
        qt.QTimer.singleShot(0, self._pickVolume)


class SAMMed3DLogic(ScriptedLoadableModuleLogic):
    """The same segmentation for scripts, without the panel.

    Example::

        from SAMMed3D import SAMMed3DLogic
        segmentId = SAMMed3DLogic().segment(volumeNode, [(-45.2, 10, -300)])
        segmentIds = SAMMed3DLogic().segmentAll(volumeNode)
    """

    def getParameterNode(self) -> SAMMed3DParameterNode:
        return SAMMed3DParameterNode(super().getParameterNode())  # type: ignore[call-arg]  # of its decorator

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
