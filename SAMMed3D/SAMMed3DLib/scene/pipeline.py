"""Keeps track of requests to the worker and of the callbacks that wait for their answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Protocol

from ..signal import Signal
from ..worker.requests import LoadModel, ModelInfo, Progress, Result, SetVolume
from .volume_geometry import VolumeGeometry

OnResult = Callable[[Result], None]


class ModelProvider(Protocol):
    """The chosen model; the session reads it at each use, so it may change."""

    @property
    def path(self) -> Path | None:
        """The chosen checkpoint file, None while there is none."""

    @property
    def device(self) -> str:
        """ "auto", "cpu", "cuda", ..."""

    @property
    def precision(self) -> str:
        """ "auto", "fp32", "bf16" or "fp16"."""

    @property
    def detector(self) -> Path | None:
        """The file of the thorough search's detector, None while there is none."""

    def torchInstalled(self) -> bool:
        """Whether ``import torch`` would work, found out without importing it (by importlib.util.find_spec)."""


class Pipeline:
    """Keeps model and volume on the worker up to date and hands answers to whoever still waits for them.

    An answer that nobody waits for (its nodule, volume or scene is gone) is dropped here.

    Attributes:
        progressed: Signal(Progress).
        noted: Signal(text): a remark on the model or the volume, which can be used all the same.
        failed: Signal(text, details): the model or the volume cannot be used, or something unexpected happened.
        modelInfo: of the loaded model, or None.
        error: why the model or the volume cannot be used, or "".
    """

    def __init__(self, worker: Any, models: ModelProvider) -> None:
        self.worker = worker
        self.models = models
        self.progressed = Signal()
        self.noted = Signal()
        self.failed = Signal()
        self.modelInfo: ModelInfo | None = None
        self._modelError = self._volumeError = ""
        self._modelKey: Hashable = None
        self._identity: Hashable = None
        self._waiting: dict[int, tuple[Any, OnResult]] = {}
        self._loadingModel: int | None = None
        self._loadingVolume: int | None = None

    # -- model and volume --------------------------------------------------------------------------------------------

    @property
    def error(self) -> str:
        return self._modelError or self._volumeError

    @property
    def isLoading(self) -> bool:
        """Whether the model or the volume is on its way."""
        return self._loadingModel is not None or self._loadingVolume is not None

    @property
    def isReady(self) -> bool:
        """Whether the model and a volume have arrived at the worker."""
        return self.modelInfo is not None and self._identity is not None and not self.isLoading and not self.error

    def ensure(self, geometry: VolumeGeometry) -> bool:
        """Loads model and volume on the worker unless they are there or on their way; False if they cannot be used."""
        self._ensureModel()
        identity = geometry.identity()
        if identity != self._identity:
            self._identity, self._volumeError = identity, ""
            request = SetVolume(identity, geometry.array(), geometry.ijkToRas, geometry.ijkToWorld)
            self._loadingVolume = self.submit(request, self._onVolume)
        return not self.error

    def forgetModel(self) -> None:
        """Lets the next request load the model again, also after an error."""
        self._modelKey, self._modelError = None, ""

    def stopLoading(self) -> None:
        """Cancels the loading of model and volume; the next request asks for them again."""
        if self._loadingModel is not None:
            self.drop(self._loadingModel)
            self._loadingModel = self._modelKey = None
        if self._loadingVolume is not None:
            self.forgetVolume()

    def forgetVolume(self) -> None:
        """Forgets the volume, which has left the scene, and drops its loading."""
        self.drop(self._loadingVolume)
        self._loadingVolume, self._identity, self._volumeError = None, None, ""

    def _ensureModel(self) -> None:
        path = self.models.path
        request = LoadModel(str(path), self.models.device, self.models.precision, _modified(path))
        if request != self._modelKey:
            self._modelKey, self._modelError = request, ""
            self._loadingModel = self.submit(request, self._onModel)

    def _onModel(self, result: Result) -> None:
        if result.generation != self._loadingModel:
            return
        self._loadingModel = None
        self.modelInfo = result.value
        if result.error is not None:
            self._modelError = result.error
            self.failed(result.error, result.details)
        elif result.value is None:
            self._modelKey = None
        elif result.value.note:
            self.noted(result.value.note)

    def _onVolume(self, result: Result) -> None:
        if result.generation != self._loadingVolume:
            return
        self._loadingVolume = None
        if result.error is not None:
            self._volumeError = result.error
            self.failed(result.error, result.details)
        elif result.value is None:
            self._identity = None
        elif result.value.note:
            self.noted(result.value.note)

    # -- requests ----------------------------------------------------------------------------------------------------

    def submit(self, request: Any, onResult: OnResult) -> int:
        """Queues a request; ``onResult`` is called from :meth:`take`, unless it is dropped before."""
        generation = self.worker.submit(request)
        self._waiting[generation] = (request, onResult)
        return generation

    def drop(self, generation: int | None) -> None:
        """Cancels a request whose answer nobody waits for any more."""
        if generation is not None and self._waiting.pop(generation, None) is not None:
            self.worker.cancel(generation)

    def stop(self, generation: int | None) -> None:
        """Stops a request; its answer still comes, with what was found so far; at once where it had not begun."""
        if generation is not None and generation in self.worker.cancel(generation):
            request, onResult = self._waiting.pop(generation)
            onResult(Result(generation, request, cancelled=True))

    def dropAll(self) -> None:
        """Cancels all requests but the loading of the model."""
        for generation in [number for number in self._waiting if number != self._loadingModel]:
            self.drop(generation)
        self.forgetVolume()

    def take(self, timeout: float) -> bool:
        """Waits for one answer or progress and hands it on; returns whether one came."""
        item = self.worker.take(timeout)
        if item is None:
            return False
        if isinstance(item, Progress):
            if item.generation in self._waiting:
                self.progressed(item)
            return True
        waiting = self._waiting.pop(item.generation, None)
        if waiting is not None:
            request, onResult = waiting
            # older requests of this key were replaced in the queue: no answer will come
            for old in [number for number in self._waiting if number < item.generation]:
                if self._waiting[old][0].key == request.key:
                    del self._waiting[old]
            onResult(item)
        return True

    @property
    def isBusy(self) -> bool:
        """Whether the worker is working."""
        return self.worker.isBusy


def _modified(path: Path | None) -> int:
    try:
        return 0 if path is None else path.stat().st_mtime_ns
    except OSError:
        return 0
