"""What the model panel asks of a worker thread: downloads, reading checkpoint files, the device line.

For a second :class:`SAMMed3DLib.worker.worker.EngineWorker`, so that clicks are answered while a download runs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

from ..torch_setup.device import report_device
from ..worker.requests import RequestCancelled
from .catalog import WeightsError
from .download import DownloadCancelled, DownloadError
from .store import WeightsStore


@dataclass(frozen=True)
class _Job:
    """One after the other, in the order of asking; none makes another stop."""

    priority: ClassVar[int] = 1
    gives_way: ClassVar[bool] = False
    slips_in: ClassVar[bool] = True
    lets_in: ClassVar[bool] = False

    @property
    def key(self) -> Hashable:
        """Equal requests are one."""
        return self


@dataclass(frozen=True)
class FetchModel(_Job):
    """Download a model of the catalog. Answer: its :class:`.catalog.ModelEntry`. Lets short requests in between."""

    name: str
    slips_in: ClassVar[bool] = False
    lets_in: ClassVar[bool] = True


@dataclass(frozen=True)
class AddModelFile(_Job):
    """Read a checkpoint file and remember it. Answer: its :class:`.catalog.ModelEntry`."""

    path: str


@dataclass(frozen=True)
class ReportDevice(_Job):
    """Answer: :class:`.device_report.DeviceReport`. The first one imports torch."""

    device: str = "auto"
    precision: str = "auto"


class WeightsEngine:
    """Runs them; see :class:`.worker.EngineProtocol`."""

    def __init__(self, store: WeightsStore) -> None:
        self._store = store

    def run(self, request: FetchModel | AddModelFile | ReportDevice, report: Callable[[int, int, str], bool]) -> Any:
        """The answer. Raises RequestCancelled, or what :meth:`explain` explains."""
        if isinstance(request, FetchModel):
            return self._fetch(request, report)
        if isinstance(request, AddModelFile):
            return self._store.add_file(request.path)
        return report_device(request.device, request.precision)

    def explain(self, error: Exception) -> str | None:
        """The error in a user's words, or None if it was not foreseen."""
        return str(error) if isinstance(error, (WeightsError, DownloadError)) else None

    def _fetch(self, request: FetchModel, report: Callable[[int, int, str], bool]) -> Any:
        title = self._store.entry(request.name).title

        def progress(done: int, total: int | None) -> bool:
            of = f" of {total / 1e6:.0f}" if total else ""
            return report(done, total or 0, f"Downloading {title}: {done / 1e6:.0f}{of} MB")

        try:
            return self._store.download(request.name, progress)
        except DownloadCancelled as error:
            raise RequestCancelled from error
