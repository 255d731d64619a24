"""The module's panel: puts the session, the widgets and the keys together, and decides nothing itself."""

from __future__ import annotations

from typing import Any

import qt
import slicer

from ..scene.session import Session
from ..scene.slice_clicks import SliceClicks
from ..scene.states import State
from ..torch_setup.install import TorchInstaller
from ..worker.engine import Engine
from ..worker.thread import Client, Worker
from .click_tools import ClickTools, SliceViews
from .follow_up_panel import FollowUpPanel
from .icons import Icons, isDark
from .model_panel import ModelChoice, ModelPanel, applicationStore
from .nodule_list import NameTemplates, NoduleActions, NoduleList
from .progress_row import ProgressRow
from .shortcuts import KeysPopup, Shortcuts
from .state_view import Facts, ViewWriter, panelView
from .timers import Poll, QtTimer
from .view_tools import ViewTools

#: Buttons and the icons they wear.
_ICONS = {
    "addNoduleButton": "add_nodule",
    "nextNoduleButton": "next_nodule",
    "addModeButton": "add",
    "subtractModeButton": "subtract",
    "undoButton": "undo",
    "redoButton": "redo",
    "show3dButton": "show_3d",
    "segmentAllButton": "segment_all",
    "acceptButton": "accept",
    "flagButton": "flag",
    "rejectButton": "reject",
    "previousButton": "previous_row",
    "nextButton": "next_row",
    "copyButton": "copy",
    "saveButton": "save",
    "cancelButton": "cancel",
    "modelCancelButton": "cancel",
    "downloadButton": "download",
    "openModelButton": "open_file",
    "removeModelButton": "remove",
    "copyDeviceButton": "copy",
    "detectorDownloadButton": "download",
    "detectorFileButton": "open_file",
    "detectorRemoveButton": "remove",
}


