"""Functions as requests for the worker thread of :mod:`SAMMed3DLib.worker.worker`."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

from SAMMed3DLib.worker.worker import Report


@dataclass(frozen=True, eq=False)
class Call:
    """One function that runs on the thread; it gets ``report(done, total, text)``, which says False to cancel."""

    function: Callable[[Report], Any]
    priority: ClassVar[int] = 1
    gives_way: ClassVar[bool] = False
    slips_in: ClassVar[bool] = False
    lets_in: ClassVar[bool] = False

    @property
    def key(self) -> Hashable:
        """No call replaces another."""
        return id(self)


class CallEngine:
    """Runs calls; see :class:`SAMMed3DLib.worker.worker.EngineProtocol`."""

    def run(self, request: Call, report: Report) -> Any:
        """What the function returns."""
        return request.function(report)

    def explain(self, error: Exception) -> str | None:
        """Errors of values, files and training have messages made for users."""
        return str(error) if isinstance(error, (ValueError, OSError, RuntimeError)) else None
