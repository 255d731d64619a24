"""What every control of the panel shows in every state: one function, no Qt, so that a table of states can test it.

A control that cannot be used says in its tool tip why not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from ..scene.states import State, busyText
from ..translation import tr as _
from ..weights.catalog import ModelEntry


@dataclass(frozen=True)
class Facts:
    """All that the panel's look depends on.

    Attributes:
        state, stateText: of the session; the text says what to do about an error.
        armed: clicks in slice views count.
        positive: a plain click adds.
        target: name of the nodule that the next click changes; None where it starts a new one.
        selected: a row of the table is selected.
        rows: number of nodules.
        canUndo, canRedo, undoText, redoText: of the history.
        flagged: that row is flagged.
        found: Segment all has run on this volume, so that the slider has something to choose from.
        counts: (shown, found) by it.
        problem: an error to show until the user goes on, or "".
        cpuOnlyMayHelp: PyTorch could not be installed, its smaller build may.
        notice: good news for the status line, or "".
        unseen: the problem is that another volume is on screen.
        odd, oddDetails: what makes measuring this volume doubtful; that and all else that is worth knowing of it.
        slab, closeUp: the axial view shows a slab; the views are close to the selected nodule.
        detector: the detector of the thorough search; None: not looked up yet.
        previews: what a click would give is outlined where the pointer rests.
    """

    state: State
    stateText: str = ""
    armed: bool = False
    positive: bool = True
    target: str | None = None
    selected: bool = False
    rows: int = 0
    canUndo: bool = False
    canRedo: bool = False
    undoText: str = ""
    redoText: str = ""
    flagged: bool = False
    found: bool = False
    counts: tuple[int, int] = (0, 0)
    problem: str = ""
    cpuOnlyMayHelp: bool = False
    notice: str = ""
    unseen: bool = False
    odd: tuple[str, ...] = ()
    oddDetails: str = ""
    slab: bool = False
    closeUp: bool = False
    detector: ModelEntry | None = None
    previews: bool = False


@dataclass(frozen=True)
class Control:
    """How one widget looks. None leaves a property as it is."""

    enabled: bool = True
    toolTip: str | None = None
    visible: bool | None = None
    text: str | None = None
    checked: bool | None = None


def whyNoClick(facts: Facts) -> str:
    """The reason why clicking is impossible, naming the cure; "" where it is possible."""
    if facts.state is State.NO_TORCH:
        return _("PyTorch, which runs the model, is not installed yet: use the button at the top.")
    if facts.state is State.NO_WEIGHTS:
        return _("The chosen model is not on this computer: download it, or choose another one under Model.")
    if facts.state is State.ERROR:
        return facts.stateText
    return "" if facts.state.takesClicks else _("Choose a CT volume first.")


@lru_cache(maxsize=32)
def panelView(facts: Facts) -> Mapping[str, Control]:
    """The look of each widget, by its name in the .ui file.

    Remembered, because looking up a translation takes Slicer 0.1 ms, and a drag swings between few sets of facts.
    """
    return MappingProxyType(
        {
            **_guidance(facts),
            **_clicking(facts),
            **_views(facts),
            **_history(facts),
            **_segmentAll(facts),
            **_nodules(facts),
        }
    )


def _usable(tip: str, reason: str = "", **rest) -> Control:
    """A control that is enabled with this tool tip, or disabled with the reason as its tool tip."""
    return Control(enabled=not reason, toolTip=reason or tip, **rest)


def _guidance(facts: Facts) -> dict[str, Control]:
    tip, closable = _("Hide this message."), bool(facts.problem)
    text, button = facts.problem or (facts.stateText if facts.state is State.ERROR else ""), _("Close")
    if facts.state is State.NO_TORCH:
        text = facts.problem or _("PyTorch, which runs the model, is not installed yet. It takes some minutes, once.")
        button, closable = _("Install PyTorch"), True
        tip = _("Install PyTorch with Slicer's PyTorch extension. It asks before anything is downloaded.")
    elif facts.state is State.NO_WEIGHTS:
        text = facts.problem or whyNoClick(facts)
        button, closable = _("Model..."), True
        tip = _("Open the Model section, to download the model or to choose another one.")
    elif facts.problem and facts.unseen:
        button, tip = _("Show the CT"), _("Show the chosen CT in all slice views.")
    return {
        "stepsLabel": Control(text=_correcting() if facts.rows else _steps(facts)),
        "setupFrame": Control(visible=bool(text)),
        "setupLabel": Control(text=text),
        "setupButton": Control(text=button, toolTip=tip, visible=closable),
        "cpuOnlyButton": Control(visible=facts.state is State.NO_TORCH and facts.cpuOnlyMayHelp),
        "inputLabel": Control(visible=bool(facts.odd), text=_oddText(facts.odd), toolTip=facts.oddDetails),
        "statusLabel": Control(text=_status(facts), toolTip=_status(facts)),
    }


def _steps(facts: Facts) -> str:
    """The three steps in one line, done ones ticked, the next one bold."""
    done = 0 if facts.state is State.NO_VOLUME else 1 if not facts.armed else 2
    sample = f'<a href="sample">{_("try a sample")}</a>'
    load = _("Load a chest CT") if done else _("Load a chest CT or {sample}").format(sample=sample)
    parts = []
    for number, text in enumerate((load, _("Press Click nodules"), _("Click a nodule in a slice"))):
        mark = "✓" if number < done else f"{number + 1}."
        line = f'<span style="white-space:nowrap">{mark} {text}</span>'  # lines break between the steps
        parts.append(f"<b>{line}</b>" if number == done else line)
    return " &nbsp; ".join(parts)


def _oddText(odd: tuple[str, ...]) -> str:
    """The gravest in one line."""
    if len(odd) < 2:
        return _("Mind: {what}.").format(what=odd[0]) if odd else ""
    return _("Mind: {what}, and {n} more.").format(what=odd[0], n=len(odd) - 1)


def _correcting() -> str:
    """Once there is a nodule: how to correct it. It stands where the steps stood, so that nothing below moves."""
    return _("<b>Drag a point</b> and the nodule follows. Click adds, Shift-click takes away, Ctrl+Z undoes.")


def _status(facts: Facts) -> str:
    if facts.state is State.NO_VOLUME:
        return whyNoClick(facts)
    if not facts.state.takesClicks:
        return ""  # the frame at the top says it
    if facts.state.isWorking:
        return facts.stateText
    if facts.notice:
        return facts.notice
    if not facts.armed:
        return _("Press Click nodules (N) to begin.")
    if facts.target is None and facts.previews and facts.positive:
        return _("Click a nodule in any slice view; rest on it to see its outline first. Esc ends clicking.")
    if facts.target is None:
        return _("Click a nodule in any slice view. Esc ends clicking.")
    if facts.positive:
        return _("A click adds to {name}, Shift-click takes away.").format(name=facts.target)
    return _("A click takes away from {name}, Shift-click adds.").format(name=facts.target)


def _clicking(facts: Facts) -> dict[str, Control]:
    reason = whyNoClick(facts)
    noTarget = reason or ("" if facts.selected or facts.armed else _("Select a nodule in the table, or add one first."))
    armTip = _(
        "Click in the slice views: a click on a nodule segments it (N). Zooming, scrolling and dragging points work "
        "as always."
    )
    if facts.armed:
        armTip = _("Stop clicking (Esc).")
    return {
        "addNoduleButton": _usable(armTip, reason, checked=facts.armed),
        "nextNoduleButton": _usable(_("The next click starts another nodule (N)."), reason),
        "addModeButton": _usable(
            _("Clicks add to the nodule (S switches). Shift-click does the opposite."), noTarget, checked=facts.positive
        ),
        "subtractModeButton": _usable(
            _("Clicks take away from the nodule (S switches). Shift-click does the opposite."),
            noTarget,
            checked=not facts.positive,
        ),
        "everyClickCheckBox": Control(enabled=True),
    }


def _views(facts: Facts) -> dict[str, Control]:
    reason = _("Choose a CT volume first.") if facts.state is State.NO_VOLUME else ""
    slabTip = _("Show 10 mm at once in the axial view, the brightest of each: vessels are lines, nodules dots (M).")
    nearTip = _("See the selected nodule near, in three planes and in 3D (C). Press again for what you had.")
    return {
        "windowButton": _usable(_("Lung window, mediastinal window, and your own where you set one (L)."), reason),
        "fitButton": _usable(_("Show the whole chest in all slice views (H)."), reason),
        "slabButton": _usable(slabTip, reason, checked=facts.slab),
        "closeUpButton": _usable(nearTip, reason, checked=facts.closeUp),
        "keysButton": Control(toolTip=_("List the keys (K).")),
    }


def _history(facts: Facts) -> dict[str, Control]:
    return {
        "undoButton": _usable(
            _("Undo: {what} (Ctrl+Z)").format(what=facts.undoText), "" if facts.canUndo else _("Nothing to undo.")
        ),
        "redoButton": _usable(
            _("Redo: {what} (Ctrl+Y)").format(what=facts.redoText), "" if facts.canRedo else _("Nothing to redo.")
        ),
    }


def _segmentAll(facts: Facts) -> dict[str, Control]:
    reason = whyNoClick(facts)
    if facts.state is State.GENERATING:
        reason = busyText()
    tip = _("Find and segment every nodule of the lungs, the likeliest first. Accepted nodules stay as they are.")
    sliderTip = _("Show fewer nodules, only likely ones, or more, at once: {shown} of {found} are shown.")
    slider = _usable(
        sliderTip.format(shown=facts.counts[0], found=facts.counts[1]),
        "" if facts.found else _("First run Segment all nodules."),
    )
    return {
        "segmentAllButton": _usable(tip, reason),
        "allVolumesButton": _usable(
            _("Search every CT of the scene, one after the other; each keeps its own nodules. Cancel ends all."), reason
        ),
        **_thorough(facts.detector),
        "sensitivitySlider": slider,
        "fewerLabel": slider,
        "moreLabel": slider,
    }


def sizeText(size: int) -> str:
    """A file's size in megabytes."""
    return _("{size} MB").format(size=f"{size / 1e6:,.0f}" if size >= 10e6 else f"{size / 1e6:.1f}")


