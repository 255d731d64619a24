"""The session's states: one function decides which one is current, one describes it in words."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..translation import tr as _


class State(enum.Enum):
    """States of the session."""

    NO_TORCH = "no torch"
    """PyTorch is not installed."""
    NO_WEIGHTS = "no weights"
    """No checkpoint is chosen, or its file is not there."""
    NO_VOLUME = "no volume"
    """No volume is selected."""
    LOADING = "loading"
    """The model or the volume is on its way to the worker; clicks are taken and answered afterwards."""
    READY = "ready"
    """Click."""
    PREDICTING = "predicting"
    """Clicks are being answered; further ones are taken."""
    GENERATING = "generating"
    """*Segment all* or another long job is running; clicks are taken, Cancel keeps what was found."""
    ERROR = "error"
    """The model or the volume cannot be used; the text says why."""

    @property
    def takesClicks(self) -> bool:
        """Whether a click makes sense."""
        return self in (State.LOADING, State.READY, State.PREDICTING, State.GENERATING)

    @property
    def isWorking(self) -> bool:
        """Whether the worker is doing something that the user waits for."""
        return self in (State.LOADING, State.PREDICTING, State.GENERATING)


@dataclass(frozen=True)
class SessionFacts:
    """The facts that decide the state; ``job`` names another long job that is running."""

    hasTorch: bool = False
    hasWeights: bool = False
    hasVolume: bool = False
    error: str = ""
    isGenerating: bool = False
    isLoading: bool = False
    isPredicting: bool = False
    job: str = ""


def stateOf(facts: SessionFacts) -> State:
    """Returns the current state: the first thing that is missing, else the longest work that is going on."""
    if not facts.hasTorch:
        return State.NO_TORCH
    if not facts.hasWeights:
        return State.NO_WEIGHTS
    if facts.error:
        return State.ERROR
    if not facts.hasVolume:
        return State.NO_VOLUME
    if facts.isGenerating or facts.job:
        return State.GENERATING
    if facts.isLoading:
        return State.LOADING
    return State.PREDICTING if facts.isPredicting else State.READY


def textOf(state: State, facts: SessionFacts) -> str:
    """Describes the state in a sentence for the user."""
    if state is State.ERROR:
        return facts.error
    return {
        State.NO_TORCH: _("PyTorch is not installed yet: install it in the Model section."),
        State.NO_WEIGHTS: _("No model is chosen: pick one in the Model section."),
        State.NO_VOLUME: _("Select a CT volume."),
        State.LOADING: _("Getting ready..."),
        State.READY: _("Ready: click a nodule in a slice view."),
        State.PREDICTING: _("Segmenting..."),
        State.GENERATING: facts.job or _("Looking for nodules..."),
    }[state]


def busyText() -> str:
    """Tells the user why something cannot begin while a search or another long job is running."""
    return _("Wait for what is running, or cancel it.")
