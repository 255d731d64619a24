"""The session's access to the package ``runs``: child processes of this application's own Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from ..runs.child_process import find_interpreter
from ..runs.job_process import start_estimate, start_job
from ..runs.packages_check import check_packages
from ..runs.run_history import RunHistory
from ..runs.run_monitor import RunMonitor
from ..runs.run_request import TrainingRequest, free_name, start_training
from .train_part import TrainingSettings


class Runs:
    """Starts and finds runs and other commands of the training package.

    Args:
        interpreter: finds the Python to start them with; called once, when first needed.
    """

    def __init__(self, interpreter: Callable[[], Any] | None = None) -> None:
        self._find = interpreter
        self._interpreter: Any | None = None
        self._histories: dict[Path, Any] = {}

    @property
    def interpreter(self) -> Any:
        if self._interpreter is None:
            self._interpreter = (self._find or find_interpreter)()
        return self._interpreter

    def request(self, settings: TrainingSettings, data: tuple[Path, ...]) -> Any:
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

    def continuation(self, folder: Path) -> Any:
        """Makes the request that continues a run. Raises RunError."""
        return TrainingRequest.of_run(folder)

    def start(self, request: Any) -> Any:
        """Starts a training process. Raises RunError."""
        return start_training(request, self.interpreter)

    def estimate(self, request: Any, log: Path) -> Any:
        """Starts the job that estimates a run's cost. Raises RunError."""
        return start_estimate(request, self.interpreter, log)

    def monitor(self, folder: Path, process: Any | None) -> Any:
        """Makes the monitor of a run; without a process it finds the run on the disk."""
        return RunMonitor(folder, process)

    def job(self, command: str, arguments: list[str], folder: Path) -> Any:
        """Starts another command of the training package. Raises RunError."""
        return start_job(self.interpreter, command, arguments, folder)

    def history(self, workDir: Path) -> Any:
        """Returns the history of a folder; one object for each folder, which caches what it has read."""
        if workDir not in self._histories:
            self._histories[workDir] = RunHistory(workDir)
        return self._histories[workDir]

    def packages(self) -> Any:
        """Checks which packages are missing."""
        return check_packages()
