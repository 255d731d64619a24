"""Lists the runs, compares old and new weights on held-out cases, and adopts the new ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from SAMMed3DLib.signal import Signal

from .job_slot import JobOutcome, JobSlot, SessionPart, oneStep
from .runs_api import Runs
from .states import JobKind

COMPARISON = Path("comparison") / "comparison.json"


@dataclass(frozen=True)
class NoduleComparison:
    """One nodule of a held-out case.

    Attributes:
        labelValue: of its voxels in the case's label map, which it may share with other components.
        value: of its voxels in the masks of old and new weights.
        old, new: Dice after the chosen number of clicks; None where a model has none.
    """

    case: str
    name: str
    labelValue: int
    value: int
    centerRas: tuple[float, float, float]
    diameterMm: float | None
    old: float | None
    new: float | None

    @property
    def difference(self) -> float | None:
        return None if self.old is None or self.new is None else self.new - self.old


@dataclass(frozen=True)
class CaseFilesToShow:
    """Files of one case for the views: image, truth, and the masks of old and new weights."""

    case: str
    image: Path
    truth: Path
    old: Path
    new: Path


class RunComparison:
    """The content of a run's ``comparison.json``."""

    def __init__(self, data: dict[str, Any], folder: Path) -> None:
        self._data, self._folder = data, folder

    @property
    def clicks(self) -> tuple[int, ...]:
        """Numbers of clicks that were compared."""
        return tuple(int(each) for each in self._data.get("clicks", ()))

    @property
    def caution(self) -> str:
        """A warning where the compared cases trained the weights or chose them; "" where they did neither."""
        return str(self._data.get("caution", ""))

    def mean(self, which: str, clicks: int) -> float | None:
        """Returns the mean Dice of "old", "new" or "delta" after so many clicks."""
        value = self._data.get("mean", {}).get(which, {}).get(str(clicks))
        if isinstance(value, dict):
            value = value.get("mean")
        return None if value is None else float(value)

    def interval(self, clicks: int) -> tuple[float, float] | None:
        """Returns the 95 % interval of the mean difference."""
        value = self._data.get("mean", {}).get("delta", {}).get(str(clicks))
        if not isinstance(value, dict) or value.get("low") is None or value.get("high") is None:
            return None
        return float(value["low"]), float(value["high"])

    def nodules(self, clicks: int) -> list[NoduleComparison]:
        """Returns all nodules, with their Dice after so many clicks."""
        index = self.clicks.index(clicks)
        return [
            NoduleComparison(
                str(each["case"]),
                str(each["nodule"]),
                int(each["label_value"]),
                int(each["value"]),
                _point(each["center_ras"]),
                each.get("diameter_mm"),
                _at(each["old"]["dice"], index),
                _at(each["new"]["dice"], index),
            )
            for each in self._data.get("nodules", ())
        ]

    def files(self, case: str, clicks: int) -> CaseFilesToShow | None:
        """Finds the files of a case; None where they are no longer there."""
        for each in self._data.get("cases", ()):
            if each["case"] != case:
                continue
            found = [each["image"], each["label"], each["old"].get(str(clicks)), each["new"].get(str(clicks))]
            if any(path is None for path in found):
                return None
            paths = [self._folder / path for path in found]  # absolute ones stay as they are
            return CaseFilesToShow(case, *paths) if all(path.is_file() for path in paths) else None
        return None