class NodulePanel:
    """Everything between ``setup`` and ``cleanup`` of the module's widget.

    Args:
        widget: the top widget of the .ui file.
        ui: its named children.
        session, worker: a Session and the Worker behind it.
        choice, client: the model that the session uses, and a second worker thread that fetches others meanwhile.
    """

    def __init__(
        self, widget: qt.QWidget, ui: Any, session: Any, worker: Any, choice: ModelChoice, client: Client
    ) -> None:
        self.widget, self.ui, self.session, self._worker = widget, ui, session, worker
        self._problem = self._notice = ""
        self._closed = self._wasUnseen = False
        self._view = ViewWriter(ui)
        self._dark = isDark(widget)
        icons = self._showIcons()
        self._restTimer = QtTimer(widget)
        self.clicks = SliceClicks(self._restTimer)
        self._views = SliceViews()
        self._poll = Poll(session.poll, session.busyChanged, widget)
        self.tools = ClickTools(ui, session, self.clicks, self._views)
        self.nodules = NoduleList(ui.noduleTable, ui.filterCombo, session, icons)
        self.actions = NoduleActions(ui, session, self.nodules)
        self._names = NameTemplates(ui.nameCombo, session)
        self.models = ModelPanel(ui, widget, session, choice, client, TorchInstaller())
        self.followUp = FollowUpPanel(ui, widget, session, self.tools, self._views)
        self._progress = ProgressRow(ui, session.cancel)
        self._sync = ParameterSync(session)
        self.viewTools = ViewTools(ui, session)
        self._keys = KeysPopup(ui.keysButton)
        self._shortcuts = Shortcuts(
            {
                "newNodule": self.tools.newNodule,
                "disarm": self.tools.disarm,
                "togglePolarity": self.tools.togglePolarity,
                "accept": self.actions.accept,
                "reject": self.actions.reject,
                "unlock": self.actions.unlock,
                "rename": self.nodules.rename,
                "previous": self.actions.previous,
                "next": self.actions.next,
                "window": self.viewTools.nextWindow,
                "fit": self.viewTools.fit,
                "slab": self.viewTools.toggleSlab,
                "closeUp": self.viewTools.toggleCloseUp,
                "keys": self._keys.show,
                "undo": session.undo,
                "redo": session.redo,
            }
        )
        self._shortcuts.enable("disarm", False)
        self._listen()
        self.refresh()

    # -- life cycle --------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """The user opened the module: keys work, and the model gets ready once the panel is on screen."""
        self.refresh()
        self._shortcuts.install(slicer.util.mainWindow() or self.widget)
        self.tools.enter()
        self.followUp.enter()
        self.models.enter()
        qt.QTimer.singleShot(0, self._preload)

    def exit(self) -> None:
        """Another module is opened: no key, no pointer and no click of ours is left behind."""
        self.tools.exit()
        self.followUp.exit()
        self._shortcuts.remove()
        self.models.exit()

    def setParameters(self, parameters: Any) -> None:
        """The parameter node to follow; None between scenes."""
        self._sync.setParameters(parameters)

    def onParametersModified(self) -> None:
        self._sync.push()
        self.refresh()

    def close(self, seconds: float) -> None:
        """Takes everything apart; waits so long at most for what is being computed."""
        self._closed = True
        self.exit()
        for part in (
            self._sync,
            self.followUp,
            self.viewTools,
            self._keys,
            self.models,
            self.actions,
            self._names,
            self.nodules,
            self.tools,
            self._poll,
            self._progress,
            self._views,
            self._restTimer,
        ):
            part.close()
        for signal, slot in self._connections:
            signal.disconnect(slot)
        self.ui.setupButton.disconnect("clicked(bool)", self._onSetup)
        self.ui.cpuOnlyButton.disconnect("clicked(bool)", self._onCpuOnly)
        self.ui.stepsLabel.disconnect("linkActivated(QString)", self._onLink)
        self.ui.thoroughLabel.disconnect("linkActivated(QString)", self._onDetectorLink)
        self.session.close()
        self._worker.shutdown(seconds)

    # -- the look ----------------------------------------------------------------------------------------------------

    def refresh(self, *__: Any) -> None:
        """Bring every control up to date, the icons too where the theme has changed."""
        if isDark(self.widget) != self._dark:
            self._dark = not self._dark
            self.nodules.setIcons(self._showIcons())
        if self._wasUnseen and not self.session.unseen:  # the other volume was chosen, or this one is on screen
            self._problem = ""
        self._wasUnseen = self.session.unseen
        self._view.apply(panelView(self._facts()))

    def showProblem(self, text: str) -> None:
        """An error, shown until the next success or until the user closes it; "" takes it away."""
        self._problem = text
        self.refresh()

    def _facts(self) -> Facts:
        session = self.session
        rows = session.review.rows()
        selected = next((row for row in rows if row.segmentId == session.selectedId), None)
        return Facts(
            state=session.state,
            stateText=session.stateText,
            armed=self.tools.armed,
            positive=session.options.polarity,
            target=None if selected is None or session.options.everyClickIsNew else selected.name,
            selected=selected is not None,
            flagged=selected is not None and selected.status == "flagged",
            rows=len(rows),
            canUndo=session.history.canUndo,
            canRedo=session.history.canRedo,
            undoText=session.history.undoText,
            redoText=session.history.redoText,
            found=session.finding.hasCandidates,
            counts=session.finding.counts,
            problem=self._problem,
            cpuOnlyMayHelp=self.models.cpuOnlyMayHelp,
            notice=self._notice,
            unseen=session.unseen,
            odd=session.oddities.grave,
            oddDetails=session.oddities.details,
            slab=self.viewTools.isSlab,
            closeUp=self.viewTools.isCloseUp,
            detector=self.models.detector,
            previews=session.options.showsPreview,
        )

    def _showIcons(self) -> Icons:
        icons = Icons(self.widget)
        for button, name in _ICONS.items():
            getattr(self.ui, button).setIcon(icons(name))
        return icons

    # -- what happens ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        session = self.session
        self._connections = [
            (session.stateChanged, self._onState),
            (session.nodulesChanged, self.refresh),
            (session.noduleChanged, self.refresh),
            (session.selectionChanged, self._onSelection),
            (session.historyChanged, self._onHistory),
            (session.message, self._onMessage),
            (session.progressed, self._progress.setProgress),
            (session.dragging, self._views.pace),
            (self.tools.armedChanged, self._onArmed),
            (self.viewTools.changed, self.refresh),
            (self.models.problem, self.showProblem),
            (self.models.detectorChanged, self.refresh),
        ]
        for signal, slot in self._connections:
            signal.connect(slot)
        self.ui.setupButton.connect("clicked(bool)", self._onSetup)
        self.ui.cpuOnlyButton.connect("clicked(bool)", self._onCpuOnly)
        self.ui.stepsLabel.connect("linkActivated(QString)", self._onLink)
        self.ui.thoroughLabel.connect("linkActivated(QString)", self._onDetectorLink)

    def _preload(self) -> None:
        if not self._closed and self._shortcuts.installed:  # still open
            self.session.preload()

    def _onState(self, state: State) -> None:
        if not state.takesClicks:
            self.tools.disarm()
        if state.isWorking:
            self._problem = self._notice = ""
        self._progress.setBusy(state.isWorking)
        self.refresh()

    def _onHistory(self) -> None:
        # What was wrong before a step, or told about it, no longer matters after it.
        self._problem = self._notice = ""
        self.refresh()

    def _onSelection(self, segmentId: str | None) -> None:
        self._notice = ""
        self.refresh()

    def _onArmed(self) -> None:
        self._notice = ""
        self._shortcuts.enable("disarm", self.tools.armed)
        self.refresh()

    def _onMessage(self, text: str, isError: bool) -> None:
        self._problem, self._notice = (text, "") if isError else ("", text)
        self.refresh()

    def _onSetup(self, checked: bool = False) -> None:
        if self.session.unseen:
            self.session.showVolume()
            self.showProblem("")
            return
        if self.session.state is State.NO_TORCH:
            self.models.installTorch()
            return
        if self.session.state is State.NO_WEIGHTS:
            self.ui.modelSection.collapsed = False
        self.showProblem("")

    def _onCpuOnly(self, checked: bool = False) -> None:
        self.models.installTorch(cpuOnly=True)

    def _onLink(self, link: str) -> None:
        from .sample_data import loadPhantom

        loadPhantom()

    def _onDetectorLink(self, link: str) -> None:
        self.ui.modelSection.collapsed = False
        self.ui.detectorDownloadButton.setFocus()


