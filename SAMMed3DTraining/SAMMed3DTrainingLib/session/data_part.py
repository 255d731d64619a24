"""The training data: cases of the scene to be written into a data set, and existing data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .job_slot import JobOutcome, JobSlot, SessionPart
from .runs_api import Runs
from .states import JobKind

if TYPE_CHECKING:
    from ..scene.training_source import TrainingSource


@dataclass(frozen=True)
class DatasetEntry:
    """An existing data set in the list.

    Attributes:
        used: whether the next run trains on it.
        cases: how many it has; None while that is not known.
        problems: results of the check, one sentence each; None before the check.
    """

    folder: Path
    used: bool = True
    cases: int | None = None
    nodules: int | None = None
    problems: tuple[str, ...] | None = None


class DataPart(SessionPart):
    """The table of the scene's cases and the list of data sets: the first section of the panel.

    Attributes (signals):
        changed: rows, ticks, folder or data sets.
    """

    def __init__(self, source: TrainingSource, runs: Runs, job: JobSlot, temporaryFolder: Callable[[], Path]) -> None:
        super().__init__()
        self._source, self._runs, self._job, self._temporaryFolder = source, runs, job, temporaryFolder
        self.rows: tuple[Any, ...] = ()
        self.folder: Path | None = None
        self.acceptedOnly = True
        self.datasets: tuple[DatasetEntry, ...] = ()
        self.written, self.folderProblem = 0, ""
        self._ticks: dict[Hashable, bool] = {}
        self._names: dict[str, str] = {}

    # -- the table -----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Reads scene and folder again; cheap."""
        self.written, self.folderProblem = 0, ""
        try:
            if self.folder is not None:
                self.folderProblem = self._source.folderProblem(self.folder)
                self.written = self._source.caseCount(self.folder)
            self.rows = tuple(self._source.rows(self.folder, self.acceptedOnly, self._names))
        except (ValueError, OSError, RuntimeError) as error:
            self.folderProblem = str(error)
            self.rows = tuple(self._source.rows(None, self.acceptedOnly, self._names))
        self.changed.emit()

    def clear(self) -> None:
        """Drops all rows, since the scene closes and no node may be touched any more."""
        self.rows = ()
        self.changed.emit()

    def isIncluded(self, row: Any) -> bool:
        """Whether a row is ticked; rows that cannot be written never are."""
        return bool(row.included) and self._ticks.get(row.key, True) if row.state != "problem" else False

    def setIncluded(self, index: int, included: bool) -> None:
        self._ticks[self.rows[index].key] = included
        self.changed.emit()

    def rename(self, index: int, name: str) -> None:
        """Renames a case that is to be written; the name is made safe for every file system."""
        node = self.rows[index].volumeNode
        if node is not None and name.strip():
            self._names[node.GetID()] = name.strip()
        self.refresh()

    @property
    def toWrite(self) -> tuple[Any, ...]:
        """Returns the rows that Export writes: ticked, and new or changed."""
        return tuple(row for row in self.rows if self.isIncluded(row) and row.state != "unchanged")

    def setFolder(self, folder: Path | None) -> None:
        if folder != self.folder:
            self.folder = folder
            self.refresh()

    def setAcceptedOnly(self, on: bool) -> None:
        if on != self.acceptedOnly:
            self.acceptedOnly = on
            self.refresh()

    # -- what to train on ----------------------------------------------------------------------------------------------

    @property
    def trainingData(self) -> tuple[Path, ...]:
        """Returns the folders that the next run reads."""
        own = (self.folder,) if self.folder is not None and self.written else ()
        return (*own, *(entry.folder for entry in self.datasets if entry.used and entry.folder != self.folder))

    def addDataset(self, folder: Path, check: bool = True) -> None:
        """Adds a data set, or a folder that holds several; a child process checks it."""
        if all(entry.folder != folder for entry in self.datasets):
            self.datasets = (*self.datasets, DatasetEntry(folder))
            self.changed.emit()
        if check and not self._job.isBusy:
            self.checkDataset(folder)

    def removeDataset(self, index: int) -> None:
        """Takes a data set off the list; its files stay."""
        self.datasets = self.datasets[:index] + self.datasets[index + 1 :]
        self.changed.emit()

    def useDataset(self, index: int, used: bool) -> None:
        entries = list(self.datasets)
        entries[index] = replace(entries[index], used=used)
        self.datasets = tuple(entries)
        self.changed.emit()

    def checkDataset(self, folder: Path) -> None:
        """Reads every case in a child process and lists what is wrong."""
        process = self._tried(lambda: self._runs.job("check", [str(folder)], self._temporaryFolder()))
        if process is None:
            return

        def finished(outcome: JobOutcome) -> None:
            if outcome.value is not None:
                result = outcome.value
                problems = tuple(_problem(each) for each in result.get("problems", ()))
                self.datasets = tuple(
                    replace(entry, cases=result.get("cases"), nodules=result.get("nodules"), problems=problems)
                    if entry.folder == folder
                    else entry
                    for entry in self.datasets
                )
            self._say(error=outcome.error)

        self._job.runProcess(JobKind.CHECK, process, finished)

    # -- writing -------------------------------------------------------------------------------------------------------

    def export(self) -> None:
        """Writes the ticked cases that are new or changed, one after the other, on a thread."""
        folder = self.folder
        if folder is not None and self.toWrite:
            self._write(lambda: self._source.export(self.toWrite, folder, self.acceptedOnly))

    def importFiles(self, folder: Path) -> None:
        """Writes the pairs of image and label files of a folder into the data set, on a thread."""
        target = self.folder
        if target is not None:
            self._write(lambda: self._source.importFiles(folder, target))

    def _write(self, plan: Callable[[], Any]) -> None:
        folder = self.folder
        assert folder is not None
        export = self._tried(plan)
        if export is None:
            return

        def finished(outcome: JobOutcome) -> None:
            self.refresh()
            results = outcome.value or ()
            failed = [f"{each.name}: {each.message}" for each in results if each.state == "failed"]
            done = [each for each in results if each.state in ("added", "updated", "unchanged")]
            self._say(
                error="\n".join([*failed, *filter(None, [outcome.error])]),
                notice=self.exported(len(done), folder) if done else "",
            )

        self._job.runSteps(JobKind.EXPORT, export.steps(), finished, parts=len(export.cases))

    #: Makes the status line from number of cases and folder; the panel sets a translated one.
    exported: Callable[[int, Path], str] = staticmethod(lambda count, folder: f"{count} -> {folder}")


def _problem(each: Any) -> str:
    if isinstance(each, dict):
        return ": ".join(str(each[key]) for key in ("case", "text") if each.get(key))
    return each if isinstance(each, str) else json.dumps(each)
