"""An export that a test polls, as a panel's timer does."""

from __future__ import annotations

from SAMMed3DTrainingLib.session.job_slot import JobOutcome, JobSlot
from SAMMed3DTrainingLib.session.states import JobKind
from SAMMed3DTrainingLib.store.stepwise_export import ExportResult, StepwiseExport


class RunningExport:
    """Begins at once: the first piece is read.

    Attributes:
        job: the slot that it is in.
        outcome: None until it has ended.
    """

    def __init__(self, export: StepwiseExport) -> None:
        self.job = JobSlot()
        self.outcome: JobOutcome | None = None
        self.job.runSteps(JobKind.EXPORT, export.steps(), self._end, parts=len(export.cases))

    def _end(self, outcome: JobOutcome) -> None:
        self.outcome = outcome

    @property
    def writes(self) -> bool:
        """Whether a case is with the worker thread."""
        return self.job._client.isBusy

    @property
    def results(self) -> tuple[ExportResult, ...]:
        assert self.outcome is not None and self.outcome.error == ""
        return self.outcome.value

    def poll(self, wait: float = 0.05) -> bool:
        return self.job.poll(wait)

    def finish(self) -> tuple[ExportResult, ...]:
        """Polls until the end."""
        while self.poll():
            pass
        self.job.close(20)
        return self.results


def run_export(export: StepwiseExport) -> tuple[ExportResult, ...]:
    """What became of every case."""
    return RunningExport(export).finish()
