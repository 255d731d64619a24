"""SAMMed3DTraining: from segmented nodules to a model of one's own, without leaving Slicer.

This file holds what Slicer looks for. The work is done in SAMMed3DTrainingLib, which is imported when the module is
first opened or a script asks for it, never at Slicer's start.
"""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated, Any

import slicer
import vtk
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

PACKAGE = "SAMMed3DTrainingLib"
#: What is being computed is waited for this long when the application quits. Runs are not: they go on by themselves.
SHUTDOWN_SECONDS = 2.0


class SAMMed3DTraining(ScriptedLoadableModule):
    """What Slicer's module list shows."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SAMMed3D Training")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["SAMMed3D", "Segmentations", "Tables"]
        self.parent.contributors = ["The SAMMed3D developers"]
        self.parent.helpText = _("""
<p>Makes the model of the SAMMed3D module better with your own nodules.</p>
<ol><li><b>Data</b>: write the nodules that you accepted into a data set.</li>
<li><b>Train</b>: estimate, start, and watch the curves; Slicer stays usable.</li>
<li><b>Compare and adopt</b>: old against new weights on cases held out; take the new ones over.</li>
<li><b>Next case</b>: segment the volume that the model is least sure about.</li></ol>
<p>For research, not for clinical use. See the
<a href="https://github.com/SlicerSAMMed3D/SlicerSAMMed3D">documentation</a>.</p>
""")
        self.parent.acknowledgementText = _("""
Data sets in the layout of nnU-Net (Isensee et al., Nature Methods 2021). Built on the idea of SAM-Med3D
(Wang et al., arXiv:2310.15161).
""")


class Preset(enum.Enum):
    """How much of the network learns, by the names that the command line has for it."""

    quick = "quick"
    standard = "standard"
    full = "full"

    def label(self) -> str:
        """For the panel."""
        return {
            Preset.quick: _("Quick: the decoder, minutes"),
            Preset.standard: _("Standard: small updates everywhere"),
            Preset.full: _("Full: everything, needs a GPU"),
        }[self]


class Device(enum.Enum):
    """What a run computes on, by the names that the command line has for it."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"

    def label(self) -> str:
        """For the panel."""
        return {
            Device.auto: _("Automatic"),
            Device.cpu: _("Processor (CPU)"),
            Device.cuda: _("NVIDIA or AMD GPU"),
            Device.mps: _("Apple GPU"),
        }[self]


@parameterNodeWrapper
class SAMMed3DTrainingParameterNode:
    """What the scene remembers of the panel.

    datasetFolder - where cases are written.
    acceptedOnly - only reviewed nodules are written.
    preset, runName, epochs, batchSize, accumulationSteps, learningRate, device, gpus - of the next run; 0 epochs and
    a learning rate of 0 mean: as the preset has it.
    """

    datasetFolder: str = ""
    acceptedOnly: bool = True
    preset: Preset = Preset.quick
    runName: str = "nodules"
    epochs: Annotated[int, WithinRange(0, 100000)] = 0
    batchSize: Annotated[int, WithinRange(1, 1024)] = 4
    accumulationSteps: Annotated[int, WithinRange(1, 1024)] = 1
    learningRate: Annotated[float, WithinRange(0, 1)] = 0.0
    device: Device = Device.auto
    gpus: str = ""


class SAMMed3DTrainingWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel's shell: its life cycle and its parameter node."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: SAMMed3DTrainingLogic | None = None
        self.panel = None
        self._parameterNode: SAMMed3DTrainingParameterNode | None = None
        self._parameterNodeGuiTag = None

    @property
    def session(self):
        return self.panel.session

    def setup(self) -> None:
        """Called when the user opens the module for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        from SAMMed3DTrainingLib.gui.panel import makePanel

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/SAMMed3DTraining.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = SAMMed3DTrainingLogic()
        self.panel = makePanel(uiWidget, self.ui)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        slicer.app.connect("aboutToQuit()", self.cleanup)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the application closes, and before Reload; may be called twice. A run goes on by itself."""
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
        """Reload replaces this file only: SAMMed3DTrainingLib is read anew too."""
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)
        renewed = slicer.modules.SAMMed3DTrainingWidget
        if renewed.parent.isEntered:  # Slicer does not say so to the new widget
            renewed.enter()

    def onSceneStartClose(self, caller, event) -> None:
        self.setParameterNode(None)
        self.panel.onSceneStartClose()

    def onSceneEndClose(self, caller, event) -> None:
        self.panel.onSceneEndClose()
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartImport(self, caller, event) -> None:
        self.setParameterNode(None)

    def onSceneEndImport(self, caller, event) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Makes sure that there is a parameter node."""
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode: SAMMed3DTrainingParameterNode | None) -> None:
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


class SAMMed3DTrainingLogic(ScriptedLoadableModuleLogic):
    """The same work for scripts, without the panel.

    Example::

        from SAMMed3DTraining import SAMMed3DTrainingLogic
        logic = SAMMed3DTrainingLogic()
        logic.exportScene("/data/mine")
        run = logic.train(["/data/mine"], "/data/runs", "first", preset="quick")
        logic.adopt(run)
    """

    def getParameterNode(self) -> SAMMed3DTrainingParameterNode:
        return SAMMed3DTrainingParameterNode(super().getParameterNode())

    @staticmethod
    def exportScene(folder: str | Path, acceptedOnly: bool = True) -> list[Any]:
        """Writes the scene's nodules; see :func:`SAMMed3DTrainingLib.session.scripting.exportScene`."""
        from SAMMed3DTrainingLib.session import scripting

        return scripting.exportScene(folder, acceptedOnly)

    @staticmethod
    def train(data: list[str | Path], workDir: str | Path, name: str, **options: Any) -> Path:
        """Trains and waits for the end; see :func:`SAMMed3DTrainingLib.session.scripting.train`."""
        from SAMMed3DTrainingLib.session import scripting

        return scripting.train(data, workDir, name, **options)

    @staticmethod
    def adopt(run: str | Path) -> str:
        """Adopts a run's weights; see :func:`SAMMed3DTrainingLib.session.scripting.adopt`."""
        from SAMMed3DTrainingLib.session import scripting

        return scripting.adopt(run)


class SAMMed3DTrainingTest(ScriptedLoadableModuleTest):
    """The whole way from a scene to an adopted model on synthetic cases; nothing is downloaded."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_FromSceneToModel()

    def test_FromSceneToModel(self) -> None:
        from SAMMed3DTrainingLib.selftest import run

        run(self)
