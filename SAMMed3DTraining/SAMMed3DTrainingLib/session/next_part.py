"""Finds the volume to segment next: the one that the model is least sure about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .job_slot import JobOutcome, JobSlot, Report, SessionPart, Steps
from .runs_api import Runs
from .states import JobKind

if TYPE_CHECKING:
    from ..scene.training_source import TrainingSource


@dataclass(frozen=True)
class RankedVolume:
    """One volume with the model's uncertainty about it.

    Attributes:
        nodeId: ID of the volume's node; None for a file.
        uncertainty: higher is more useful to segment.
        expectedNodules: number of nodules that the model expects.
        pointRas: the place that it is least sure about, in the file's RAS; None where it found nothing.
    """

    name: str
    path: Path
    nodeId: str | None
    uncertainty: float
    candidates: int
    expectedNodules: float | None
    pointRas: tuple[float, float, float] | None


class NextPart(SessionPart):
    """The ranking of volumes without nodules: the fourth section of the panel.

    Attributes (signals):
        changed: the list or what is going on.
    """

    def __init__(self, source: TrainingSource, runs: Runs, job: JobSlot, temporaryFolder: Callable[[], Path]) -> None:
        super().__init__()
        self._source, self._runs, self._job, self._temporaryFolder = source, runs, job, temporaryFolder
        self.folder: Path | None = None
        self.volumes = 0
        self.ranked: tuple[RankedVolume, ...] = ()
        self.skipped: tuple[str, ...] = ()
        self._written: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def refresh(self) -> None:
        """Counts the volumes of the scene that have no nodules yet."""
        self.volumes = len(self._source.unlabelled())
        self.changed.emit()

    def setFolder(self, folder: Path | None) -> None:
        """Sets a folder of files to rank instead of the scene's volumes; None ranks the scene's."""
        if folder != self.folder:
            self.folder = folder
            self.changed.emit()

    def rank(self, checkpoint: Path | None, device: str) -> None:
        """Ranks every volume with the model, in a child process; the list grows meanwhile."""
        self.ranked, self.skipped, self.error = (), (), ""
        if self.folder is not None:
            self._start([str(self.folder)], checkpoint, device)
            return
        nodes = list(self._source.unlabelled())
        folder = self._temporaryFolder()
        paths: list[str] = []

        def steps() -> Steps:
            for number, node in enumerate(nodes):
                data, path = self._source.volumeData(node), folder / f"{number + 1:03}.nii.gz"
                self._written[str(path)] = node.GetID()
                self._names[str(path)] = node.GetName()

                def write(_report: Report, data: Any = data, path: Path = path) -> Any:
                    return self._source.writeVolume(data, path)

                yield write
                paths.append(str(path))

        def finished(outcome: JobOutcome) -> None:
            if outcome.error or outcome.cancelled:
                self._say(outcome.error)
            else:
                self._start(paths, checkpoint, device)

        self._written, self._names = {}, {}
        self._job.runSteps(JobKind.RANK, steps(), finished, parts=len(nodes))

    def _start(self, paths: list[str], checkpoint: Path | None, device: str) -> None:
        arguments = ["--data", *paths, "--device", device]
        if checkpoint is not None:
            arguments += ["--checkpoint", str(checkpoint)]
        process = self._tried(lambda: self._runs.job("rank", arguments, self._temporaryFolder()))
        if process is None:
            return

        def item(found: dict[str, Any]) -> None:
            ranked = [*self.ranked, self._volume(found)]
            self.ranked = tuple(sorted(ranked, key=lambda each: -each.uncertainty))
            self.changed.emit()

        def finished(outcome: JobOutcome) -> None:
            if outcome.value is not None:
                self.ranked = tuple(self._volume(each) for each in outcome.value.get("ranked", ()))
                self.skipped = tuple(f"{Path(p).name}: {why}" for p, why in outcome.value.get("skipped", {}).items())
            self._say(outcome.error)

        self._job.runProcess(JobKind.RANK, process, finished, item)

    def _volume(self, found: dict[str, Any]) -> RankedVolume:
        path = str(found["path"])
        objects = found.get("objects") or ()
        point = max(objects, key=lambda each: each.get("uncertainty") or 0.0).get("point_ras") if objects else None
        return RankedVolume(
            self._names.get(path, str(found.get("name") or Path(path).name)),
            Path(path),
            self._written.get(path),
            float(found.get("uncertainty") or 0.0),
            int(found.get("candidates") or 0),
            found.get("expected_nodules"),
            None if point is None else (float(point[0]), float(point[1]), float(point[2])),
        )
