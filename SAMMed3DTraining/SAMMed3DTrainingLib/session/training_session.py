"""The session: the one object behind the panel, the logic facade and the self-test."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SAMMed3DLib.signal import Signal

from .compare_part import ComparePart
from .data_part import DataPart
from .job_slot import JobSlot
from .next_part import NextPart
from .runs_api import Runs
from .states import JobKind, TrainingState, stateOf
from .train_part import TrainPart

if TYPE_CHECKING:
    from ..scene.training_source import TrainingSource

#: Polling intervals while a thread computes, while there are child processes only, and while nothing runs (0: none).
FAST_SECONDS, SLOW_SECONDS, IDLE_SECONDS = 0.005, 0.2, 0.0


class TrainingSession:
    """The four parts (data, run, comparison, next case) with what they share.

    Args:
        source: the scene.
        runs: the training package's commands.
        adopt: copies weights into the list of models, on the thread: (file, name) -> ModelEntry.

    Attributes (signals):
        changed: the state, the job or its progress.
        paceChanged: (seconds) how often :meth:`poll` is to be called; 0: there is nothing to wait for.
    """

    def __init__(self, source: TrainingSource, runs: Runs, adopt: Callable[[Path, str], Any]) -> None:
        self.changed, self.paceChanged = Signal(), Signal()
        self._runs = runs
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._pace = IDLE_SECONDS
        self._news: tuple[str, float | None] = ("", None)
        self.packages: Any | None = None
        self.job = JobSlot()
        self.data = DataPart(source, runs, self.job, self.temporaryFolder)
        self.train = TrainPart(runs, self.job, self.temporaryFolder)
        self.compare = ComparePart(runs, self.job, adopt)
        self.next = NextPart(source, runs, self.job, self.temporaryFolder)
        self.job.changed.connect(self._onChanged)
        self.train.changed.connect(self._onChanged)
        self.train.ended.connect(self._onEnded)
        self.train.started.connect(self.compare.refresh)

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> TrainingState:
        missing = self.packages is not None and bool(self.packages.missing)
        return stateOf(missing, self.train.runState, bool(self.data.trainingData))

    def checkPackages(self) -> None:
        """Checks whether everything that training needs is installed, without importing it."""
        self.packages = self._runs.packages()
        self.changed.emit()

    def attachToRunning(self) -> str:
        """Watches the first running run of the folder; returns its name, or ""."""
        if self.train.isRunning or not self.compare.running:
            return ""
        record = next(run for run in self.compare.runs if run.is_running)
        self.compare.select(record.name)
        self.train.attach(Path(record.folder))
        return str(record.name)

    # -- time ----------------------------------------------------------------------------------------------------------

    def poll(self, timeout: float = FAST_SECONDS) -> float:
        """Handles what has happened, waiting up to ``timeout`` seconds for the thread. Returns the pace."""
        self.job.poll(timeout if self.job.usesThread else 0.0)
        self.train.poll()
        status = self.train.status
        news = (self.train.runState, None if status is None else status.best_dice)
        if news != self._news:
            self._news = news
            self.compare.refresh()
        self._onChanged()
        return self._pace

    def waitUntilIdle(self, seconds: float, events: Callable[[], None] = lambda: None, run: bool = False) -> bool:
        """Polls until no job is running and, with ``run``, the training run is over; for scripts and tests."""
        end = time.monotonic() + seconds
        while self.job.isBusy or (run and self.train.isRunning):
            if time.monotonic() > end:
                return False
            pace = self.poll()
            events()
            if pace != FAST_SECONDS:
                time.sleep(0.02)
        return True

    # -- life ----------------------------------------------------------------------------------------------------------

    def temporaryFolder(self) -> Path:
        """Makes a folder for logs and volumes of a job, inside one that is removed with the session."""
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="sammed3d-training-", ignore_cleanup_errors=True)
        return Path(tempfile.mkdtemp(dir=self._temporary.name))

    def suspend(self) -> None:
        """Drops all nodes, since the scene closes. A run goes on."""
        if self.job.kind in (JobKind.EXPORT, JobKind.RANK, JobKind.LOAD):
            self.job.cancel()
        self.data.clear()
        self.compare.forgetImages()

    def close(self, seconds: float) -> None:
        """Ends all jobs; a training run goes on by itself."""
        self.job.close(seconds)
        self.train.detach()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    # -- within --------------------------------------------------------------------------------------------------------

    def _onEnded(self, status: Any) -> None:
        self.compare.refresh()
        self.compare.select(self.train.name)

    def _onChanged(self, *__: Any) -> None:
        pace = FAST_SECONDS if self.job.usesThread else IDLE_SECONDS
        if not pace and (self.job.isBusy or self.train.isRunning):
            pace = SLOW_SECONDS
        if pace != self._pace:
            self._pace = pace
            self.paceChanged.emit(pace)
        self.changed.emit()


__all__ = ["JobKind", "TrainingState", "TrainingSession"]
