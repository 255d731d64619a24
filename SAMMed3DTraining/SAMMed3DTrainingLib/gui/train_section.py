"""Section 2: what a run will be like, what it costs, and the run itself with its curves and its log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer

from SAMMed3DLib.translation import tr as _
from SAMMed3DLib.weights.store import WeightsStore

from ..session.runs_api import TrainingSettings
from ..session.states import TrainingState
from ..session.train_part import gpuNumbers
from .plot_view import PlotView
from .texts import difference, duration, nodulesOfCases, score, size
from .widgets import Connections

#: Curves and log are brought up to date this often.
DRAW_SECONDS = 1.0
_BUNDLED = ""
_CHECKPOINT_SETTING, _WORK_DIR_SETTING = "SAMMed3DTraining/Checkpoint", "SAMMed3DTraining/WorkDir"


class TrainSection:
    """Shows the session's train part and hands what the user does back to it."""

    def __init__(
        self,
        ui: Any,
        widget: qt.QWidget,
        session: Any,
        store: WeightsStore,
        plots: PlotView,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ui, self._widget, self._session, self._store, self._plots = ui, widget, session, store, plots
        self._parameters: Any = None
        self._clock, self._drawDue = clock, 0.0
        self._filling = False
        self._shown: tuple[str, ...] = ()
        self._checkpoints: list[str] = []
        self._connections = Connections()
        self._connections.signal(session.changed, self.refresh)
        self._connections.widget(ui.checkpointCombo, "currentIndexChanged(int)", self._onCheckpoint)
        self._connections.buttons(
            {
                ui.workDirButton: self._onWorkDir,
                ui.estimateButton: session.train.estimate,
                ui.startButton: self._onStart,
                ui.pauseButton: self._onPause,
                ui.stopButton: session.train.stop,
                ui.lossButton: lambda: plots.toggle("lossChart"),
                ui.diceButton: lambda: plots.toggle("diceChart"),
            }
        )
        self._connections.widget(ui.logSection, "contentsCollapsed(bool)", self._onLog)
        ui.workDirEdit.text = str(self.workDir)
        self.refreshCheckpoints()

    def close(self) -> None:
        self._connections.close()
        self._parameters = None

    # -- settings ----------------------------------------------------------------------------------------------------

    @property
    def workDir(self) -> Path:
        """Folder of the runs; it belongs to this computer, so it is not kept with the scene."""
        chosen = slicer.app.userSettings().value(_WORK_DIR_SETTING)
        return Path(str(chosen)) if chosen else defaultFolder() / "Runs"

    @property
    def checkpoint(self) -> Path | None:
        """The weights to start from; None: the bundled model."""
        chosen = str(slicer.app.userSettings().value(_CHECKPOINT_SETTING) or _BUNDLED)
        return Path(chosen) if chosen in self._checkpoints and chosen != _BUNDLED else None

    def setParameters(self, parameters: Any) -> None:
        """The parameter node to follow; None between scenes."""
        self._parameters = parameters
        self.push()

    def push(self) -> None:
        """Passes the settings from the widgets to the session."""
        parameters = self._parameters
        if parameters is None:
            return
        self._session.train.setSettings(
            TrainingSettings(
                workDir=self.workDir,
                runName=parameters.runName.strip() or "nodules",
                checkpoint=self.checkpoint,
                preset=parameters.preset.value,
                epochs=parameters.epochs or None,
                batchSize=parameters.batchSize,
                accumulationSteps=parameters.accumulationSteps,
                learningRate=parameters.learningRate or None,
                device=parameters.device.value,
                gpus=gpuNumbers(parameters.gpus),
            ),
            self._session.data.trainingData,
        )

    def refreshCheckpoints(self) -> None:
        """The models as the SAMMed3D module has them now."""
        combo = self._ui.checkpointCombo
        entries = [entry for entry in self._store.entries() if entry.installed]
        self._checkpoints = [_BUNDLED if n == 0 else str(entry.path) for n, entry in enumerate(entries)]
        chosen = str(slicer.app.userSettings().value(_CHECKPOINT_SETTING) or _BUNDLED)
        self._filling = True
        try:
            combo.clear()
            for entry, path in zip(entries, self._checkpoints, strict=True):
                combo.addItem(entry.title, path)
            combo.setCurrentIndex(self._checkpoints.index(chosen) if chosen in self._checkpoints else 0)
        finally:
            self._filling = False
        self.push()

    # -- the look ----------------------------------------------------------------------------------------------------

    def refresh(self, *__: Any) -> None:
        """Show the run as it is now."""
        status = self._session.train.status
        self._ui.runBar.value = 0 if status is None else round(1000 * status.fraction)
        if status is None:
            return
        now = self._clock()
        if now >= self._drawDue or status.is_over:  # drawing a chart takes longer than a step may
            self._drawDue = now + DRAW_SECONDS
            self._plots.showRun(self._session.train.name, status.curves)
            self._showLog(status.log)

    @property
    def estimateText(self) -> str:
        """The estimate in words; "" where there is none."""
        result = self._session.train.estimateResult
        if not result:
            return ""
        parts = [
            _("About {time} on {device}.").format(time=duration(result.get("time_s")), device=result.get("device")),
            _("{steps} steps on {nodules}.").format(
                steps=result.get("steps"), nodules=nodulesOfCases(result.get("nodules"), result.get("cases"))
            ),
        ]
        room = [(_("{size} of memory"), result.get("memory_mb")), (_("{size} on the disk"), result.get("disk_mb"))]
        words = [text.format(size=size(1e6 * value)) for text, value in room if value]
        return " ".join([*parts, ", ".join(words) + "."] if words else parts)

    @property
    def runText(self) -> str:
        """Describes the run's present activity; "" without one."""
        train = self._session.train
        status, name = train.status, train.name
        if not train.runState:
            return ""
        if status is not None and status.state == "starting" and status.read[1]:
            done, total = status.read
            if total == 1:
                return _("{name} is starting: it reads its case.").format(name=name)
            return _("{name} is starting: it has read {done} of {total} cases.").format(
                name=name, done=done, total=total
            )
        if status is None or status.state == "starting":
            return _("{name} is starting: it reads its data and its weights.").format(name=name)
        if status.state == "encoding":
            return _("{name}: computing embeddings, {time} left.").format(name=name, time=duration(status.left_s))
        best = "" if status.best_dice is None else _bestText(status.best_dice, status.curves.val_dice)
        if best and status.change is not None:
            best += " " + _("That is {change} since the start (standard error {error}).").format(
                change=difference(status.change[0]), error=score(status.change[1])
            )
        if status.warnings:
            best += " " + _("Warning: {text}").format(text=status.warnings[-1])
        at = _("epoch {epoch} of {epochs}, step {step} of {steps}").format(
            epoch=status.epoch, epochs=status.epochs, step=status.step, steps=status.steps
        )
        if status.state == "running":
            return _("{name}: {at}, {time} left.").format(name=name, at=at, time=duration(status.left_s)) + best
        if status.state == "paused":
            return _("{name} is paused: {at}.").format(name=name, at=at) + best
        if status.state == "stopping":
            return _("{name} is stopping: it saves what it has learned.").format(name=name)
        if status.state == "finished" and status.best_dice is not None and status.change is None:
            best = (
                " "
                + _("No epoch beat the weights that it began with by more than chance: they stay the best.")
                + (" " + _("Warning: {text}").format(text=status.warnings[-1]) if status.warnings else "")
            )
        caution = " " + _("Careful: {caution}.").format(caution=status.caution) if status.caution else ""
        return self.endText + best + caution

    @property
    def endText(self) -> str:
        """Tells in a sentence how the run has ended; what came of it stands below the progress of the run."""
        train = self._session.train
        return {
            "finished": _("{name} has finished."),
            "stopped": _("{name} was stopped; it can be continued."),
            "failed": _("{name} has failed."),
            "killed": _("{name} was ended from outside; it can be continued."),
        }[train.status.state].format(name=train.name)

    def _showLog(self, log: tuple[str, ...]) -> None:
        if self._ui.logSection.collapsed or log == self._shown:
            return
        self._shown = log
        self._ui.logEdit.setPlainText("\n".join(log))
        bar = self._ui.logEdit.verticalScrollBar()
        bar.value = bar.maximum

    # -- what the user does ------------------------------------------------------------------------------------------

    def _onCheckpoint(self, index: int) -> None:
        if not self._filling and 0 <= index < len(self._checkpoints):
            slicer.app.userSettings().setValue(_CHECKPOINT_SETTING, self._checkpoints[index])
            self.push()

    def _onWorkDir(self) -> None:
        path = qt.QFileDialog.getExistingDirectory(self._widget, _("Choose the folder for runs"), str(self.workDir))
        if path:
            self.setWorkDir(Path(path))

    def setWorkDir(self, folder: Path) -> None:
        """Sets the folder of the runs; kept in the application's settings."""
        slicer.app.userSettings().setValue(_WORK_DIR_SETTING, str(folder))
        self._ui.workDirEdit.text = str(folder)
        self._session.compare.setWorkDir(folder)
        self.push()

    def _onStart(self) -> None:
        self._plots.forgetRun()
        self._session.train.start()

    def _onPause(self) -> None:
        if self._session.state is TrainingState.PAUSED:
            self._session.train.resume()
        else:
            self._session.train.pause()

    def _onLog(self, collapsed: bool) -> None:
        status = self._session.train.status
        if not collapsed and status is not None:
            self._showLog(status.log)


def _bestText(dice: float, checks: Sequence[Sequence[float]]) -> str:
    """The best Dice of a run, and of how many clicks it is the mean."""
    if not checks or not checks[-1]:
        return _(" Best Dice {dice}.").format(dice=score(dice))
    if len(checks[-1]) == 1:
        return _(" Best Dice {dice} after 1 click.").format(dice=score(dice))
    return _(" Best Dice {dice}, mean after 1 to {n} clicks.").format(dice=score(dice), n=len(checks[-1]))


def defaultFolder() -> Path:
    """Returns the default folder for data sets and runs, among the documents."""
    return Path(qt.QStandardPaths.writableLocation(qt.QStandardPaths.DocumentsLocation)) / "SAMMed3D"
