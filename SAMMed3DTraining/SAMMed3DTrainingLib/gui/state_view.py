"""Decides what every control of the panel shows in every state: one function without Qt, tested by a table of states.

A control that cannot be used says in its tool tip why not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from SAMMed3DLib.gui.state_view import Control
from SAMMed3DLib.translation import tr as _

from ..session.states import JobKind, TrainingState


@dataclass(frozen=True)
class TrainingPanelState:
    """All that the panel's look depends on.

    Attributes:
        state: of the session.
        job, cancelling: what else is under way.
        packagesText: what is missing, in words; "" where nothing is.
        volumes: rows of the table of cases.
        toWrite: rows that Export writes.
        folder, folderProblem: of the data set; "" where none is chosen, and where nothing is wrong with it.
        datasetSelected: a row of "More data sets".
        sets: data sets that the next run trains on.
        estimate: of the run as set, in words; "" where there is none.
        runText: what the run is doing, in words.
        hasCurves: there is something to draw.
        pausing: asked to pause, and not there yet.
        offersSmaller: (batch size, steps per update) of a run that may fit after all; (0, 0) where there is none.
        run: the selected run; "" without one.
        runActive: it is under way.
        runHasWeights, runResumable: of it.
        anyRunActive: name of a run of this folder that is under way elsewhere; "".
        adopted: the run whose weights were adopted last; "".
        compared: there is a comparison of the selected run.
        summary: of it, in words.
        noduleChart, sideBySide, lossChart, diceChart: what is on screen.
        nextFromFolder: Next case looks into a folder.
        nextCount: volumes that it would look at; -1: not known.
        nextSelected: a row of its table.
        problem: an error to show until the user goes on, or "".
        notice: good news for the status line, or "".
    """

    state: TrainingState
    job: JobKind | None = None
    cancelling: bool = False
    packagesText: str = ""
    volumes: int = 0
    toWrite: int = 0
    folder: str = ""
    folderProblem: str = ""
    datasetSelected: bool = False
    sets: int = 0
    estimate: str = ""
    runText: str = ""
    hasCurves: bool = False
    pausing: bool = False
    offersSmaller: tuple[int, int] = (0, 0)
    run: str = ""
    runActive: bool = False
    runHasWeights: bool = False
    runResumable: bool = False
    anyRunActive: str = ""
    adopted: str = ""
    compared: bool = False
    summary: str = ""
    noduleChart: bool = False
    sideBySide: bool = False
    lossChart: bool = False
    diceChart: bool = False
    nextFromFolder: bool = False
    nextCount: int = 0
    nextSelected: bool = False
    problem: str = ""
    notice: str = ""


def jobText(job: JobKind) -> str:
    """Describes the present job."""
    return {
        JobKind.CHECK: _("Checking the data set..."),
        JobKind.EXPORT: _("Writing cases..."),
        JobKind.ESTIMATE: _("Measuring some steps..."),
        JobKind.COMPARE: _("Comparing old and new weights..."),
        JobKind.LOAD: _("Reading the case..."),
        JobKind.ADOPT: _("Copying the model..."),
        JobKind.RANK: _("Looking at the volumes..."),
    }[job]


def whyNoRun(facts: TrainingPanelState) -> str:
    """The reason why no run can start, naming the cure; "" where one can."""
    if facts.state.isRunning:
        return _("A run is under way: stop it first, or wait until it ends.")
    if facts.anyRunActive:
        return _("{name} is under way in another process: stop it first.").format(name=facts.anyRunActive)
    if facts.packagesText:
        return facts.packagesText
    if facts.state is TrainingState.NO_DATA:
        return _("There is nothing to train on yet: export cases, or add a data set, in section 1.")
    return _wait(facts)


@lru_cache(maxsize=64)
def panelView(facts: TrainingPanelState) -> Mapping[str, Control]:
    """The look of each widget, by its name in the .ui file. Remembered, because translations take time."""
    return MappingProxyType(
        {**_guidance(facts), **_data(facts), **_training(facts), **_running(facts), **_comparing(facts), **_next(facts)}
    )


def _usable(tip: str, reason: str = "", **rest) -> Control:
    """Usable with this tip; or not, and the tip gives the reason."""
    return Control(enabled=not reason, toolTip=reason or tip, **rest)


def _wait(facts: TrainingPanelState) -> str:
    """Only one job at a time."""
    if facts.job is None:
        return ""
    return _("{what} Wait for it, or cancel it above.").format(what=jobText(facts.job))


# -- guidance --------------------------------------------------------------------------------------------------------


def _guidance(facts: TrainingPanelState) -> dict[str, Control]:
    text, button, closable, tip = facts.problem, "", bool(facts.problem), ""
    if facts.problem and facts.offersSmaller != (0, 0):
        button = _("Try batch size {size}").format(size=facts.offersSmaller[0])
        tip = _("Start again with a batch of {size} and {steps} steps per update: it learns the same with less memory.")
        tip = tip.format(size=facts.offersSmaller[0], steps=facts.offersSmaller[1])
    elif not facts.problem and facts.packagesText:
        text, button = facts.packagesText, _("Install")
        tip = _("Install exactly these packages into Slicer's Python. Nothing that is there is replaced.")
    status = _status(facts)
    return {
        "stepsLabel": Control(text=_steps(facts)),
        "messageFrame": Control(visible=bool(text)),
        "messageLabel": Control(text=text),
        "messageButton": Control(visible=bool(button), text=button, toolTip=tip),
        "dismissButton": Control(visible=closable, toolTip=_("Hide this message.")),
        "statusLabel": Control(text=status, toolTip=status),
        "cancelButton": _usable(
            _("Stop the current work. What is finished stays."),
            _("It stops at the next possibility.") if facts.cancelling else "",
        ),
    }


def _steps(facts: TrainingPanelState) -> str:
    """The four steps in one line, done ones ticked, the next one bold."""
    done = 0
    if facts.sets:
        done = 1
    if facts.runHasWeights and not facts.runActive:
        done = 2
    if done == 2 and facts.adopted == facts.run:
        done = 3
    parts = []
    for number, text in enumerate((_("Data"), _("Train"), _("Compare and adopt"), _("Next case"))):
        mark = "✓" if number < done else f"{number + 1}."
        line = f'<span style="white-space:nowrap">{mark} {text}</span>'
        parts.append(f"<b>{line}</b>" if number == done else line)
    return " &nbsp; ".join(parts)


def _status(facts: TrainingPanelState) -> str:
    if facts.notice:
        return facts.notice
    if facts.state.isRunning:
        return _("A run is under way. Slicer can be used as always, and may be closed.")
    if facts.state is TrainingState.NO_PACKAGES:
        return _("Some packages are missing: use the button at the top.")
    if facts.folderProblem:
        return facts.folderProblem
    if facts.state is TrainingState.NO_DATA:
        if not facts.volumes:
            return _("Load CTs and segment nodules in the SAMMed3D module, or add a data set that lies ready.")
        return _("Export the cases of the scene, or add a data set that lies ready.")
    if facts.toWrite:
        return _("New cases can be exported; a run can start with what is written.")
    return _("A run can start.")


# -- 1. Data -----------------------------------------------------------------------------------------------------------


def _data(facts: TrainingPanelState) -> dict[str, Control]:
    wait = _wait(facts)
    noFolder = wait or facts.folderProblem or ("" if facts.folder else _("Choose the folder of the data set first."))
    noRows = noFolder or ("" if facts.toWrite else _noRows(facts))
    count = facts.toWrite
    caption = _("Export") if not count else _("Export 1 case") if count == 1 else _("Export {n} cases").format(n=count)
    noSet = wait or ("" if facts.datasetSelected else _("Select a data set in the list first."))
    return {
        "exportButton": _usable(
            _(
                "Write the ticked cases into the data set: HU values in their true place, one label per nodule. Cases "
                "that are written already are brought up to date."
            ),
            noRows,
            text=caption,
        ),
        "importButton": _usable(_("Take pairs of image and label files from a folder into the data set."), noFolder),
        "addDatasetButton": _usable(_("Add a data set in nnU-Net's layout, or a folder with several."), wait),
        "removeDatasetButton": _usable(_("Take it off the list. Its files stay."), noSet),
        "checkDatasetButton": _usable(_("Read every case and list what is wrong with it."), noSet),
    }


def _noRows(facts: TrainingPanelState) -> str:
    if not facts.volumes:
        return _("The scene has no volumes: load CTs and segment nodules in the SAMMed3D module first.")
    return _("Nothing to write: no ticked case is new or changed. The table says what is wrong with the others.")


# -- 2. Train ----------------------------------------------------------------------------------------------------------


def _training(facts: TrainingPanelState) -> dict[str, Control]:
    reason = whyNoRun(facts)
    fixed = _("A run is under way with its own settings; these are for the next one.") if facts.state.isRunning else ""
    return {
        "checkpointCombo": Control(
            toolTip=fixed
            or _(
                "The weights that the training begins with: the bundled model, "
                "or one of the models of the SAMMed3D module."
            )
        ),
        "presetCombo": Control(
            toolTip=fixed
            or _(
                "How long the run may take on this computer; it ends earlier where nothing gets better any more. "
                "5 and 15 minutes: small updates of the image encoder (LoRA). 60 minutes: everything learns, which "
                "needs many nodules."
            )
        ),
        "estimateButton": _usable(
            _("Measure some steps of this very run in the background: how long, how much memory, how much disk."),
            reason,
        ),
        "estimateLabel": Control(text=facts.estimate or _("Not estimated yet.")),
        "startButton": _usable(
            _(
                "Train in a process of its own. Slicer stays usable; the run also goes on when Slicer is closed, if "
                "you want."
            ),
            reason,
        ),
    }


def _running(facts: TrainingPanelState) -> dict[str, Control]:
    state = facts.state
    none = "" if state.isRunning else _("No run is under way.")
    stopping = none or (_("The run is stopping already.") if state is TrainingState.STOPPING else "")
    starting = _("The run has not begun to learn yet: wait, or stop it.") if state is TrainingState.STARTING else ""
    early = stopping or starting
    paused = state is TrainingState.PAUSED
    pauseTip = _("Go on with the run.") if paused else _("Let the processor rest: the run waits after this step.")
    if facts.pausing and not paused:
        early = early or _("It pauses after the step under way.")
    curves = "" if facts.hasCurves else _("There is nothing to draw yet: start a run, or select one below.")
    return {
        "pauseButton": _usable(pauseTip, early, text=_("Resume") if paused else _("Pause")),
        "stopButton": _usable(
            _("End the run after the step under way. Everything is saved; it can be continued later."), stopping
        ),
        "runBar": Control(visible=state.isRunning),
        "runLabel": Control(text=facts.runText, visible=bool(facts.runText)),
        "lossButton": _usable(
            _("Show the loss in Slicer's plot view. Press again for the layout that you had."),
            curves,
            checked=facts.lossChart,
        ),
        "diceButton": _usable(
            _("Show Dice in Slicer's plot view. Press again for the layout that you had."),
            curves,
            checked=facts.diceChart,
        ),
    }


# -- 3. Compare and adopt --------------------------------------------------------------------------------------------


def _comparing(facts: TrainingPanelState) -> dict[str, Control]:
    wait = _wait(facts)
    noRun = "" if facts.run else _("There is no run yet.")
    noWeights = noRun or ("" if facts.runHasWeights else _("This run has not saved any weights yet."))
    active = noRun or (_("{name} is under way: stop it first.").format(name=facts.run) if facts.runActive else "")
    noResult = _("Press Compare first.")
    resume = active or whyNoContinue(facts)
    return {
        "compareButton": _usable(
            _(
                "Let the weights that {name} began with and its best ones click on the cases that it has not learned "
                "from."
            ).format(name=facts.run),
            noWeights or wait,
        ),
        "adoptButton": _usable(
            _(
                "Put the best weights of {name} into the SAMMed3D module's list of models and use them there; open "
                "nodules go on."
            ).format(name=facts.run),
            noWeights or wait,
        ),
        "continueButton": _usable(_("Go on with {name} exactly where it was saved.").format(name=facts.run), resume),
        "deleteRunButton": _usable(
            _("Delete {name} from the disk, its weights too. A model that was adopted stays.").format(name=facts.run),
            active or wait,
        ),
        "summaryLabel": Control(text=facts.summary or (noRun or noWeights or noResult)),
        "clicksCombo": _usable(_("After how many clicks the masks are compared."), "" if facts.compared else noResult),
        "sideBySideButton": _usable(
            _(
                "Two slice views: old weights left, new ones right, the truth in both. Press again for the layout that "
                "you had."
            ),
            "" if facts.compared else noResult,
            checked=facts.sideBySide,
        ),
        "noduleChartButton": _usable(
            _("Show the Dice of every nodule in Slicer's plot view. Press again for the layout that you had."),
            "" if facts.compared else noResult,
            checked=facts.noduleChart,
        ),
    }


def whyNoContinue(facts: TrainingPanelState) -> str:
    """The reason why the selected run cannot go on; "" where it can."""
    if not facts.runResumable:
        return _("This run has ended as planned, or saved nothing: there is nothing to continue.")
    if facts.state.isRunning or facts.anyRunActive:
        return _("A run is under way: stop it first, or wait until it ends.")
    return facts.packagesText or _wait(facts)


# -- 4. Next case ------------------------------------------------------------------------------------------------------


def _next(facts: TrainingPanelState) -> dict[str, Control]:
    reason = facts.packagesText or _wait(facts)
    if not reason and facts.nextCount == 0:
        reason = (
            _("Choose a folder with CT files.")
            if facts.nextFromFolder
            else _("Every volume of the scene has nodules already: load more, or choose a folder.")
        )
    return {
        "nextSourceCombo": Control(
            toolTip=_("Volumes of the scene that have no nodules yet, or CT files of a folder.")
        ),
        "rankButton": _usable(
            _("Let the model look at every volume in the background and sort them by how unsure it is."), reason
        ),
        "openNextButton": _usable(
            _("Open the volume in the SAMMed3D module, at the place that the model is least sure about."),
            "" if facts.nextSelected else _("Rank the volumes, then select one in the table."),
        ),
    }
