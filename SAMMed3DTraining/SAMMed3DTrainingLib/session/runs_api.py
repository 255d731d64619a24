"""The session's access to the package ``runs``: child processes of this application's own Python."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from ..options import ACCUMULATION_STEPS, BATCH_SIZE
from ..runs.child_process import Interpreter, TrainingProcess, find_interpreter
from ..runs.job_process import JobProcess, start_estimate, start_job
from ..runs.packages_check import PackageState, check_packages
from ..runs.run_history import RunHistory
from ..runs.run_monitor import RunMonitor
from ..runs.run_request import TrainingRequest, free_name, start_training


@dataclass(frozen=True)
class TrainingSettings:
    """The user's choices; None takes the preset's value.

    Attributes:
        workDir: where runs keep their folders.
        runName: of the next run; it gets a free name made of this.
        checkpoint: weights to start from; None: the bundled model.
        gpus: numbers of the GPUs; with several, one process runs on each.
    """

    workDir: Path
    runName: str = "nodules"
    checkpoint: Path | None = None
    preset: str = "5min"
    epochs: int | None = None
    batchSize: int = BATCH_SIZE
    accumulationSteps: int = ACCUMULATION_STEPS
    learningRate: float | None = None
    device: str = "auto"
    gpus: tuple[int, ...] = ()


class Runs:
    """Starts and finds runs and other commands of the training package."""

    def __init__(self) -> None:
        self._histories: dict[Path, RunHistory] = {}

    @cached_property
    def interpreter(self) -> Interpreter:
        """The Python that starts them, found when first needed."""
        return find_interpreter()

    def request(self, settings: TrainingSettings, data: tuple[Path, ...]) -> TrainingRequest:
        """Makes a checked request with a free name. Raises RunError."""
        request = TrainingRequest(
            work_dir=settings.workDir,
            task_name=free_name(settings.workDir, settings.runName),
            data=data,
            checkpoint=settings.checkpoint,
            preset=cast(Any, settings.preset),
            num_epochs=settings.epochs,
            batch_size=settings.batchSize,
            accumulation_steps=settings.accumulationSteps,
            lr=settings.learningRate,
            device=settings.device,
            gpu_ids=settings.gpus,
        )
        request.check()
        return request

    def continuation(self, folder: Path) -> TrainingRequest:
        """Makes the request that continues a run. Raises RunError."""
        return TrainingRequest.of_run(folder)

    def start(self, request: TrainingRequest) -> TrainingProcess:
        """Starts a training process. Raises RunError."""
        return start_training(request, self.interpreter)

    def estimate(self, request: TrainingRequest, log: Path) -> JobProcess:
        """Starts the job that estimates a run's cost. Raises RunError."""
        return start_estimate(request, self.interpreter, log)

    def monitor(self, folder: Path, process: TrainingProcess | None) -> RunMonitor:
        """Makes the monitor of a run; without a process it finds the run on the disk."""
        return RunMonitor(folder, process)

    def job(self, command: str, arguments: list[str], folder: Path) -> JobProcess:
        """Starts another command of the training package. Raises RunError."""
        return start_job(self.interpreter, command, arguments, folder)

    def history(self, workDir: Path) -> RunHistory:
        """Returns the history of a folder; one object for each folder, which caches what it has read."""
        if workDir not in self._histories:
            self._histories[workDir] = RunHistory(workDir)
        return self._histories[workDir]

    def packages(self) -> PackageState:
        """Checks which packages are missing."""
        return check_packages()
