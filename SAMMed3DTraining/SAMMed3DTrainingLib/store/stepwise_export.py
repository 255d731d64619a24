"""Writes cases into a data set in small steps: the scene is read on the main thread, files are written on a worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from SAMMed3DLib.worker.requests import Report, RequestCancelled

from ..data.case_names import ExportCancelled
from .dataset_writer import DatasetWriter
from .export_case import ExportCase

_log = logging.getLogger(__name__)
_PARTS = 1000

MakeCase = Callable[[], ExportCase]


@dataclass(frozen=True)
class PlannedCase:
    """One case to be written.

    Attributes:
        name: of the case.
        read: begun on the main thread, one piece a step: yields None after each piece, and at last what makes the case,
            to be called on the worker thread. Both may raise ValueError with a message for the user.
    """

    name: str
    read: Callable[[], Iterator[MakeCase | None]]


@dataclass(frozen=True)
class ExportResult:
    """The outcome of one case: ``state`` is "added", "updated", "unchanged", "failed" or "cancelled"."""

    name: str
    state: str
    message: str = ""


class StepwiseExport:
    """Writes cases one after the other; a case that fails does not stop the others.

    Args:
        cases: of several with one name the first is written.
        writer: the data set.
    """

    def __init__(self, cases: Sequence[PlannedCase], writer: DatasetWriter) -> None:
        self.cases = tuple(cases)
        self._writer = writer

    def steps(self) -> Generator[Callable[[Report], Any] | None, Any, tuple[ExportResult, ...]]:
        """Goes through the cases, as :meth:`.session.job_slot.JobSlot.runSteps` wants it.

        Returns:
            One result for each case, in their order. RequestCancelled gives up the present one and begins no further;
            what is written stays.
        """
        results: list[ExportResult] = []
        try:
            for case in self.cases:
                if any(result.name == case.name for result in results):
                    message = "another row has the same case name: choose one of them"
                    results.append(ExportResult(case.name, "failed", message))
                    continue
                try:
                    results.append(_result(case.name, (yield from self._steps_of(case))))
                except RequestCancelled as stop:
                    if stop.value is not None:  # it was written, or given up in the middle
                        results.append(_result(case.name, stop.value))
                    raise
                except Exception as error:  # the other cases go on
                    results.append(_result(case.name, error))
        except RequestCancelled:
            results += [ExportResult(case.name, "cancelled") for case in self.cases[len(results) :]]
        return tuple(results)

    def _steps_of(self, case: PlannedCase) -> Generator[Callable[[Report], Any] | None, Any, ExportResult | Exception]:
        pieces = case.read()
        while (make := next(pieces)) is None:
            yield None
        return (yield partial(self._write, case.name, make))

    def _write(self, name: str, make: MakeCase, report: Report) -> ExportResult | Exception:
        """Runs on the worker thread."""

        def progress(share: float) -> bool:
            return report(round(_PARTS * share), _PARTS, name)

        try:
            if not progress(0.0):
                raise ExportCancelled
            return ExportResult(name, self._writer.put(make(), progress))
        except ExportCancelled:
            return ExportResult(name, "cancelled")
        except Exception as error:  # whatever it is, whoever waits for the answer gets one
            return error


def _result(name: str, answer: ExportResult | Exception) -> ExportResult:
    """Turns an error into a message for the user; an unexpected one is logged too, which belongs on the main thread."""
    if isinstance(answer, ExportResult):
        return answer
    if isinstance(answer, MemoryError):
        return ExportResult(name, "failed", "there is not enough memory for it: close other volumes and try again")
    if not isinstance(answer, ValueError):
        _log.error("case %s could not be exported", name, exc_info=answer)
    return ExportResult(name, "failed", str(answer) or type(answer).__name__)
