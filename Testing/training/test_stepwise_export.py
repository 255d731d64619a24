"""Many cases, one small step at a time: progress, cancel, failures that do not stop the others."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from SAMMed3DTrainingLib.data.dataset_check import check_datasets
from SAMMed3DTrainingLib.store.dataset_writer import DatasetWriter
from SAMMed3DTrainingLib.store.export_case import ExportCase
from SAMMed3DTrainingLib.store.stepwise_export import ExportJob, StepwiseExport

from .export_cases import export_case


def made(name: str, make: Callable[[], ExportCase]) -> ExportJob:
    return ExportJob(name, lambda: iter([None, make]))


def job(name: str, seed: int = 0) -> ExportJob:
    return made(name, lambda: export_case(name, seed=seed))


def large_case(name: str) -> ExportCase:
    """Voxels that do not shrink: written in many pieces."""
    labels = np.zeros((40, 128, 128), np.uint16)
    labels[10:20, 40:50, 40:50] = 1
    array = np.random.default_rng(0).integers(-2000, 2000, labels.shape).astype(np.int16)
    return export_case(name, labels, array_kji=array)


def run(export: StepwiseExport) -> list[tuple[str, str]]:
    while export.step(wait=0.05):
        pass
    return [(result.name, result.state) for result in export.results]


def test_all_cases_are_written_and_progress_rises_to_1(tmp_path):
    export = StepwiseExport([job("a", 1), job("b", 2), job("c", 3)], DatasetWriter(tmp_path))
    seen = [export.progress]
    while export.step(wait=0.05):
        seen.append(export.progress)
    assert [result.state for result in export.results] == ["added"] * 3
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions) and fractions[0] == 0.0
    assert {progress.name for progress in seen} == {"a", "b", "c"}
    assert {progress.stage for progress in seen} == {"reading", "writing"}
    assert (export.progress.fraction, export.progress.stage) == (1.0, "done")
    assert not export.step()
    assert check_datasets(tmp_path).is_clean


def test_the_scene_is_read_here_and_files_are_written_elsewhere(tmp_path):
    threads: dict[str, int] = {}

    def make():
        threads["make"] = threading.get_ident()
        return export_case("a")

    def read():
        threads["first"] = threading.get_ident()
        yield None
        threads["second"] = threading.get_ident()
        yield make

    export = StepwiseExport([ExportJob("a", read)], DatasetWriter(tmp_path))
    export.step()
    assert list(threads) == ["first"] and export.progress.stage == "reading", "one piece a step"
    run(export)
    assert threads["first"] == threads["second"] == threading.get_ident() != threads["make"]


def test_nothing_to_do(tmp_path):
    export = StepwiseExport([], DatasetWriter(tmp_path))
    assert not export.step() and export.results == () and export.progress.stage == "done"


@pytest.mark.parametrize("error, words", [
    (ValueError("the volume has gone"), "the volume has gone"), (MemoryError(), "not enough memory"),
    (KeyError("surprise"), "surprise"),
])
@pytest.mark.parametrize("where", ["read", "make"])
def test_a_case_that_fails_does_not_stop_the_others(tmp_path, error, words, where):
    def fail(*_arguments):
        raise error

    bad = ExportJob("bad", fail) if where == "read" else made("bad", fail)
    export = StepwiseExport([job("a"), bad, job("c", 3)], DatasetWriter(tmp_path))
    assert run(export) == [("a", "added"), ("bad", "failed"), ("c", "added")]
    assert words in export.results[1].message
    assert check_datasets(tmp_path).is_clean


def test_two_rows_of_one_name(tmp_path):
    export = StepwiseExport([job("a"), job("a", 5)], DatasetWriter(tmp_path))
    assert run(export) == [("a", "added"), ("a", "failed")]


def test_cancel_in_the_middle_of_a_case(tmp_path):
    writer = DatasetWriter(tmp_path)
    jobs = [job("a"), made("big", lambda: large_case("big")), job("c")]
    export = StepwiseExport(jobs, writer)
    while export.progress.name != "big" or export.progress.fraction <= 1 / 3:
        assert export.step(wait=0.001), "over before it could be cancelled"
    export.cancel()
    assert run(export) == [("a", "added"), ("big", "cancelled"), ("c", "cancelled")]
    assert [case.name for case in writer.cases()] == ["a"]
    assert not list(tmp_path.rglob("*.part"))


def test_close_waits_until_nothing_is_written_any_more(tmp_path):
    export = StepwiseExport([made("big", lambda: large_case("big"))], DatasetWriter(tmp_path))
    export.step()
    export.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "export"]
    assert [result.state for result in export.results] in (["cancelled"], ["added"])
    assert not list(tmp_path.rglob("*.part"))
