"""SAMMed3DTraining: from segmented nodules to a model of one's own, without leaving Slicer.

This file holds what Slicer looks for. The work is done in SAMMed3DTrainingLib, which is imported when the module is
first opened or a script asks for it; at Slicer's start only the shell of the panel is.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

from SAMMed3DLib.gui.module_widget import ModuleWidget


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
    """How long a run may take, by the names that the command line has for it; saved scenes have the members' names."""

    quick = "5min"
    standard = "15min"
    full = "60min"

    def label(self) -> str:
        """For the panel."""
        return {Preset.quick: _("5 minutes"), Preset.standard: _("15 minutes"), Preset.full: _("60 minutes")}[self]


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


class SAMMed3DTrainingWidget(ModuleWidget):
    """The panel's shell. Runs go on by themselves when it is closed."""

    package = "SAMMed3DTrainingLib"

    def makeLogic(self) -> SAMMed3DTrainingLogic:
        """The module's logic."""
        return SAMMed3DTrainingLogic()

    def makePanel(self, widget):
        """The panel on the loaded .ui file."""
        from SAMMed3DTrainingLib.gui.panel import makePanel

        return makePanel(widget, self.ui)

    def onSceneStartClose(self, caller, event) -> None:
        ModuleWidget.onSceneStartClose(self, caller, event)
        self.panel.onSceneStartClose()

    def onSceneEndClose(self, caller, event) -> None:
        self.panel.onSceneEndClose()
        ModuleWidget.onSceneEndClose(self, caller, event)


class SAMMed3DTrainingLogic(ScriptedLoadableModuleLogic):
    """The same work for scripts, without the panel.

    Example::

        from SAMMed3DTraining import SAMMed3DTrainingLogic
        logic = SAMMed3DTrainingLogic()
        logic.exportScene("/data/mine")
        run = logic.train(["/data/mine"], "/data/runs", "first", preset="5min")
        logic.adopt(run)
    """

    def getParameterNode(self) -> SAMMed3DTrainingParameterNode:
        return SAMMed3DTrainingParameterNode(super().getParameterNode())  # type: ignore[call-arg]  # of its decorator

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
        from SAMMed3DTrainingLib.gui.segmentation_module import SegmentationModule
        from SAMMed3DTrainingLib.session import scripting

        return scripting.adopt(run, SegmentationModule())


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