class ComparePart(SessionPart):
    """Runs, comparison and adoption of weights: the third section of the panel.

    Attributes (signals):
        changed: runs, the chosen one, the comparison.
        adopted: (entry) a model was put into the list of the SAMMed3D module.
        shown: (NoduleComparison, data) a case was read and can be shown.
    """

    def __init__(self, runs: Runs, job: JobSlot, adopt: Callable[[Path, str], Any]) -> None:
        super().__init__()
        self.adopted, self.shown = Signal(), Signal()
        self._api, self._job, self._adopt = runs, job, adopt
        self._history: Any | None = None
        self.workDir: Path | None = None
        self.runs: tuple[Any, ...] = ()
        self.selected = ""
        self.comparison: RunComparison | None = None
        self.clicks = 0
        self.device = "auto"
        self._read: tuple[Any, Any] | None = None

    # -- runs ----------------------------------------------------------------------------------------------------------

    def setWorkDir(self, workDir: Path) -> None:
        if workDir != self.workDir:
            self.workDir, self.selected = workDir, ""
            self._history = self._api.history(workDir)
            self.refresh()

    def refresh(self) -> None:
        """Reads the folder of runs again."""
        if self._history is None:
            return
        self.runs = tuple(self._history.runs())
        if self.record is None:
            self.selected = self.runs[0].name if self.runs else ""
        self._readComparison()
        self.changed.emit()

    @property
    def record(self) -> Any | None:
        """The chosen run."""
        return next((run for run in self.runs if run.name == self.selected), None)

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the runs of this folder that are under way, in whatever process."""
        return tuple(run.name for run in self.runs if run.is_running)

    def select(self, name: str) -> None:
        if name != self.selected:
            self.selected = name
            self._readComparison()
            self._say()

    def rename(self, name: str, wanted: str) -> None:
        """Renames a run and its folder."""
        self._change(lambda history: history.rename(name, wanted), lambda: setattr(self, "selected", wanted))

    def delete(self, name: str) -> None:
        """Deletes a run's folder, with its weights."""
        self._change(lambda history: history.delete(name), lambda: None)

    # -- comparing -----------------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Compares both weights on the cases that the run held out, in a child process."""
        record = self.record
        if record is None:
            return
        folder = Path(record.folder)
        arguments = ["--run", str(folder), "--device", self.device]
        process = self._tried(lambda: self._api.job("compare", arguments, (folder / COMPARISON).parent))
        if process is None:
            return

        def finished(outcome: JobOutcome) -> None:
            self._read = None
            self.refresh()
            self._say(error=outcome.error)

        self._job.runProcess(JobKind.COMPARE, process, finished)

    def setClicks(self, clicks: int) -> None:
        if clicks != self.clicks and self.comparison is not None and clicks in self.comparison.clicks:
            self.clicks = clicks
            self._read = None
            self.changed.emit()

    def nodules(self) -> list[NoduleComparison]:
        return [] if self.comparison is None else self.comparison.nodules(self.clicks)

    def show(self, nodule: NoduleComparison, read: Callable[[CaseFilesToShow], Any]) -> None:
        """Reads a nodule's case on the thread, unless it is the one on screen, and emits ``shown``."""
        assert self.comparison is not None
        files = self.comparison.files(nodule.case, self.clicks)
        if files is None:
            self._say(error=self.filesGone(nodule.case))
            return
        if self._read is not None and self._read[0] == files:
            self.shown.emit(nodule, self._read[1])
            return
        if self._job.isBusy:
            return

        def finished(outcome: JobOutcome) -> None:
            if outcome.value is not None:
                self._read = (files, outcome.value)
                self.shown.emit(nodule, outcome.value)
            self._say(error=outcome.error)

        self._job.runSteps(JobKind.LOAD, oneStep(lambda: read(files)), finished)

    def forgetImages(self) -> None:
        """Notes that the images that were read are no longer on screen."""
        self._read = None

    #: Makes the message that a case's files are gone; the panel sets a translated one.
    filesGone: Callable[[str], str] = staticmethod(lambda case: case)

    # -- taking over ---------------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Puts the best weights of the chosen run into the list of models; reads them first, on the thread."""
        record = self.record
        if record is None or record.weights is None:
            return
        weights, name = Path(record.weights), record.name

        def finished(outcome: JobOutcome) -> None:
            self._say(error=outcome.error)
            if outcome.value is not None:
                self.adopted.emit(outcome.value)

        self._job.runSteps(JobKind.ADOPT, oneStep(lambda: self._adopt(weights, name)), finished)

    # -- within --------------------------------------------------------------------------------------------------------

    def _change(self, change: Callable[[Any], Any], done: Callable[[], None]) -> None:
        if self._tried(lambda: change(self._history)) is not None:
            done()
            self._say()
        self.refresh()

    def _readComparison(self) -> None:
        record = self.record
        self.comparison = None
        if record is None:
            return
        path = Path(record.folder) / COMPARISON
        try:
            self.comparison = RunComparison(json.loads(path.read_text(encoding="utf-8")), path.parent)
        except (OSError, ValueError):
            return
        clicks = self.comparison.clicks
        if not clicks:
            self.comparison = None
        elif self.clicks not in clicks:
            self.clicks = clicks[0]


def _point(ras: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in ras)
    return x, y, z


def _at(values: Any, index: int) -> float | None:
    return float(values[index]) if index < len(values) and values[index] is not None else None
