"""A session whose worker does one piece of work each time the test asks, with an engine that draws cubes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from SAMMed3DLib.inference.geometry import length_scale
from SAMMed3DLib.worker.requests import (
    SCALE,
    FindLungs,
    FoundLungs,
    FoundNodule,
    FunctionRequest,
    Generate,
    Generated,
    LoadModel,
    Measure,
    ModelInfo,
    Predict,
    Prefetch,
    Priority,
    Progress,
    RequestCancelled,
    Result,
    Segmented,
    SetVolume,
    VolumeInfo,
)

#: Half an edge of the cube that a click draws, in voxels.
REACH = 2


class FakeModels:
    """A model provider."""

    def __init__(self, path: str | None = "/models/nodule.pth", torch: bool = True) -> None:
        self.path = None if path is None else Path(path)
        self.device = "cpu"
        self.precision = "fp32"
        self.detector: Path | None = None
        self.torch = torch

    def torchInstalled(self) -> bool:
        return self.torch


class CubeEngine:
    """Answers as the engine does: a positive click adds a cube of voxels, a negative one takes one away.

    Attributes:
        asked: every request that was run.
        errors: type of request -> text of the error to answer with.
        found, note: what Generate finds and says.
        parts: what it knows before that, one list after the other.
        raises: the error with which a search ends after these.
        modelNote, volumeNote: what there is to know about the loaded model, and about the volume.
    """

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.errors: dict[type, str] = {}
        self.found: list[FoundNodule] = []
        self.parts: list[list[FoundNodule]] = []
        self.raises = ""
        self.note = self.modelNote = self.volumeNote = ""
        self.loaded = False
        self.identity: Any = None
        self.shape = (0, 0, 0)
        self.ijkToRas = np.eye(4)

    def run(self, request: Any) -> Any:
        self.asked.append(request)
        if isinstance(request, SetVolume):
            self.identity = None
        if type(request) in self.errors:
            raise ValueError(self.errors[type(request)])
        if isinstance(request, LoadModel):
            self.loaded = True
            return ModelInfo(request.path, "fake", request.device, request.precision, self.modelNote)
        if isinstance(request, SetVolume):
            self.identity = request.identity
            self.shape, self.ijkToRas = request.array_kji.shape, request.ijk_to_ras
            return VolumeInfo(request.identity, self.volumeNote)
        if request.identity != self.identity or not self.loaded:
            raise RequestCancelled()
        if isinstance(request, Predict):
            return self._predict(request)
        if isinstance(request, Measure):
            scale = {SCALE: length_scale(request.ijk_to_world)}
            return {nodule: measurements(block.mask) | scale for nodule, block in request.blocks.items()}
        if isinstance(request, Generate):
            return Generated(tuple(self.found), self.note)
        if isinstance(request, FindLungs):
            return FoundLungs(np.ones((20, 20, 20), np.uint8), (5, 4, 3), "lungs found: 5 liters")
        assert isinstance(request, Prefetch)
        answer = self._predict(Predict(request.identity, None, [request.point], [1]))
        return Segmented(answer.mask, answer.offset_kji, answer.score, {}, 1)

    def _predict(self, request: Predict) -> Segmented:
        full = np.zeros(self.shape, dtype=np.uint8)
        if request.start is not None:
            full[place(request.start)] = request.start.mask
        for point, label in zip(request.points, request.labels, strict=True):
            i, j, k = np.floor(np.linalg.inv(self.ijkToRas) @ [*point, 1.0] + 0.5).astype(int)[:3]
            full[cube((k, j, i))] = label
        mask, offset = tight(full)
        told = {} if request.ijk_to_world is None else {SCALE: length_scale(request.ijk_to_world)}
        return Segmented(mask, offset, 0.9, measurements(mask) | told, len(request.labels))

    @property
    def predictions(self) -> list[Predict]:
        return [request for request in self.asked if isinstance(request, Predict)]


class StepWorker:
    """Runs one queued request for each :meth:`take`, on the calling thread, with the rules of the real worker."""

    def __init__(self, engine: CubeEngine) -> None:
        self.engine = engine
        self.queued: list[tuple[int, Any]] = []
        self.results: list[Any] = []
        self.generation = 0
        self.held = False
        self.stopped: set[int] = set()

    def submit(self, request: Any) -> int:
        self.generation += 1
        self.queued = [one for one in self.queued if one[1].key != request.key]
        self.queued.append((self.generation, request))
        self.queued.sort(key=lambda one: (one[1].priority, one[0]))
        return self.generation

    def cancel(self, generation: int | None = None) -> list[int]:
        """What takes long and is the first in the queue counts as running."""
        running = [one[0] for one in self.queued[:1] if one[1].priority is Priority.LONG]
        meant = [number for number, _request in self.queued if generation in (None, number)]
        self.stopped.update(number for number in meant if number in running)
        dropped = [number for number in meant if number not in running]
        self.queued = [one for one in self.queued if one[0] not in dropped]
        return dropped

    def take(self, timeout: float = 0.0) -> Any:
        if not self.results and self.queued and not self.held:
            self.runOne()
        return self.results.pop(0) if self.results else None

    def runOne(self) -> None:
        """Run the first queued request; its result waits to be taken."""
        generation, request = self.queued.pop(0)
        try:
            value = self._answer(generation, request)
            error, cancelled = None, generation in self.stopped
        except RequestCancelled as stop:
            value, error, cancelled = stop.value, None, True
        except ValueError as failure:
            value, error, cancelled = None, str(failure), False
        if isinstance(request, Generate):
            for part in self.engine.parts:
                self.results.append(Progress(generation, request, 1, 2, "", 3.0, Generated(tuple(part))))
            self.results.append(Progress(generation, request, 1, 2, "", 3.0))
            if self.engine.raises:
                value, error = None, self.engine.raises
        self.results.append(Result(generation, request, value, error, "", cancelled))

    def _answer(self, generation: int, request: Any) -> Any:
        if isinstance(request, FunctionRequest):
            return request.function(lambda *_told: generation not in self.stopped)
        return self.engine.run(request)

    @property
    def isBusy(self) -> bool:
        return bool(self.queued or self.results) and not self.held


def tight(full: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
    inside = np.argwhere(full)
    if not len(inside):
        return np.zeros((1, 1, 1), dtype=np.uint8), (0, 0, 0)
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    block = full[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return block.copy(), tuple(int(x) for x in low)


def cube(kji: tuple[int, int, int], reach: int = REACH) -> tuple[slice, ...]:
    return tuple(slice(max(0, int(x) - reach), int(x) + reach + 1) for x in kji)


def place(block: Any) -> tuple[slice, ...]:
    return tuple(slice(o, o + n) for o, n in zip(block.offset_kji, block.mask.shape, strict=True))


def measurements(mask: np.ndarray) -> dict[str, Any]:
    voxels = float(np.count_nonzero(mask))
    return {"volume_mm3": voxels, "long_axis_mm": 5.0, "short_axis_mm": 4.0, "mean_hu": -20.0}


def found(kji: tuple[int, int, int], score: float, reach: int = REACH) -> FoundNodule:
    mask = np.ones((2 * reach + 1,) * 3, dtype=np.uint8)
    offset = tuple(x - reach for x in kji)
    return FoundNodule(mask, offset, score, 0.8, measurements(mask), origin=f"origin of {kji}")


Full = Callable[[str], np.ndarray]
