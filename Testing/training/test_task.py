"""Children that print JSON lines are followed without waiting; whatever they print, their end is told."""

from __future__ import annotations

import json

import pytest

from SAMMed3DTrainingLib.runs.run_files import RunError, read_word
from SAMMed3DTrainingLib.runs.task import Task, start_task

from .run_events import Process


@pytest.fixture
def process():
    return Process()


@pytest.fixture
def task(tmp_path, process):
    return Task(process, tmp_path / "task.log", tmp_path / "task.control")


def say(tmp_path, *lines) -> None:
    with (tmp_path / "task.log").open("a", encoding="utf-8") as file:
        for line in lines:
            file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")


def test_progress_items_notes_and_the_result(tmp_path, task, process):
    assert task.poll().state == "running" and task.status.fraction is None
    say(tmp_path, {"event": "note", "message": "hm"}, {"event": "progress", "done": 1, "total": 4, "left_s": 6.0,
                                                       "message": "P1"}, {"event": "item", "path": "a"}, "a warning")
    status = task.poll()
    assert (status.fraction, status.left_s, status.message, status.notes) == (0.25, 6.0, "P1", ("hm",))
    assert status.items[0]["path"] == "a" and not status.is_over
    say(tmp_path, {"event": "result", "mean": 0.5})
    assert task.poll().state == "running"  # until the process has ended
    process.code = 0
    status = task.poll()
    assert (status.state, status.result, status.fraction) == ("done", {"mean": 0.5}, 1.0)
    assert task.poll() is status


@pytest.mark.parametrize(
    ("line", "kind"),
    [({"event": "error", "message": "no data", "kind": "bad_data"}, "bad_data"),
     ({"event": "end", "reason": "failed", "message": "no data"}, "other")],
)
def test_a_failure_in_its_own_words(tmp_path, task, process, line, kind):
    say(tmp_path, line, "something after it")
    process.code = 2
    assert (task.poll().state, task.status.message, task.status.kind) == ("failed", "no data", kind)


def test_a_death_without_a_word(tmp_path, task, process):
    process.code = -11
    assert task.poll().state == "failed" and "-11" in task.status.message


def test_a_crash_tells_its_last_line(tmp_path, task, process):
    say(tmp_path, "Traceback", "ValueError: oh", "")
    process.code = 1
    assert task.poll().message == "ValueError: oh"


def test_a_result_without_an_exit_code_of_0_counts(tmp_path, task, process):
    """check ends with 1 where a data set has problems."""
    say(tmp_path, {"event": "result", "problems": [1]})
    process.code = 1
    assert task.poll().state == "done" and task.status.result == {"problems": [1]}


def test_cancel_asks_and_takes_what_there_is(tmp_path, task, process):
    task.cancel()
    assert read_word(tmp_path / "task.control") == "stop" and process.ended == []
    assert task.poll().state == "running"
    say(tmp_path, {"event": "result", "complete": False})
    process.code = 130
    assert task.poll().state == "cancelled" and task.status.result == {"complete": False}


def test_cancel_without_a_control_file_and_kill(tmp_path, process):
    Task(process, tmp_path / "log").cancel()
    Task(process, tmp_path / "log").kill()
    assert process.ended == ["terminate", "kill"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        start_task(None, "rank", [], tmp_path / "file" / "below")
