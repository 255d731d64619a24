"""A run is told as it is, whatever its process, its events and its control file say, and whatever they do not say."""

from __future__ import annotations

import math
import shutil
from collections import namedtuple

import pytest

from SAMMed3DTrainingLib.runs.run_files import DICE_BEST, EVENTS, LOG, STATE, hold_lock, read_command, write_command
from SAMMed3DTrainingLib.runs.run_monitor import RunMonitor

from .run_events import Process, begin, end, start, step, validation, write


class Clock:
    """Ten seconds pass at every look."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 10.0
        return self.now


@pytest.fixture
def process():
    return Process()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "Läufe" / "run"


@pytest.fixture
def monitor(folder, process):
    """Of a run that was just started."""
    folder.mkdir(parents=True)
    return RunMonitor(folder, process, Clock(), lambda: 1060.0)


@pytest.fixture
def held(folder, monitor):
    """The training process is there: it holds the lock and has noted itself."""
    with hold_lock(folder):
        begin(folder)
        yield


def test_from_the_start_to_the_end(folder, monitor, process):
    assert monitor.poll().state == "starting" and monitor.status.started is None
    with hold_lock(folder):
        begin(folder)
        write(folder, {"event": "reading", "done": 3, "total": 40})
        status = monitor.poll()
        assert (status.state, status.read) == ("starting", (3, 40)) and "3 of 40" in status.message
        write(
            folder,
            start(),
            {"event": "encoding", "done": 4, "total": 12},
            {"event": "encoding", "done": 8, "total": 12},
        )
        status = monitor.poll()
        assert (status.state, status.epochs, status.steps, status.nodules, status.cases) == ("encoding", 2, 10, 6, 3)
        assert status.fraction == pytest.approx(8 / 12) and status.left_s == pytest.approx(1.0)
        assert status.elapsed_s == pytest.approx(60.0)
        write(folder, validation(0, 0.1))
        status = monitor.poll()
        assert (status.state, status.fraction, status.left_s, status.best_dice) == ("running", 0.0, None, 0.1)
        write(folder, *(step(n) for n in range(1, 6)), validation(1, 0.7))
        status = monitor.poll()
        assert (status.state, status.epoch, status.step, status.fraction) == ("running", 1, 5, 0.5)
        assert status.left_s == 5.0 and status.best_dice == 0.7 and not status.is_over
        write(folder, step(6), validation(2, 0.6, best=False), end(time=1090.0))
    process.code = 0
    (folder / DICE_BEST).write_bytes(b"")
    (folder / STATE).write_bytes(b"")
    status = monitor.poll()
    assert (status.state, status.message, status.best_dice) == ("finished", "it finished", 0.7)
    assert status.weights == folder / DICE_BEST and status.elapsed_s == 90.0 and not status.resumable
    curves = status.curves
    assert curves.steps == [1, 2, 3, 4, 5, 6] and curves.loss == [0.5] * 6
    assert curves.val_dice == [(0.1, 0.1), (0.7, 0.7), (0.6, 0.6)]
    assert curves.val_best == [True, True, False] and curves.val_epochs == [0, 1, 2] and curves.rewritten == 0
    assert monitor.poll() is status  # nothing new, nothing made


@pytest.mark.usefixtures("held")
def test_pause_resume_and_stop(folder, monitor):
    write(folder, start(), step(1))
    assert monitor.poll().state == "running"
    monitor.pause()
    assert read_command(folder) == "pause" and monitor.poll().pausing and monitor.status.state == "running"
    write(folder, {"event": "paused", "epoch": 1, "step": 1})
    assert monitor.poll().state == "paused" and not monitor.status.pausing
    monitor.resume()
    write(folder, {"event": "resumed", "epoch": 1, "step": 1})
    assert read_command(folder) == "run" and monitor.poll().state == "running"
    monitor.stop()
    assert read_command(folder) == "stop" and monitor.poll().state == "stopping"


@pytest.mark.usefixtures("held")
def test_somebody_else_may_ask_too(folder, monitor):
    write(folder, start(), step(1))
    monitor.poll()
    write_command(folder, "stop")
    assert monitor.poll().state == "stopping"


def test_a_stop_while_it_is_only_starting_ends_it_at_once(monitor, process):
    monitor.poll()
    monitor.stop()
    assert process.ended == ["terminate"]
    assert monitor.poll().state == "stopped" and "nothing had been saved" in monitor.status.message


@pytest.mark.usefixtures("held")
def test_kill_ends_all_at_once_and_is_no_accident(folder, monitor, process):
    write(folder, start(), step(1))
    monitor.poll()
    monitor.kill()
    assert process.ended == ["kill"]


def test_killed_from_outside(folder, monitor, process):
    with hold_lock(folder):
        begin(folder)
        write(folder, start(), step(1))
        monitor.poll()
        (folder / STATE).write_bytes(b"")
    process.code = -9
    status = monitor.poll()
    assert status.state == "killed" and status.resumable and "signal 9" in status.message
    assert "Resume" in status.message


def test_a_launcher_that_ends_before_its_child_does_not_end_the_run(folder, monitor, process):
    """As PythonSlicer may."""
    with hold_lock(folder):
        begin(folder)
        write(folder, start(), step(1))
        process.code = 0
        assert monitor.poll().state == "running"
        write(folder, end("stopped"))
    assert monitor.poll().state == "stopped"


def test_a_process_that_never_began_tells_its_last_words(folder, monitor, process):
    (folder / LOG).write_text("Traceback\nModuleNotFoundError: No module named 'torch'\n\n", encoding="utf-8")
    process.code = 1
    status = monitor.poll()
    assert status.state == "failed" and "No module named 'torch'" in status.message and status.kind == "other"
    assert len(status.log) == 2


def test_an_earlier_end_is_not_this_ones(folder, process):
    """The folder of a run that failed and is started again."""
    begin(folder, "earlier")
    write(folder, start(), step(1), end("failed", kind="disk_full"))
    monitor = RunMonitor(folder, process, Clock())
    assert monitor.poll().state == "starting" and monitor.status.curves.steps == [1]
    with hold_lock(folder):
        begin(folder)
        write(folder, start(), step(1))
        assert monitor.poll().state == "running" and monitor.status.curves.steps == [1]
        assert monitor.status.curves.rewritten == 1


def test_out_of_memory_suggests_half_the_batch(folder, monitor, process):
    with hold_lock(folder):
        begin(folder)
        write(folder, start(), end("failed", kind="out_of_memory"))
    process.code = 1
    status = monitor.poll()
    assert (status.state, status.kind) == ("failed", "out_of_memory")
    assert (status.suggestion.batch_size, status.suggestion.accumulation_steps) == (2, 2)
    assert status.suggestion.folder == folder and not status.suggestion.resume


def test_a_full_disk_is_named_though_nobody_could_write_it_down(folder, monitor, process, monkeypatch):
    with hold_lock(folder):
        begin(folder)
        write(folder, start(), step(1))
    process.code = 1
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 0))
    status = monitor.poll()
    assert (status.state, status.kind) == ("failed", "disk_full") and "full" in status.message


@pytest.mark.usefixtures("held")
def test_it_is_not_over_before_the_process_is(folder, monitor):
    """It may still write plots, and holds the run."""
    write(folder, start(), step(1), end())
    assert monitor.poll().state == "running"


def test_of_several_processes_that_fail_the_first_tells_why(folder, monitor, process):
    begin(folder)
    write(folder, start(), end("failed", kind="out_of_memory"), end("failed", kind="other", message="connection lost"))
    process.code = 1
    assert monitor.poll().kind == "out_of_memory"


def test_a_resumed_run_draws_its_repeated_steps_once(folder, monitor):
    begin(folder, "earlier")
    write(folder, start(), *(step(n) for n in range(1, 8)), validation(1, 0.9))
    with hold_lock(folder):
        begin(folder)
        write(folder, start(5), step(6, loss=None))
        status = monitor.poll()
    assert status.curves.steps == [1, 2, 3, 4, 5, 6] and math.isnan(status.curves.loss[-1])
    assert status.best_dice == 0.9 and status.curves.val_steps == [5] and status.curves.rewritten == 1


@pytest.mark.usefixtures("held")
def test_torn_and_foreign_lines_do_no_harm(folder, monitor):
    write(folder, start(), step(1))
    with (folder / EVENTS).open("ab") as file:
        file.write(b'garbage\n[1, 2]\n{"event": 5}\n{"event": "step"}\n{"event": "of a later version"}\n{"event": "st')
    assert monitor.poll().step == 1 and monitor.status.state == "running"
    with (folder / EVENTS).open("ab") as file:
        file.write(b'ep", "epoch": 1, "step": 2, "steps": 10, "loss": 1.5}\n')
    assert monitor.poll().curves.loss == [0.5, 1.5]


@pytest.mark.usefixtures("held")
def test_events_that_begin_anew(folder, monitor):
    write(folder, start(), step(1), step(2))
    assert monitor.poll().step == 2
    (folder / EVENTS).unlink()
    write(folder, start())
    assert monitor.poll().curves.steps == [] and monitor.status.curves.rewritten == 1


@pytest.mark.usefixtures("held")
def test_warnings_and_log(folder, monitor):
    write(folder, {"event": "warning", "message": "one"}, start(), {"event": "warning", "message": "two"})
    (folder / LOG).write_text("\n".join(f"line {n}" for n in range(500)) + "\nüber\n", encoding="utf-8")
    status = monitor.poll()
    assert status.warnings == ("one", "two") and len(status.log) == 200 and status.log[-1] == "über"


def test_a_long_run_is_read_in_parts(folder):
    begin(folder)
    steps = [step(n) for n in range(1, 3001)]
    write(folder, start(), *steps, end())
    monitor, polls = RunMonitor(folder), 1
    status = monitor.poll()
    assert not status.caught_up and not status.is_over  # no verdict before all is read
    while not status.caught_up:
        status, polls = monitor.poll(), polls + 1
    assert polls > 2 and status.state == "finished" and len(status.curves.steps) == 3000


# -- found on disk ----------------------------------------------------------------------------------------------------


def test_a_run_under_way_is_found(folder):
    folder.mkdir(parents=True)
    with hold_lock(folder):
        begin(folder, "somebody's")
        write(folder, start(), step(1))
        monitor = RunMonitor(folder, None, Clock())
        assert monitor.poll().state == "running" and monitor.status.step == 1
    assert monitor.poll().state == "killed"


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([start(), step(1), end("finished")], "finished"),
        ([start(), end("stopped")], "stopped"),
        ([start(), end("failed")], "failed"),
        ([start(), step(1)], "killed"),
        ([], "killed"),
        ([start(), end("failed"), start(), step(1)], "killed"),
    ],
)
def test_what_a_run_that_is_over_came_to(folder, events, state):
    """Also one from before there was process.json."""
    write(folder, *events)
    assert RunMonitor(folder).poll().state == state
    shutil.rmtree(folder)
    begin(folder)
    write(folder, *events)
    assert RunMonitor(folder).poll().state == state


def test_a_run_found_on_disk_may_be_taken_up_again_by_others(folder):
    begin(folder, "earlier")
    write(folder, start(), step(1), end("stopped"))
    monitor = RunMonitor(folder, None, Clock())
    assert monitor.poll().state == "stopped"
    with hold_lock(folder):
        begin(folder, "later")
        assert monitor.poll().state == "starting" and monitor.status.message != "it stopped"
        write(folder, start(1), step(2))
        assert monitor.poll().state == "running"
        write(folder, end("finished"))
    assert monitor.poll().state == "finished"
