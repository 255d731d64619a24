"""Stand-in for the package ``runs``: processes that do what the test tells them. Values are those of the real one."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Any

from SAMMed3DTrainingLib.runs.job_process import JobStatus
from SAMMed3DTrainingLib.runs.packages_check import PackageState
from SAMMed3DTrainingLib.runs.run_files import RunError
from SAMMed3DTrainingLib.runs.run_history import RunRecord
from SAMMed3DTrainingLib.runs.run_monitor import Curves, RunStatus
from SAMMed3DTrainingLib.runs.run_request import TrainingRequest, free_name


class FakeJob:
    """A child process that prints JSON; the test sets ``status``."""

    def __init__(self, command: str, arguments: list[str]) -> None:
        self.command, self.arguments = command, arguments
        self.status = JobStatus()
        self.killed = False

    def poll(self) -> JobStatus:
        return self.status

    def cancel(self) -> None:
        self.status = dataclasses.replace(self.status, state="cancelled")

    def kill(self) -> None:
        self.killed = True

    def done(self, **result: Any) -> None:
        """It ends with this result."""
        self.status = JobStatus("done", result=result)

    def failed(self, message: str) -> None:
        self.status = JobStatus("failed", message=message, kind="other")


class FakeMonitor:
    """Watches a run that is nowhere; the test sets its status with :meth:`set`."""

    def __init__(self, folder: Path, process: Any | None) -> None:
        self.folder, self.process = folder, process
        self.status = RunStatus()
        self.commands: list[str] = []

    def poll(self) -> RunStatus:
        return self.status

    def set(self, state: str, **values: Any) -> None:
        self.status = dataclasses.replace(self.status, state=state, **values)

    def pause(self) -> None:
        self.commands.append("pause")

    def resume(self) -> None:
        self.commands.append("resume")

    def stop(self) -> None:
        self.commands.append("stop")

    def kill(self) -> None:
        self.commands.append("kill")


class FakeHistory:
    """Runs that are nowhere."""

    def __init__(self) -> None:
        self.records: list[RunRecord] = []

    def runs(self) -> list[RunRecord]:
        return list(self.records)

    def rename(self, name: str, new: str) -> Path:
        if any(record.name == new for record in self.records):
            raise RunError(f"There is a run {new} already.")
        self.records = [dataclasses.replace(r, name=new) if r.name == name else r for r in self.records]
        return Path(new)

    def delete(self, name: str) -> int:
        self.records = [record for record in self.records if record.name != name]
        return 1000


class FakeRuns:
    """What session.runs_api.Runs is in the application."""

    def __init__(self) -> None:
        self.requests: list[TrainingRequest] = []
        self.jobs: list[FakeJob] = []
        self.monitors: list[FakeMonitor] = []
        self.records = FakeHistory()
        self.missing: tuple[Any, ...] = ()
        self.refusal = ""

    @property
    def monitor_(self) -> FakeMonitor:
        """Of the run that was watched last."""
        return self.monitors[-1]

    def request(self, settings: Any, data: tuple[Path, ...]) -> TrainingRequest:
        if self.refusal:
            raise RunError(self.refusal)
        return TrainingRequest(
            settings.workDir,
            free_name(settings.workDir, settings.runName),
            data,
            settings.checkpoint,
            settings.preset,
            settings.epochs,
            settings.batchSize,
            settings.accumulationSteps,
            settings.learningRate,
            settings.device,
            settings.gpus,
        )

    def continuation(self, folder: Path) -> TrainingRequest:
        return TrainingRequest(folder.parent, folder.name, (), resume=True)

    def start(self, request: TrainingRequest) -> object:
        self.requests.append(request)
        return object()

    def estimate(self, request: TrainingRequest, log: Path) -> FakeJob:
        self.requests.append(request)
        return self.job("estimate", [], log.parent)

    def monitor(self, folder: Path, process: Any | None) -> FakeMonitor:
        self.monitors.append(FakeMonitor(folder, process))
        return self.monitors[-1]

    def job(self, command: str, arguments: list[str], folder: Path) -> FakeJob:
        self.jobs.append(FakeJob(command, arguments))
        return self.jobs[-1]

    def history(self, workDir: Path) -> FakeHistory:
        return self.records

    def packages(self) -> PackageState:
        return PackageState(self.missing)

    def add_run(self, name: str, folder: Path, **values: Any) -> RunRecord:
        """A run in the history, finished unless said otherwise."""
        standard: dict[str, Any] = {
            "state": "finished",
            "started": datetime(2026, 11, 23, 12, 0),
            "ended": datetime(2026, 11, 23, 12, 30),
            "config": {"preset": "quick", "num_epochs": 20, "batch_size": 4, "lr": 2e-4},
            "best_dice": 0.81,
            "nodules": 12,
            "cases": 5,
            "size_bytes": 40_000_000,
            "weights": folder / name / "sam_model_dice_best.pth",
            "resumable": False,
            "message": "",
            "checkpoint": None,
        }
        record = RunRecord(name=name, folder=folder / name, **{**standard, **values})
        self.records.records.insert(0, record)
        return record


def curves(steps: int) -> Curves:
    """Curves of a run with that many steps."""
    return Curves(
        steps=list(range(1, steps + 1)),
        loss=[1.0 / n for n in range(1, steps + 1)],
        dice_first=[0.5] * steps,
        dice_last=[0.6] * steps,
        val_steps=[0, steps],
        val_epochs=[0, 1],
        val_loss=[1.0, 0.5],
        val_dice=[(0.5,), (0.7,)],
        val_mean_dice=[0.5, 0.7],
        val_best=[True, True],
        revision=steps,
    )
