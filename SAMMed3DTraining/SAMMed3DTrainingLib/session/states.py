"""The session's states, and the function that decides which one holds."""

from __future__ import annotations

import enum


class JobKind(enum.Enum):
    """Kinds of work that take seconds or minutes; one at a time."""

    CHECK = "check"
    EXPORT = "export"
    ESTIMATE = "estimate"
    COMPARE = "compare"
    LOAD = "load"
    ADOPT = "adopt"
    RANK = "rank"


class TrainingState(enum.Enum):
    """The present activity of the module."""

    NO_PACKAGES = "no packages"
    """Python packages that training needs are not installed."""
    NO_DATA = "no data"
    """There is no case to train on yet."""
    READY = "ready"
    """A run can start."""
    STARTING = "starting"
    """The child process reads its data and its weights."""
    ENCODING = "encoding"
    """Embeddings are computed before the first step."""
    TRAINING = "training"
    PAUSED = "paused"
    STOPPING = "stopping"
    """Stop was asked for; the step under way ends and everything is saved."""

    @property
    def isRunning(self) -> bool:
        """Whether a training process lives."""
        return self in _OF_RUN.values()


_OF_RUN = {
    "starting": TrainingState.STARTING,
    "encoding": TrainingState.ENCODING,
    "running": TrainingState.TRAINING,
    "paused": TrainingState.PAUSED,
    "stopping": TrainingState.STOPPING,
}


def stateOf(packagesMissing: bool = False, runState: str = "", hasData: bool = False) -> TrainingState:
    """Decides the state: a running run comes first, then what is missing.

    Args:
        packagesMissing: whether a package that training needs is missing.
        runState: of the run that is watched, as runs.run_monitor names it; "" without one.
        hasData: whether there is a case to train on.
    """
    if runState in _OF_RUN:
        return _OF_RUN[runState]
    if packagesMissing:
        return TrainingState.NO_PACKAGES
    return TrainingState.READY if hasData else TrainingState.NO_DATA
