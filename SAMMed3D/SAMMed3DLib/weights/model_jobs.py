"""The model panel's long work: started here, done on a thread of its own, told by signals on the main thread."""

from __future__ import annotations

from typing import Any

from ..signal import Signal
from ..worker.requests import Progress
from ..worker.worker import EngineWorker
from .store import WeightsStore
from .weights_engine import AddModelFile, FetchModel, ReportDevice, WeightsEngine


class ModelJobs:
    """Starts jobs and hands out their progress and results whenever :meth:`poll` is called.

    Attributes:
        busyChanged: Signal(bool), for the timer that polls (:class:`.gui.worker_poll.WorkerPoll`).
        progressed: Signal(Progress) of a download.
        finished: Signal(Result); ``result.request`` is a FetchModel, AddModelFile or ReportDevice. Jobs that were
            cancelled before they began finish without one.
    """

    def __init__(self, store: WeightsStore, worker: EngineWorker | None = None) -> None:
        self._worker = worker if worker is not None else EngineWorker(WeightsEngine(store))
        self._busy = False
        self.busyChanged = Signal()
        self.progressed = Signal()
        self.finished = Signal()

    @property
    def busy(self) -> bool:
        return self._busy

    def download(self, name: str) -> None:
        """Fetch a model of the catalog."""
        self._submit(FetchModel(name))

    def addFile(self, path: str) -> None:
        """Check a checkpoint file and put it on the list."""
        self._submit(AddModelFile(path))

    def reportDevice(self, device: str = "auto", precision: str = "auto") -> None:
        """Find out where the model runs; only where torch is installed."""
        self._submit(ReportDevice(device, precision))

    def cancel(self) -> None:
        """Stop what runs and drop what waits; an unfinished download can be taken up again."""
        self._worker.cancel()

    def close(self) -> None:
        """Stop for good, at once: a thread that is caught in a stalled connection ends by itself."""
        self._worker.shutdown(timeout=0.2)
        self._setBusy(False)

    def poll(self, timeout: float = 0.005) -> bool:
        """Hand out at most one message, waiting up to ``timeout`` seconds; returns whether there is more to do."""
        message = self._worker.take(timeout)
        if isinstance(message, Progress):
            self.progressed(message)
        elif message is not None:
            self.finished(message)
        busy = self._worker.isBusy
        self._setBusy(busy)
        return busy

    def _submit(self, request: Any) -> None:
        self._worker.submit(request)
        self._setBusy(True)

    def _setBusy(self, busy: bool) -> None:
        if busy != self._busy:
            self._busy = busy
            self.busyChanged(busy)
