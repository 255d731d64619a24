"""An engine without a network: a nodule is a ball around each positive click, minus balls around negative ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Report = Callable[[int, int, str], bool]


class FakeEngine:
    """Stands for :class:`SAMMed3DLib.worker.engine.Engine` on the worker's thread.

    Attributes:
        requests: what was asked, in order.
        gate: clear it to keep the next answers waiting (they can still be canceled).
        error: set it to let every answer fail with this text.
        found: centers (local RAS) and scores of what *Segment all* finds.
        pause_after: *Segment all* waits after so many until this is None (it can be canceled).
    """

    radius_mm, hole_mm = 5.0, 3.0

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: str | None = None
        self.found: list[tuple[tuple[float, float, float], float]] = []
        self.pause_after: int | None = None
        self._volume: Any = None

    def run(self, request: Any, report: Report) -> Any:
        """Answers by the request's class name, so that a reloaded library's requests are answered too."""
        self.requests.append(request)
        self._wait(report)
        if self.error is not None:
            raise ValueError(self.error)
        return getattr(self, f"_{type(request).__name__}")(request, report)

    def explain(self, error: Exception) -> str | None:
        """ValueErrors carry the user's words."""
        return str(error) if isinstance(error, ValueError) else None

    def asked(self, name: str) -> list[Any]:
        """Requests of one class."""
        return [request for request in self.requests if type(request).__name__ == name]

    def _wait(self, report: Report) -> None:
        from SAMMed3DLib.worker.requests import RequestCancelled

        while not self.gate.wait(0.002):
            if not report(0, 0, "waiting"):
                raise RequestCancelled()

    def _LoadModel(self, request: Any, report: Report) -> Any:
        from SAMMed3DLib.worker.requests import ModelInfo

        return ModelInfo(request.path, "balls", "cpu", "fp32")

    def _SetVolume(self, request: Any, report: Report) -> Any:
        from SAMMed3DLib.worker.requests import VolumeInfo

        self._volume = request
        return VolumeInfo(request.identity)

    def _Prefetch(self, request: Any, report: Report) -> Any:
        from SAMMed3DLib.worker.requests import Segmented

        mask, offset = _tight(self._ball(request.point, self.radius_mm))
        return Segmented(mask, offset, 0.9, {}, 1)

    def _Measure(self, request: Any, report: Report) -> dict[Any, dict[str, Any]]:
        return {name: self._measure(block.mask) for name, block in request.blocks.items()}

    def _Predict(self, request: Any, report: Report) -> Any:
        from SAMMed3DLib.worker.requests import Segmented

        full = np.zeros(self._volume.array_kji.shape, dtype=bool)
        if request.start is not None:
            corner, shape = request.start.offset_kji, request.start.mask.shape
            place = tuple(slice(a, a + n) for a, n in zip(corner, shape, strict=True))
            full[place] |= request.start.mask.astype(bool)
        for point, label in zip(request.points, request.labels, strict=True):
            if label:
                full |= self._ball(point, self.radius_mm)
        for point, label in zip(request.points, request.labels, strict=True):
            if not label:
                full &= ~self._ball(point, self.hole_mm)
        mask, offset = _tight(full)
        return Segmented(mask, offset, 0.9, self._measure(mask), len(request.points))

    def _Generate(self, request: Any, report: Report) -> Any:
        from SAMMed3DLib.worker.requests import FoundNodule, Generated, RequestCancelled

        found: list[FoundNodule] = []
        for number, (center, score) in enumerate(self.found):
            while number == self.pause_after:
                time.sleep(0.002)
                if not report(number, len(self.found), "looking"):
                    raise RequestCancelled(Generated(tuple(found)))
            if not report(number, len(self.found), "looking"):
                raise RequestCancelled(Generated(tuple(found)))
            mask, offset = _tight(self._ball(center, self.radius_mm))
            found.append(FoundNodule(mask, offset, score, 0.8, self._measure(mask)))
        return Generated(tuple(found))

    def _FindLungs(self, request: Any, report: Report) -> Any:
        from SAMMed3DLib.worker.requests import FoundLungs

        return FoundLungs(np.ones((9, 9, 9), np.uint8), (5, 5, 5), "lungs found: 5 liters")

    def _FunctionRequest(self, request: Any, report: Report) -> Any:
        return request.function(report)

    def _ball(self, point: Any, radius: float) -> NDArray[np.bool_]:
        matrix = self._volume.ijk_to_ras
        kji = np.stack(np.indices(self._volume.array_kji.shape), -1).astype(float)
        ras = kji[..., ::-1] @ matrix[:3, :3].T + matrix[:3, 3]
        return ((ras - np.asarray(point)) ** 2).sum(-1) <= radius**2

    def _measure(self, mask: NDArray) -> dict[str, Any]:
        voxel = abs(np.linalg.det(self._volume.ijk_to_ras[:3, :3]))
        return {
            "volume_mm3": float(mask.sum() * voxel),
            "long_axis_mm": 2 * self.radius_mm,
            "short_axis_mm": 2 * self.radius_mm,
            "mean_hu": -50.0,
        }


def _tight(full: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    """The box of a mask, and its corner; one empty voxel for nothing."""
    if not full.any():
        return np.zeros((1, 1, 1), dtype=np.uint8), (0, 0, 0)
    where = np.argwhere(full)
    low, high = where.min(0), where.max(0) + 1
    block = full[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return block.astype(np.uint8), tuple(int(x) for x in low)
