"""The queue of the worker thread, with engines that wait until the test lets them go on."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import ClassVar

import pytest

from SAMMed3DLib.worker.requests import Progress, RequestCancelled, Result
from SAMMed3DLib.worker.worker import EngineWorker


@dataclass(frozen=True)
class Task:
    """A request; ``steps`` progress callbacks, before each of which the engine waits for the test."""

    key: str
    name: str = ""
    steps: int = 0
    priority: int = 2
    gives_way: bool = False
    slips_in: bool = False
    lets_in: bool = False
    fails: ClassVar[bool] = False


@dataclass(frozen=True)
class Failing(Task):
    fails: ClassVar[bool] = True


class GatedEngine:
    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.began: list[str] = []
        self.running = threading.Semaphore(0)

    def run(self, task, report):
        self.began.append(task.name or task.key)
        self.running.release()
        for step in range(task.steps):
            assert self.gate.acquire(timeout=20)
            if not report(step + 1, task.steps, f"step {step + 1}"):
                raise RequestCancelled(f"{step} steps done")
        if task.fails:
            raise ValueError(task.name) if task.name else ZeroDivisionError("oops")
        return f"answer to {task.name or task.key}"

    def explain(self, error):
        return f"explained: {error}" if isinstance(error, ValueError) else None


@pytest.fixture
def engine():
    return GatedEngine()


@pytest.fixture
def worker(engine):
    ticks = iter(range(10**6))
    worker = EngineWorker(engine, clock=lambda: float(next(ticks)))
    yield worker
    for _ in range(100):
        engine.gate.release()
    assert worker.shutdown(20)


def results(worker, count):
    """The next ``count`` results; progress is skipped."""
    found = []
    while len(found) < count:
        item = worker.take(20)
        assert item is not None, "no result within 20 s"
        if isinstance(item, Result):
            found.append(item)
    return found


def test_a_request_is_answered_on_another_thread_with_its_generation(worker, engine):
    threads = []
    engine.explain = lambda error: threads.append(threading.current_thread())
    first = worker.submit(Task("a"))
    second = worker.submit(Failing("b"))
    assert second > first
    answered = results(worker, 2)
    assert [(r.generation, r.value, r.error) for r in answered][0] == (first, "answer to a", None)
    assert threads[0] is not threading.current_thread() and threads[0].daemon
    assert answered[1].error == "Unexpected ZeroDivisionError: oops" and "Traceback" in answered[1].details
    assert not worker.isBusy


def test_a_queued_request_of_equal_key_is_replaced_and_others_are_not(worker, engine):
    worker.submit(Task("busy", steps=1))
    assert engine.running.acquire(timeout=20)
    worker.submit(Task("a", "old a"))
    worker.submit(Task("b"))
    worker.submit(Task("a", "new a"))
    engine.gate.release()
    assert [r.value for r in results(worker, 3)][1:] == ["answer to b", "answer to new a"]
    assert "old a" not in engine.began


def test_smaller_priorities_run_first_and_equals_in_order(worker, engine):
    worker.submit(Task("busy", steps=1))
    assert engine.running.acquire(timeout=20)
    for key, priority in (("late", 5), ("first", 2), ("second", 2), ("model", 0)):
        worker.submit(Task(key, priority=priority))
    engine.gate.release()
    results(worker, 5)
    assert engine.began == ["busy", "model", "first", "second", "late"]


def test_a_running_request_that_gives_way_is_cancelled_by_any_other(worker, engine):
    worker.submit(Task("prefetch", steps=3, gives_way=True))
    assert engine.running.acquire(timeout=20)
    engine.gate.release()
    while not isinstance(worker.take(20), Progress):
        pass
    worker.submit(Task("click"))
    engine.gate.release()
    first, second = results(worker, 2)
    assert first.cancelled and first.error is None and first.value == "1 steps done"
    assert second.value == "answer to click" and not second.cancelled


def test_an_ordinary_request_goes_on_when_another_comes(worker, engine):
    worker.submit(Task("click", steps=2))
    assert engine.running.acquire(timeout=20)
    worker.submit(Task("other"))
    engine.gate.release(2)
    assert [r.cancelled for r in results(worker, 2)] == [False, False]


def test_cancel_drops_what_is_queued_and_stops_what_runs(worker, engine):
    running = worker.submit(Task("long", steps=5))
    assert engine.running.acquire(timeout=20)
    queued = worker.submit(Task("queued"))
    assert worker.cancel() == [queued]
    engine.gate.release()
    (only,) = results(worker, 1)
    assert only.generation == running and only.cancelled
    assert engine.began == ["long"] and not worker.isBusy


def test_cancelling_one_generation_leaves_the_others(worker, engine):
    worker.submit(Task("long", steps=1))
    assert engine.running.acquire(timeout=20)
    dropped = worker.submit(Task("a"))
    worker.submit(Task("b"))
    worker.cancel(dropped)
    engine.gate.release()
    assert [r.cancelled for r in results(worker, 2)] == [False, False]
    assert engine.began == ["long", "b"]


def test_requests_slip_into_a_long_one_at_its_progress_and_it_goes_on(worker, engine):
    worker.submit(Task("all", steps=2, lets_in=True, priority=4))
    assert engine.running.acquire(timeout=20)
    worker.submit(Task("click", slips_in=True))
    worker.submit(Task("patient"))
    engine.gate.release(2)
    answers = [r.value for r in results(worker, 3)]
    assert answers == ["answer to click", "answer to all", "answer to patient"]


def test_progress_tells_how_far_and_how_long_and_is_thinned(engine):
    times = iter([0.0, 0.0, 1.0, 1.01, 4.0, 5.0, 5.0, 5.0])
    worker = EngineWorker(engine, clock=lambda: next(times), progressInterval=0.5)
    worker.submit(Task("all", steps=4))
    engine.gate.release(4)
    heard = []
    while not heard or not isinstance(heard[-1], Result):
        item = worker.take(20)
        assert item is not None
        heard.append(item)
    worker.shutdown(20)
    told = [(p.done, p.total, p.text, p.seconds_left) for p in heard[:-1]]
    # the second callback comes 1 s later, the third within the interval is left out, the last one is always told
    assert told == [(1, 4, "step 1", 0.0), (2, 4, "step 2", 1.0), (4, 4, "step 4", 0.0)]


def test_errors_that_the_engine_knows_are_told_in_its_words_and_the_thread_lives_on(worker):
    worker.submit(Failing("a", "bad"))
    worker.submit(Task("b"))
    first, second = results(worker, 2)
    assert first.error == "explained: bad" and first.details == "" and first.value is None
    assert second.value == "answer to b"


def test_busy_until_the_last_result_is_taken(worker, engine):
    assert not worker.isBusy
    worker.submit(Task("a", steps=1))
    assert worker.isBusy
    assert engine.running.acquire(timeout=20)
    engine.gate.release()
    assert worker.isBusy
    results(worker, 1)
    assert not worker.isBusy
    assert worker.take() is None


def test_after_shutdown_nothing_is_accepted(engine):
    worker = EngineWorker(engine)
    worker.submit(Task("a", steps=1))
    assert engine.running.acquire(timeout=20)
    assert not worker.shutdown(0.01)
    engine.gate.release()
    assert worker.shutdown(20)
    with pytest.raises(RuntimeError, match="shut down"):
        worker.submit(Task("b"))
    assert EngineWorker(GatedEngine()).shutdown(1)
