"""Starts, watches and ends training runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from SAMMed3DLib.signal import Signal

from ..runs.child_process import TrainingProcess
from ..runs.run_monitor import RunMonitor, RunStatus
from ..runs.run_request import TrainingRequest
from .job_slot import JobOutcome, JobSlot, SessionPart
from .runs_api import Runs, TrainingSettings
from .states import JobKind

ESTIMATE_LOG = "estimate.log"


class TrainPart(SessionPart):
    """The training run: the second section of the panel.

    Attributes (signals):
        changed: the run, its curves or the estimate.
        started: (request) a run began, or one was found on the disk.
        ended: (status) the run that was watched is over.
    """

    def __init__(self, runs: Runs, job: JobSlot, temporaryFolder: Callable[[], Path]) -> None:
        super().__init__()
        self.started, self.ended = Signal(), Signal()
        self._runs, self._job, self._temporaryFolder = runs, job, temporaryFolder
        self.settings: TrainingSettings | None = None
        self.data: tuple[Path, ...] = ()
        self.estimateResult: dict[str, Any] | None = None
        self.folder: Path | None = None
        self.status: RunStatus | None = None
        self._estimated: Any = None
        self._monitor: RunMonitor | None = None
        self._ended = False

    # -- what is there -----------------------------------------------------------------------------------------------

    @property
    def isRunning(self) -> bool:
        """Whether a run is watched that is not over, or whose last events have not all been read yet."""
        return self._monitor is not None and not self._ended

    @property
    def runState(self) -> str:
        """State of the run, as runs.run_monitor names it; "" where no run is watched."""
        if self._monitor is None:
            return ""
        return "starting" if self.status is None else self.status.state

    @property
    def name(self) -> str:
        return "" if self.folder is None else self.folder.name

    def setSettings(self, settings: TrainingSettings, data: tuple[Path, ...]) -> None:
        """Sets what the next run will be like; an estimate for other settings is dropped."""
        if (settings, data) == (self.settings, self.data):
            return
        self.settings, self.data = settings, data
        if self._estimated is not None and self._estimated != self._costs():
            self.estimateResult = self._estimated = None
        self.error = ""
        self.changed.emit()

    def _costs(self) -> tuple[Any, ...]:
        assert self.settings is not None
        s = self.settings
        return (s.checkpoint, s.preset, s.epochs, s.batchSize, s.accumulationSteps, s.device, s.gpus, self.data)

    # -- what the user does ------------------------------------------------------------------------------------------

    def estimate(self) -> None:
        """Estimates time, memory and disk space by some steps in a child process."""
        assert self.settings is not None
        request = self._request()
        if request is None:
            return
        log = self._temporaryFolder() / ESTIMATE_LOG
        process = self._tried(lambda: self._runs.estimate(request, log))
        if process is None:
            return
        costs = self._costs()

        def finished(outcome: JobOutcome) -> None:
            self.estimateResult = outcome.value if not outcome.error and not outcome.cancelled else None
            self._estimated = costs if self.estimateResult else None
            self._say(outcome.error)

        self._job.runProcess(JobKind.ESTIMATE, process, finished)

    def start(self) -> None:
        """Starts a new run with the present settings."""
        request = self._request()
        if request is not None:
            self._start(request)

    def startSmaller(self) -> None:
        """Starts the run that ran out of GPU memory again, with half the batch and twice the accumulation."""
        if self.status is not None and self.status.suggestion is not None:
            self._start(self.status.suggestion)

    def resumeFrom(self, folder: Path) -> None:
        """Continues a run that was stopped or killed, exactly where it was saved."""
        request = self._tried(lambda: self._runs.continuation(folder))
        if request is not None:
            self._start(request)

    def attach(self, folder: Path) -> None:
        """Watches a run that was started earlier."""
        self._watch(folder, None)

    def pause(self) -> None:
        self._command("pause")

    def resume(self) -> None:
        self._command("resume")

    def stop(self) -> None:
        """Ends the run after the present step; everything is saved."""
        self._command("stop")

    def kill(self) -> None:
        """Kills the whole process tree at once; the last saved state stays."""
        self._command("kill")

    def detach(self) -> None:
        """Lets the run go on by itself."""
        self._monitor = self.status = None
        self.changed.emit()

    def poll(self) -> None:
        """Reads what the run wrote since the last time."""
        if self._monitor is None or self._ended:
            return
        before, self.status = self.status, self._monitor.poll()
        if self.status != before:
            self.changed.emit()
        if self.status.is_over and self.status.caught_up:
            self._ended = True
            self.ended.emit(self.status)

    # -- within ------------------------------------------------------------------------------------------------------

    def _request(self) -> TrainingRequest | None:
        settings = self.settings
        assert settings is not None
        return self._tried(lambda: self._runs.request(settings, self.data))

    def _start(self, request: TrainingRequest) -> None:
        process = self._tried(lambda: self._runs.start(request))
        if process is not None:
            self.error = ""
            self._watch(request.folder, process)

    def _watch(self, folder: Path, process: TrainingProcess | None) -> None:
        self.folder, self.status, self._ended = folder, None, False
        self._monitor = self._runs.monitor(folder, process)
        self.started.emit()
        self.changed.emit()

    def _command(self, name: str) -> None:
        if self._monitor is None:
            return
        self._tried(getattr(self._monitor, name))
        self.changed.emit()


def gpuNumbers(text: str) -> tuple[int, ...]:
    """Parses "0, 1" to (0, 1); one GPU or none gives (), since that is not several."""
    numbers = tuple(dict.fromkeys(int(each) for each in re.findall(r"\d+", text)))
    return numbers if len(numbers) > 1 else ()
