"""Functions for scripts, without the panel: export, train and adopt; each waits until it is done.

In the application the event loop runs meanwhile, so that Slicer stays alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import slicer

from .job_slot import JobOutcome, JobSlot
from .runs_api import Runs, TrainingSettings
from .states import JobKind

_POLL_SECONDS, _WAIT_SECONDS, _CLOSE_SECONDS = 0.2, 0.005, 60.0


def exportScene(folder: str | Path, acceptedOnly: bool = True) -> list[Any]:
    """Writes every case of the scene that is new or changed into a data set.

    Args:
        folder: made if need be; it may hold a data set already.
        acceptedOnly: nodules that nobody has reviewed stay out.

    Returns:
        One result for each case, with its name, state and message (store.stepwise_export.ExportResult).

    Raises:
        StoreError: the folder cannot take any case.
    """
    from ..scene.training_source import TrainingSource

    source = TrainingSource()
    rows = [row for row in source.rows(Path(folder), acceptedOnly, {}) if row.included]
    export = source.export(rows, Path(folder), acceptedOnly)
    job = JobSlot()
    outcomes: list[JobOutcome] = []
    try:
        job.runSteps(JobKind.EXPORT, export.steps(), outcomes.append, parts=len(export.cases))
        while job.poll(_WAIT_SECONDS):
            slicer.app.processEvents()
    finally:
        job.close(_CLOSE_SECONDS)
    return list(outcomes[0].value)


def train(
    data: Sequence[str | Path],
    workDir: str | Path,
    name: str,
    progress: Callable[[Any], None] | None = None,
    runs: Any = None,
    **options: Any,
) -> Path:
    """Trains in a child process and waits for its end.

    Args:
        data: data sets, or folders that hold several.
        workDir: where runs keep their folders.
        name: of the run; a number is added where it is taken.
        progress: called with the run's status (runs.run_monitor.RunStatus) five times a second.
        options: further fields of :class:`~.runs_api.TrainingSettings`, such as ``preset="15min"``, ``epochs=10``.

    Returns:
        The run's folder.

    Raises:
        RunError: it cannot start, or it failed; the message says why.
    """
    from ..runs.run_files import RunError

    runs = Runs() if runs is None else runs
    request = runs.request(TrainingSettings(Path(workDir), name, **options), tuple(Path(each) for each in data))
    monitor = runs.monitor(request.folder, runs.start(request))
    while not (status := monitor.poll()).is_over:
        if progress is not None:
            progress(status)
        slicer.app.processEvents()
        time.sleep(_POLL_SECONDS)
    if status.state in ("failed", "killed"):
        raise RunError(status.message or f"The run {request.task_name} was ended from outside.")
    return Path(request.folder)


def adopt(run: str | Path, models: Any, use: bool = True) -> str:
    """Puts a run's best weights into the list of models of the SAMMed3D module.

    Args:
        run: the run's folder.
        models: the list, as :class:`~..gui.segmentation_module.SegmentationModule` has it.
        use: make it the model that the module uses.

    Returns:
        The model's name in that list.

    Raises:
        RunError: the run has no weights.
        WeightsError: they cannot be read or copied.
    """
    from ..runs.run_files import RunError
    from ..runs.run_history import RunHistory

    folder = Path(run)
    record = next((each for each in RunHistory(folder.parent).runs() if each.name == folder.name), None)
    if record is None or record.weights is None:
        raise RunError(f"{folder} holds no run with weights.")
    entry = models.adopt(record.weights, record.name)
    if use:
        models.use(entry.name)
    return str(entry.name)
