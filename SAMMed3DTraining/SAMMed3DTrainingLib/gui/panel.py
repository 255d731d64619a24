"""The module's panel: puts the session and the sections together, and decides nothing itself."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer

from SAMMed3DLib.gui.icons import FOLDER as SHARED_FOLDER
from SAMMed3DLib.gui.icons import Icons, isDark
from SAMMed3DLib.gui.progress_row import ProgressRow
from SAMMed3DLib.gui.state_view import ViewWriter
from SAMMed3DLib.gui.timers import Poll
from SAMMed3DLib.torch_setup.install import Outcome, TorchInstaller
from SAMMed3DLib.translation import tr as _

from ..scene.comparison_view import ComparisonView
from ..scene.run_plots import RunPlots
from ..scene.training_source import TrainingSource
from ..session.runs_api import Runs
from ..session.training_session import TrainingSession
from .compare_section import CompareSection
from .data_section import DataSection
from .next_section import NextSection
from .plot_view import LayoutKeeper, PlotView
from .segmentation_module import SegmentationModule
from .state_view import TrainingPanelState, jobText, panelView
from .texts import duration
from .train_section import TrainSection, defaultFolder
from .widgets import Connections

DELAY_MS = 400

#: Beside SAMMed3DTrainingLib in a checkout and in an installed extension alike.
FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "Icons"

#: Buttons and the icons they wear.
_ICONS = {
    "exportButton": "save",
    "importButton": "open_file",
    "folderButton": "open_file",
    "workDirButton": "open_file",
    "nextFolderButton": "open_file",
    "addDatasetButton": "add",
    "removeDatasetButton": "subtract",
    "checkDatasetButton": "accept",
    "startButton": "training_start",
    "pauseButton": "training_pause",
    "stopButton": "training_stop",
    "lossButton": "training_loss",
    "diceButton": "training_dice",
    "compareButton": "training_compare",
    "adoptButton": "accept",
    "continueButton": "training_start",
    "deleteRunButton": "remove",
    "sideBySideButton": "training_side",
    "noduleChartButton": "training_dots",
    "rankButton": "training_rank",
    "openNextButton": "next_nodule",
    "cancelButton": "cancel",
    "estimateButton": "training_clock",
}
_PERMILLE = 1000
_PROGRESS_SECONDS = 0.25


class TrainingPanel:
    """Everything between ``setup`` and ``cleanup`` of the module's widget."""

    def __init__(
        self,
        widget: qt.QWidget,
        ui: Any,
        session: TrainingSession,
        module: SegmentationModule,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.widget, self.ui, self.session, self.module = widget, ui, session, module
        self._clock, self._progressText, self._progressDue = clock, "", 0.0
        self._problem = self._notice = self._adopted = ""
        self._offersSmaller = False
        self._parameters: Any = None
        self._entered = False
        self._view = ViewWriter(ui)
        icons = self._showIcons()
        self.layout = LayoutKeeper()
        self.plots = PlotView(RunPlots(), self.layout)
        self.comparison = ComparisonView()
        self._poll = Poll(session.poll, session.paceChanged, widget)
        self.data = DataSection(ui, widget, session, icons)
        self.train = TrainSection(ui, widget, session, module.store, self.plots)
        self.compare = CompareSection(ui, widget, session, icons, self.plots, self.comparison, self.layout)
        self.next = NextSection(ui, widget, session, self._openVolume, self._rankingModel)
        self._progress = ProgressRow(ui, session.job.cancel)
        self._watch = SceneWatch(widget, self._onScene)
        self._question = CloseQuestion(session)
        self._connections = Connections()
        self._listen()
        session.compare.setWorkDir(self.train.workDir)
        session.checkPackages()
        self.refresh()

    # -- life cycle --------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """The user opened the module: what has changed elsewhere is looked at, and a run found on the disk is shown."""
        self._entered = True
        if isDark(self.widget) != self._dark:
            icons = self._showIcons()
            self.data.setIcons(icons)
            self.compare.setIcons(icons)
        self._watch.start()
        self.session.checkPackages()
        self.train.refreshCheckpoints()
        qt.QTimer.singleShot(0, self._lookAround)

    def exit(self) -> None:
        """Handles that another module is opened: a run goes on, and is still watched."""
        self._entered = False
        self._watch.stop()
        self.compare.leave()

    def setParameters(self, parameters: Any) -> None:
        """The parameter node to follow; None between scenes."""
        self._parameters = parameters
        self.train.setParameters(parameters)
        if parameters is not None:
            if not parameters.datasetFolder:
                parameters.datasetFolder = str(defaultFolder() / "Dataset")
            self.onParametersModified()

    def onParametersModified(self) -> None:
        parameters = self._parameters
        if parameters is None:
            return
        self.session.data.setFolder(Path(parameters.datasetFolder) if parameters.datasetFolder else None)
        self.session.data.setAcceptedOnly(parameters.acceptedOnly)
        self.train.push()
        self.refresh()

    def onSceneStartClose(self) -> None:
        self.session.suspend()
        self._watch.stop()

    def onSceneEndClose(self) -> None:
        self.plots.sceneClosed()
        self.comparison.sceneClosed()
        if self._entered:
            self._watch.start()
            self._lookAround()

    def close(self, seconds: float) -> None:
        """Takes everything apart; waits so long at most for what is being computed. A run goes on by itself."""
        self.exit()
        self._question.remove()
        self._connections.close()
        for part in (self._watch, self.data, self.train, self.compare, self.next, self._poll, self._progress):
            part.close()
        self.plots.close()
        self.layout.close()
        self.session.close(seconds)

    # -- the look ----------------------------------------------------------------------------------------------------

    def refresh(self, *__: Any) -> None:
        """Bring every control up to date."""
        self._view.apply(panelView(self._facts()))

    def showProblem(self, text: str) -> None:
        """An error, shown until the user closes it or the next success; "" takes it away."""
        self._problem, self._offersSmaller = text, False
        self.refresh()

    def _facts(self) -> TrainingPanelState:
        session = self.session
        data, train, compare, following = session.data, session.train, session.compare, session.next
        record, status, packages = compare.record, train.status, session.packages
        suggestion = None if status is None else status.suggestion
        selected = self.data.selectedDataset
        sets = data.trainingData
        return TrainingPanelState(
            state=session.state,
            job=session.job.kind,
            cancelling=session.job.cancelling,
            packagesText=str(packages.text) if packages is not None and packages.missing else "",
            volumes=len(data.rows),
            toWrite=len(data.toWrite),
            folder="" if data.folder is None else str(data.folder),
            folderProblem=data.folderProblem,
            datasetSelected=selected >= 0,
            sets=len(sets),
            estimate=self.train.estimateText,
            runText=self.train.runText,
            hasCurves=self.plots.hasCurves,
            pausing=bool(status is not None and status.pausing),
            offersSmaller=(suggestion.batch_size, suggestion.accumulation_steps)
            if suggestion is not None and self._offersSmaller
            else (0, 0),
            run="" if record is None else record.name,
            runActive=bool(record is not None and record.is_running),
            runHasWeights=bool(record is not None and record.weights is not None),
            runResumable=bool(record is not None and record.resumable),
            anyRunActive="" if train.isRunning or not compare.running else compare.running[0],
            adopted=self._adopted,
            compared=compare.comparison is not None,
            summary=self.compare.summary,
            noduleChart=self.plots.chart == "nodulesChart",
            sideBySide=self.comparison.isSideBySide,
            lossChart=self.plots.chart == "lossChart",
            diceChart=self.plots.chart == "diceChart",
            nextFromFolder=following.folder is not None,
            nextCount=following.volumes if following.folder is None else -1,
            nextSelected=self.next.selected is not None,
            problem=self._problem,
            notice=self._notice,
        )

    def _showIcons(self) -> Icons:
        icons = Icons(self.widget, (FOLDER, SHARED_FOLDER))
        for button, name in _ICONS.items():
            getattr(self.ui, button).setIcon(icons(name))
        self._dark = isDark(self.widget)
        return icons

    # -- what happens ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        session, connections = self.session, self._connections
        for signal in (
            session.changed,
            session.data.changed,
            session.compare.changed,
            session.next.changed,
            self.plots.changed,
            self.layout.changed,
        ):
            connections.signal(signal, self.refresh)
        connections.signal(session.job.changed, self._onJob)
        connections.signal(session.data.changed, self.train.push)
        for part in (session.data, session.train, session.compare, session.next):
            connections.signal(part.changed, self._onErrors)
        connections.signal(session.train.started, self._onStarted)
        connections.signal(session.train.ended, self._onEnded)
        connections.signal(session.compare.adopted, self._onAdopted)
        connections.buttons(
            {self.ui.messageButton: self._onMessageButton, self.ui.dismissButton: lambda: self.showProblem("")}
        )

    def _lookAround(self) -> None:
        if not self._entered:
            return
        self.session.data.refresh()
        self.session.next.refresh()
        self.session.compare.refresh()
        name = self.session.attachToRunning()
        if name:
            self._notice = _("{name} is under way and is watched again.").format(name=name)
        self.refresh()

    def _onScene(self) -> None:
        self.session.data.refresh()
        self.session.next.refresh()

    def _onJob(self) -> None:
        job = self.session.job
        self._progress.setBusy(job.isBusy)
        if job.kind is None:
            return
        progress = job.progress
        text = " ".join(filter(None, [jobText(job.kind), progress.text]))
        if progress.leftSeconds is not None:
            text += ", " + _("{time} left").format(time=duration(progress.leftSeconds))
        # Qt paints a progress bar at once, which takes a while where 3D views are drawn by the processor.
        if text == self._progressText and self._clock() < self._progressDue:
            return
        self._progressText, self._progressDue = text, self._clock() + _PROGRESS_SECONDS
        done, total = (0, 0) if progress.fraction is None else (round(_PERMILLE * progress.fraction), _PERMILLE)
        self._progress.setProgress(done, total, text)

    def _onErrors(self) -> None:
        """Shows the message of a part: an error stays until it is closed, a notice until the next one."""
        session = self.session
        parts = (session.data, session.train, session.compare, session.next)
        error = "\n".join(filter(None, (part.error for part in parts)))
        notice = next((part.notice for part in parts if part.notice), "")
        for part in parts:
            part.error = part.notice = ""
        if error:
            self._problem, self._offersSmaller = error, False
        if notice:
            self._notice = notice
        if error or notice:
            self.refresh()

    def _onStarted(self) -> None:
        self._problem = self._notice = ""
        self.plots.forgetRun()

    def _onEnded(self, status: Any) -> None:
        if status.state == "failed":
            self._problem, self._offersSmaller = status.message, status.suggestion is not None
        else:
            self._notice = self.train.endText
        self.train.refreshCheckpoints()
        self.refresh()

    def _onAdopted(self, entry: Any) -> None:
        self._adopted = self.session.compare.selected
        self.module.use(entry.name)
        self.train.refreshCheckpoints()
        self._notice = _("{name} is the model of the SAMMed3D module now.").format(name=entry.title)
        self.refresh()

    def _onMessageButton(self) -> None:
        if self._offersSmaller:
            self._problem, self._offersSmaller = "", False
            self.session.train.startSmaller()
        elif self.session.packages is not None and self.session.packages.missing:
            self._problem = installPackages(self.session.packages, self.session.temporaryFolder(), self.widget)
            self.session.checkPackages()
        self.refresh()

    def _rankingModel(self) -> tuple[Path | None, str]:
        device = "auto" if self._parameters is None else self._parameters.device.value
        return self.module.checkpoint, device

    def _openVolume(self, ranked: Any) -> None:
        node = None if ranked.nodeId is None else slicer.mrmlScene.GetNodeByID(ranked.nodeId)
        if node is None and ranked.nodeId is None:
            with slicer.util.tryWithErrorDisplay(_("The volume cannot be loaded."), waitCursor=True):
                node = slicer.util.loadVolume(str(ranked.path))
        if node is None:
            self.showProblem(_("{name} is no longer in the scene.").format(name=ranked.name))
            return
        self.module.openVolume(node, ranked.pointRas)


def makePanel(widget: qt.QWidget, ui: Any) -> TrainingPanel:
    """The panel with everything that it needs. No process and no thread starts yet."""
    module = SegmentationModule()
    session = TrainingSession(TrainingSource(), Runs(), module.adopt)
    return TrainingPanel(widget, ui, session, module)


class SceneWatch:
    """Watches the scene between :meth:`start` and :meth:`stop`."""

    def __init__(self, parent: qt.QObject, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._tags: list[int] = []
        self._timer = qt.QTimer(parent)
        self._timer.setSingleShot(True)
        self._timer.interval = DELAY_MS
        self._timer.connect("timeout()", changed)

    def start(self) -> None:
        if not self._tags:
            scene = slicer.mrmlScene
            self._tags = [
                scene.AddObserver(event, lambda caller, event: self._timer.start())
                for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndImportEvent)
            ]

    def stop(self) -> None:
        for tag in self._tags:
            slicer.mrmlScene.RemoveObserver(tag)
        self._tags = []
        self._timer.stop()

    def close(self) -> None:
        self.stop()
        self._timer.disconnect("timeout()", self._changed)


class CloseQuestion(qt.QObject):
    """Watches the main window; asks before it closes. Nothing is lost either way: a run saves itself, and goes on in a
    process of its own where it is to.
    """

    def __init__(self, session: Any) -> None:
        qt.QObject.__init__(self)
        self._session = session
        self._window = slicer.util.mainWindow()
        if self._window is not None:
            self._window.installEventFilter(self)

    def remove(self) -> None:
        """Stop watching."""
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Qt asks: True keeps the event from the window."""
        if event.type() != qt.QEvent.Close or not self._session.train.isRunning:
            return False
        if self.ask():
            return False
        event.ignore()  # an event that is only kept away counts as accepted
        return True

    def ask(self) -> bool:
        """Whether Slicer may close. Stops the run where the user wants that."""
        question = _(
            "The run {name} is under way. Stop it before Slicer closes?\n\n"
            "Yes: it saves itself and can be continued later.\n"
            "No: it goes on without Slicer, and is found again the next time."
        ).format(name=self._session.train.name)
        box = qt.QMessageBox
        answer = slicer.util.messageBox(
            question,
            windowTitle=_("Training is under way"),
            icon=box.Question,
            standardButtons=box.Yes | box.No | box.Cancel,
        )
        if answer == box.Yes:
            self._session.train.stop()
        return answer != box.Cancel


def installPackages(state: Any, folder: Path, parent: Any) -> str:
    """Asks and installs. Returns what went wrong, "" where nothing did or the user said no.

    Args:
        state: runs.packages_check.PackageState.
        folder: for the file that keeps pip from replacing anything.
    """
    if state.needs_torch:
        result = TorchInstaller().install()
        if result.outcome is not Outcome.READY:
            return str(result.message)
    if not state.requirements:
        return ""
    wanted = [each for each in (*state.missing, *state.optional_missing) if each.requirement in state.requirements]
    lines = "\n".join(f"  {package.requirement}: {package.purpose}" for package in wanted)
    question = _("Install these packages into Slicer's Python? Nothing that is there is replaced.\n\n{packages}")
    if not slicer.util.confirmOkCancelDisplay(question.format(packages=lines), parent=parent):
        return ""
    from ..runs.packages_check import write_constraints

    constraints = folder / "constraints.txt"
    write_constraints(constraints)
    try:
        slicer.util.pip_install([*state.requirements, "-c", str(constraints)])
    except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
        return _("The packages could not be installed: {error}. Slicer's Python console has the details.").format(
            error=error
        )
    return ""