def _thorough(detector: ModelEntry | None) -> dict[str, Control]:
    """The box for the thorough search, and below it what it needs where that is not here."""
    if detector is None:
        return {"thoroughCheckBox": Control(enabled=False), "thoroughLabel": Control(visible=False)}
    if detector.installed:
        tip = _(
            "Segment all nodules asks {title} too, and scores what either of them names: a minute or several on a "
            "processor. {note}"
        ).format(title=detector.title, note=detector.note)
        return {"thoroughCheckBox": Control(toolTip=tip), "thoroughLabel": Control(visible=False)}
    title, size = detector.title, sizeText(detector.size_bytes)
    missing = _("Needs {title}, which is not on this computer ({size}, {license}).").format(
        title=title, size=size, license=detector.license
    )
    cure = _("Download it ({source}) or choose its file, models/model.pt, in the Model section. {note}").format(
        source=detector.source, note=detector.note
    )
    link = f'{missing} <a href="detector">{_("Get it...")}</a>'
    return {
        "thoroughCheckBox": Control(enabled=False, toolTip=f"{missing} {cure}", checked=False),
        "thoroughLabel": Control(visible=True, text=link, toolTip=cure),
    }


def _nodules(facts: Facts) -> dict[str, Control]:
    none = "" if facts.rows else _("There are no nodules yet.")
    busy = busyText() if facts.state is State.GENERATING else ""
    noRow = none or ("" if facts.selected else _("Select a nodule in the table first."))
    return {
        "acceptButton": _usable(_("Mark the nodule as reviewed and go on to the next one (A)."), noRow),
        "flagButton": _usable(
            _("Take the flag away.") if facts.flagged else _("Flag the nodule, to look at it again later."), noRow
        ),
        "rejectButton": _usable(_("Delete the nodule and go on to the next one (X). Undo brings it back."), noRow),
        "previousButton": _usable(_("Previous nodule (Q)."), none),
        "nextButton": _usable(_("Next nodule (W)."), none),
        "copyButton": _usable(_("Copy the table, to paste it into a spreadsheet or a report."), none),
        "importButton": _usable(
            _("Each point, segment or label of the chosen node becomes a nodule."), whyNoClick(facts)
        ),
        "importFileButton": _usable(
            _("Points of a file become nodules: .mrk.json, .fcsv, .acsv, CSV with r,a,s or l,p,s, LIDC-IDRI's XML."),
            whyNoClick(facts),
        ),
        "exportPointsButton": _usable(
            _("Make a point list with one named point in each nodule (each selected one, where several are)."), none
        ),
        "exportLabelsButton": _usable(
            _("Make a label map with all nodules (the selected ones, where several are): 1, 2, ... as in the list."),
            none,
        ),
        "exportCropsButton": _usable(
            _(
                "Write image and mask of each nodule (each selected one, where several are) with 15 mm around it as "
                "NIfTI files, into a new folder where you choose."
            ),
            none or busy,
        ),
        "lungsButton": _usable(
            _(
                "Make a segmentation of what the search for all nodules takes as lung. It never counts as a "
                "nodule, and it is hidden with its CT."
            ),
            whyNoClick(facts) or busy,
        ),
        "saveButton": _usable(_("Save the table as a CSV file."), none),
        "show3dButton": _usable(_("Show the nodules in the 3D view. It follows every change."), none),
    }


class ViewWriter:
    """Writes what has changed since the last time, so that nothing flickers while a point is being dragged.

    Slicer rewrites tool tips (it lets long ones wrap), so what a widget says is not compared with what was written.
    """

    def __init__(self, ui: Any) -> None:
        """``ui``: an object with the widgets as attributes."""
        self._ui = ui
        self._written: dict[str, Control] = {}

    def apply(self, controls: Mapping[str, Control]) -> None:
        """Raises AttributeError for a name that the .ui file lacks."""
        for name, control in controls.items():
            widget = getattr(self._ui, name)
            before = self._written.get(name, Control(enabled=not control.enabled))
            self._written[name] = control
            if control.text is not None and control.text != before.text:
                widget.text = control.text
            if control.toolTip is not None and control.toolTip != before.toolTip:
                widget.toolTip = control.toolTip
            if control.visible is not None and control.visible != before.visible:
                widget.setVisible(control.visible)
            if control.checked is not None and widget.checked != control.checked:  # the user's click has changed it
                widget.checked = control.checked
            if control.enabled != before.enabled:
                widget.enabled = control.enabled
