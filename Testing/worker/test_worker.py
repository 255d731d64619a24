"""The queue of the worker thread, with engines that wait until the test lets them go on."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import ClassVar

import pytest

from SAMMed3DLib.worker.requests import FunctionRequest, Priority, Progress, RequestCancelled, Result
from SAMMed3DLib.worker.thread import Client, Worker, _seconds_left


@dataclass(frozen=True)
class Gated:
    """A request with ``steps`` progress callbacks, before each of which the engine waits for the test."""

    key: str
    name: str = ""
    steps: int = 0
    priority: Priority = Priority.SETUP
    fails: ClassVar[bool] = False


@dataclass(frozen=True)
class Failing(Gated):
    fails: ClassVar[bool] = True


class GatedEngine:
    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.began: list[str] = []
        self.running = threading.Semaphore(0)

    def run(self, request, report):
        self.began.append(request.name or request.key)
        self.running.release()
        for step in range(request.steps):
            assert self.gate.acquire(timeout=20)
            if not report(step + 1, request.steps, f"step {step + 1}"):
                raise RequestCancelled(f"{step} steps done")
        if request.fails:
            raise ValueError(request.name) if request.name else ZeroDivisionError("oops")
        return f"answer to {request.name or request.key}"

    def explain(self, error):
        return f"explained: {error}" if isinstance(error, ValueError) else None


@pytest.fixture
def engine():
    return GatedEngine()


@pytest.fixture
def worker(engine):
    ticks = iter(range(10**6))
    worker = Worker(engine, clock=lambda: float(next(ticks)))
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
    first = worker.submit(Gated("a"))
    second = worker.submit(Failing("b"))
    assert second > first
    answered = results(worker, 2)
    assert [(r.generation, r.value, r.error) for r in answered][0] == (first, "answer to a", None)
    assert threads[0] is not threading.current_thread() and threads[0].daemon
    assert answered[1].error == "Unexpected ZeroDivisionError: oops" and "Traceback" in answered[1].details
    assert not worker.isBusy


def test_a_queued_request_of_equal_key_is_replaced_and_others_are_not(worker, engine):
    worker.submit(Gated("busy", steps=1))
    assert engine.running.acquire(timeout=20)
    worker.submit(Gated("a", "old a"))
    worker.submit(Gated("b"))
    worker.submit(Gated("a", "new a"))
    engine.gate.release()
    assert [r.value for r in results(worker, 3)][1:] == ["answer to b", "answer to new a"]
    assert "old a" not in engine.began


def test_smaller_priorities_run_first_and_equals_in_order(worker, engine):
    worker.submit(Gated("busy", steps=1))
    assert engine.running.acquire(timeout=20)
    for key, priority in (
        ("late", Priority.LONG),
        ("first", Priority.CLICK),
        ("second", Priority.CLICK),
        ("model", Priority.SETUP),
    ):
        worker.submit(Gated(key, priority=priority))
    engine.gate.release()
    results(worker, 5)
    assert engine.began == ["busy", "model", "first", "second", "late"]


def test_a_running_idle_request_is_cancelled_by_any_other(worker, engine):
    worker.submit(Gated("prefetch", steps=3, priority=Priority.IDLE))
    assert engine.running.acquire(timeout=20)
    engine.gate.release()
    while not isinstance(worker.take(20), Progress):
        pass
    worker.submit(Gated("click"))
    engine.gate.release()
    first, second = results(worker, 2)
    assert first.cancelled and first.error is None and first.value == "1 steps done"
    assert second.value == "answer to click" and not second.cancelled


def test_an_ordinary_request_goes_on_when_another_comes(worker, engine):
    worker.submit(Gated("click", steps=2))
    assert engine.running.acquire(timeout=20)
    worker.submit(Gated("other"))
    engine.gate.release(2)
    assert [r.cancelled for r in results(worker, 2)] == [False, False]


def test_cancel_drops_what_is_queued_and_stops_what_runs(worker, engine):
    running = worker.submit(Gated("long", steps=5))
    assert engine.running.acquire(timeout=20)
    queued = worker.submit(Gated("queued"))
    assert worker.cancel() == [queued]
    engine.gate.release()
    (only,) = results(worker, 1)
    assert only.generation == running and only.cancelled
    assert engine.began == ["long"] and not worker.isBusy


def test_cancelling_one_generation_leaves_the_others(worker, engine):
    worker.submit(Gated("long", steps=1))
    assert engine.running.acquire(timeout=20)
    dropped = worker.submit(Gated("a"))
    worker.submit(Gated("b"))
    worker.cancel(dropped)
    engine.gate.release()
    assert [r.cancelled for r in results(worker, 2)] == [False, False]
    assert engine.began == ["long", "b"]


def test_short_requests_slip_into_a_long_one_at_its_progress_and_it_goes_on(worker, engine):
    worker.submit(Gated("all", steps=2, priority=Priority.LONG))
    assert engine.running.acquire(timeout=20)
    for name, priority in (
        ("setup", Priority.SETUP),
        ("idle", Priority.IDLE),
        ("measure", Priority.SHORT),
        ("click", Priority.CLICK),
        ("more", Priority.LONG),
    ):
        worker.submit(Gated(name, priority=priority))
    engine.gate.release(2)
    answers = [r.value.removeprefix("answer to ") for r in results(worker, 6)]
    assert answers == ["click", "measure", "all", "setup", "more", "idle"]


def test_progress_tells_how_far_and_how_long_and_is_thinned(engine):
    times = iter([0.0, 0.0, 1.0, 1.01, 4.0, 5.0, 5.0, 5.0])
    worker = Worker(engine, clock=lambda: next(times), progressInterval=0.5)
    worker.submit(Gated("all", steps=4))
    engine.gate.release(4)
    heard = []
    while not heard or not isinstance(heard[-1], Result):
        item = worker.take(20)
        assert item is not None
        heard.append(item)
    worker.shutdown(20)
    told = [(p.done, p.total, p.text, p.seconds_left) for p in heard[:-1]]
    # the second callback comes 1 s later, the third within the interval is left out, the last one is always told
    assert told == [(1, 4, "step 1", 0.0), (2, 4, "step 2", 2.0), (4, 4, "step 4", 0.0)]


def test_what_a_request_knows_of_the_time_left_counts_more_than_its_pace():
    worker = Worker(progressInterval=0.0)
    worker.submit(FunctionRequest(lambda report: [report(1, 2, ""), *(report(1, 2, "", None, s) for s in (None, 7.0))]))
    told = []
    while not isinstance(item := worker.take(20), Result):
        told.append(item.seconds_left)
    worker.shutdown(20)
    assert told[0] is not None and told[1:] == [None, 7.0]


@pytest.mark.parametrize(
    ("past", "left"),
    [
        ([(10.0, 5)], 10.0),  # one step in 2 s
        ([(2.0, 4), (4.0, 5), (12.0, 6)], 32.0),  # since half of the time has passed, one in 8 s
        ([(8.0, 1), (10.0, 2), (12.0, 6)], 8.0),  # faster now, but the whole had one in 2 s
        ([(4.0, 0)], None),
    ],
)
def test_the_slower_pace_tells_the_time_left(past, left):
    assert _seconds_left(0.0, past, 10) == left


def test_nobody_knows_how_long_what_has_no_end_takes():
    assert _seconds_left(0.0, [(1.0, 3)], 0) is None


def test_what_is_known_of_an_answer_is_never_left_out(worker, engine):
    def work(report):
        for step in range(3):
            report(step, 9, "", *(["part"] if step == 1 else []))

    worker = Worker(clock=lambda: 0.0, progressInterval=100.0)
    worker.submit(FunctionRequest(work))
    heard = [worker.take(20) for _ in range(3)]
    assert [item.value for item in heard] == [None, "part", None] and isinstance(heard[2], Result)
    worker.shutdown(20)


def test_errors_that_the_engine_knows_are_told_in_its_words_and_the_thread_lives_on(worker):
    worker.submit(Failing("a", "bad"))
    worker.submit(Gated("b"))
    first, second = results(worker, 2)
    assert first.error == "explained: bad" and first.details == "" and first.value is None
    assert second.value == "answer to b"


def test_busy_until_the_last_result_is_taken(worker, engine):
    assert not worker.isBusy
    worker.submit(Gated("a", steps=1))
    assert worker.isBusy
    assert engine.running.acquire(timeout=20)
    engine.gate.release()
    assert worker.isBusy
    results(worker, 1)
    assert not worker.isBusy
    assert worker.take() is None


def test_after_shutdown_nothing_is_accepted(engine):
    worker = Worker(engine)
    worker.submit(Gated("a", steps=1))
    assert engine.running.acquire(timeout=20)
    assert not worker.shutdown(0.01)
    engine.gate.release()
    assert worker.shutdown(20)
    with pytest.raises(RuntimeError, match="shut down"):
        worker.submit(Gated("b"))
    assert Worker(GatedEngine()).shutdown(1)


def test_functions_run_on_the_thread_and_errors_for_users_are_told_in_their_own_words():
    worker, threads = Worker(), []
    worker.submit(FunctionRequest(lambda report: threads.append(threading.current_thread()) or "done"))
    worker.submit(FunctionRequest(lambda report: (_ for _ in ()).throw(OSError("no space"))))
    worker.submit(FunctionRequest(lambda report: [][0]))
    first, second, third = results(worker, 3)
    assert first.value == "done" and threads[0] is not threading.current_thread()
    assert second.error == "no space" and second.details == ""
    assert third.error.startswith("Unexpected IndexError") and "Traceback" in third.details
    assert worker.shutdown(20)


def test_a_client_hands_every_answer_to_whoever_asked(worker, engine):
    client, heard, busy, progress = Client(worker), [], [], []
    client.busyChanged.connect(busy.append)
    client.progressed.connect(progress.append)
    client.submit(Gated("a", steps=1), lambda result: heard.append(("a", result.value)))
    client.submit(Gated("b"), lambda result: heard.append(("b", result.value)))
    assert client.isBusy and busy == [True]
    engine.gate.release()
    while client.poll(20):
        pass
    assert heard == [("a", "answer to a"), ("b", "answer to b")]
    assert [each.text for each in progress] == ["step 1"]
    assert busy == [True, False] and not client.isBusy


def test_a_client_tells_of_requests_that_are_cancelled_before_they_begin(worker, engine):
    client, heard = Client(worker), []
    client.submit(Gated("running", steps=3), heard.append)
    client.submit(Gated("waiting"), heard.append)
    assert engine.running.acquire(timeout=20)
    client.cancel()
    assert heard == [], "only a poll hands out answers"
    engine.gate.release()
    while client.poll(20):
        pass
    assert [(result.request.key, result.cancelled) for result in heard] == [("waiting", True), ("running", True)]
    assert engine.began == ["running"]
    client.close(20)
    with pytest.raises(RuntimeError, match="shut down"):
        client.submit(Gated("late"), heard.append)