def makePanel(widget: qt.QWidget, ui: Any) -> NodulePanel:
    """The panel with everything that it needs. Nothing is loaded and no thread starts yet."""
    choice = ModelChoice(applicationStore())
    worker = Worker(Engine())
    return NodulePanel(widget, ui, Session(worker, choice), worker, choice, Client())


class ParameterSync:
    """Hands the user's choices to the session, and nodes that the session made back to the selectors."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._parameters: Any = None
        self._seen: tuple = (None, None, None)
        self._options: tuple = (None, None)
        self._look: tuple[float, float] | None = None
        self._busy = False
        session.documentChanged.connect(self.pull)

    def close(self) -> None:
        self._session.documentChanged.disconnect(self.pull)
        self._parameters = None

    def setParameters(self, parameters: Any) -> None:
        """Another parameter node, of a scene just loaded for example; None between scenes."""
        self._parameters = parameters
        if parameters is not None:
            self._seen, self._options, self._look = (None, None, None), (None, None), None
            self.push()

    def push(self) -> None:
        """From the parameter node to the session. Called whenever the node was modified."""
        parameters, session = self._parameters, self._session
        if parameters is None or self._busy:
            return
        self._busy = True
        try:
            wanted = (parameters.inputVolume, parameters.segmentation, parameters.prompts)
            volume, segmentation, prompts = wanted
            seen, self._seen = self._seen, wanted
            if volume is not seen[0]:
                session.setVolume(volume)
                session.showVolume(everywhere=False)
            if segmentation is not seen[1] and segmentation is not session.segmentationNode:
                session.setSegmentation(segmentation)
            if prompts is not seen[2] and prompts is not session.promptsNode:
                session.setPrompts(prompts)
            session.options.everyClickIsNew = parameters.everyClickIsNew
            session.options.doNotOverlap = parameters.doNotOverlap
            session.options.selectsInside = parameters.clickSelects
            session.options.zoomsIn = parameters.zoomToNodule
            session.options.thorough = parameters.thoroughSearch
            session.options.showsPreview = parameters.showPreview
            session.hidePreview()  # a click may give something else now
            look = (parameters.outlineWidth, parameters.fillOpacity)
            if self._look not in (None, look):
                session.setLook(*look)
            self._look = look
            session.options.outlineWidth, session.options.fillOpacity = look
            if session.options.showsMeasure != parameters.showMeasure:
                session.options.showsMeasure = parameters.showMeasure
                session.showMeasure()
            options = (parameters.show3d, parameters.sensitivity)
            before, self._options = self._options, options
            if options[0] != before[0]:
                session.review.show3d(options[0])
            if options[1] != before[1]:
                session.finding.setSensitivity(options[1])
        finally:
            self._busy = False
        self.pull()

    def pull(self) -> None:
        """From the session to the parameter node: nodes that were found, made or deleted."""
        parameters, session = self._parameters, self._session
        if parameters is None or self._busy:
            return
        self._busy = True
        try:
            nodes = (session.volumeNode, session.segmentationNode, session.promptsNode)
            for name, node in zip(("inputVolume", "segmentation", "prompts"), nodes, strict=True):
                if getattr(parameters, name) is not node:
                    setattr(parameters, name, node)
            self._seen = nodes
        finally:
            self._busy = False
