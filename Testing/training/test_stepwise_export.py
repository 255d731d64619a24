"""Many cases, one small step at a time: progress, cancel, failures that do not stop the others."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from SAMMed3DTrainingLib.data.dataset_check import check_datasets
from SAMMed3DTrainingLib.store.dataset_writer import DatasetWriter
from SAMMed3DTrainingLib.store.export_case import ExportCase
from SAMMed3DTrainingLib.store.stepwise_export import PlannedCase, StepwiseExport

from .export_cases import export_case
from .running_export import RunningExport, run_export


def made(name: str, make: Callable[[], ExportCase]) -> PlannedCase:
    return PlannedCase(name, lambda: iter([None, make]))


def case(name: str, seed: int = 0) -> PlannedCase:
    return made(name, lambda: export_case(name, seed=seed))


def large_case(name: str) -> ExportCase:
    """Voxels that do not shrink: written in many pieces."""
    labels = np.zeros((40, 128, 128), np.uint16)
    labels[10:20, 40:50, 40:50] = 1
    array = np.random.default_rng(0).integers(-2000, 2000, labels.shape).astype(np.int16)
    return export_case(name, labels, array_kji=array)


def run(export: StepwiseExport) -> list[tuple[str, str]]:
    return [(result.name, result.state) for result in run_export(export)]


def test_all_cases_are_written_and_progress_rises_to_1(tmp_path):
    running = RunningExport(StepwiseExport([case("a", 1), case("b", 2), case("c", 3)], DatasetWriter(tmp_path)))
    seen = [running.job.progress]
    running.job.changed.connect(lambda: seen.append(running.job.progress))
    assert [result.state for result in running.finish()] == ["added"] * 3
    fractions = [progress.fraction or 0.0 for progress in seen[:-1]]
    assert fractions == sorted(fractions) and (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert {progress.text for progress in seen} == {"", "a", "b", "c"}
    assert not running.poll()
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

    running = RunningExport(StepwiseExport([PlannedCase("a", read)], DatasetWriter(tmp_path)))
    assert list(threads) == ["first"] and not running.writes, "one piece a step"
    running.finish()
    assert threads["first"] == threads["second"] == threading.get_ident() != threads["make"]


def test_nothing_to_do(tmp_path):
    running = RunningExport(StepwiseExport([], DatasetWriter(tmp_path)))
    assert not running.poll() and running.results == ()


@pytest.mark.parametrize(
    "error, words",
    [
        (ValueError("the volume has gone"), "the volume has gone"),
        (MemoryError(), "not enough memory"),
        (KeyError("surprise"), "surprise"),
    ],
)
@pytest.mark.parametrize("where", ["read", "make"])
def test_a_case_that_fails_does_not_stop_the_others(tmp_path, error, words, where):
    def fail(*_arguments):
        raise error

    bad = PlannedCase("bad", fail) if where == "read" else made("bad", fail)
    results = run_export(StepwiseExport([case("a"), bad, case("c", 3)], DatasetWriter(tmp_path)))
    assert [(result.name, result.state) for result in results] == [("a", "added"), ("bad", "failed"), ("c", "added")]
    assert words in results[1].message
    assert check_datasets(tmp_path).is_clean


def test_two_rows_of_one_name(tmp_path):
    export = StepwiseExport([case("a"), case("a", 5)], DatasetWriter(tmp_path))
    assert run(export) == [("a", "added"), ("a", "failed")]


def test_cancel_in_the_middle_of_a_case(tmp_path, monkeypatch):
    half, cancelled = threading.Event(), threading.Event()
    put = DatasetWriter.put

    def held_at_half(writer, case, progress):
        def progress_until_cancelled(share):
            if case.name == "big" and share > 0.5:
                half.set()
                assert cancelled.wait(60)
            return progress(share)

        return put(writer, case, progress_until_cancelled)

    monkeypatch.setattr(DatasetWriter, "put", held_at_half)
    writer = DatasetWriter(tmp_path)
    cases = [case("a"), made("big", lambda: large_case("big")), case("c")]
    running = RunningExport(StepwiseExport(cases, writer))
    while not half.is_set():
        assert running.poll(0.001), "over before it could be cancelled"
    assert list(tmp_path.rglob("*.part"))
    running.job.cancel()
    cancelled.set()
    assert [(result.name, result.state) for result in running.finish()] == [
        ("a", "added"),
        ("big", "cancelled"),
        ("c", "cancelled"),
    ]
    assert running.outcome.cancelled
    assert [case.name for case in writer.cases()] == ["a"]
    assert not list(tmp_path.rglob("*.part"))


def test_what_was_written_when_it_is_cancelled_counts_as_written(tmp_path):
    writer = DatasetWriter(tmp_path)
    running = RunningExport(StepwiseExport([case("a"), case("b", 2)], writer))
    while not writer.cases():
        running.poll(0.0)
    running.job.cancel()
    assert [(result.name, result.state) for result in running.finish()] == [("a", "added"), ("b", "cancelled")]


def test_close_waits_until_nothing_is_written_any_more(tmp_path):
    before = set(threading.enumerate())
    running = RunningExport(StepwiseExport([made("big", lambda: large_case("big"))], DatasetWriter(tmp_path)))
    while not running.writes:
        running.poll(0.0)
    running.job.close(60)
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "SAMMed3D worker"]
    assert not list(tmp_path.rglob("*.part"))
