"""Children that print JSON lines are followed without waiting; whatever they print, their end is told."""

from __future__ import annotations

import json

import pytest

from SAMMed3DTrainingLib.runs.job_process import JobProcess, start_job
from SAMMed3DTrainingLib.runs.run_files import RunError, read_word

from .run_events import Process


@pytest.fixture
def process():
    return Process()


@pytest.fixture
def job(tmp_path, process):
    return JobProcess(process, tmp_path / "job.log", tmp_path / "job.control")


def say(tmp_path, *lines) -> None:
    with (tmp_path / "job.log").open("a", encoding="utf-8") as file:
        for line in lines:
            file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")


def test_progress_items_notes_and_the_result(tmp_path, job, process):
    assert job.poll().state == "running" and job.status.fraction is None
    say(
        tmp_path,
        {"event": "note", "message": "hm"},
        {"event": "progress", "done": 1, "total": 4, "left_s": 6.0, "message": "P1"},
        {"event": "item", "path": "a"},
        "a warning",
    )
    status = job.poll()
    assert (status.fraction, status.left_s, status.message, status.notes) == (0.25, 6.0, "P1", ("hm",))
    assert status.items[0]["path"] == "a" and not status.is_over
    say(tmp_path, {"event": "result", "mean": 0.5})
    assert job.poll().state == "running"  # until the process has ended
    process.code = 0
    status = job.poll()
    assert (status.state, status.result, status.fraction) == ("done", {"mean": 0.5}, 1.0)
    assert job.poll() is status


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({"event": "error", "message": "no data", "kind": "bad_data"}, "bad_data"),
        ({"event": "end", "reason": "failed", "message": "no data"}, "other"),
    ],
)
def test_a_failure_in_its_own_words(tmp_path, job, process, line, kind):
    say(tmp_path, line, "something after it")
    process.code = 2
    assert (job.poll().state, job.status.message, job.status.kind) == ("failed", "no data", kind)


def test_a_death_without_a_word(tmp_path, job, process):
    process.code = -11
    assert job.poll().state == "failed" and "-11" in job.status.message


def test_a_crash_tells_its_last_line(tmp_path, job, process):
    say(tmp_path, "Traceback", "ValueError: oh", "")
    process.code = 1
    assert job.poll().message == "ValueError: oh"


def test_a_result_without_an_exit_code_of_0_counts(tmp_path, job, process):
    """check ends with 1 where a data set has problems."""
    say(tmp_path, {"event": "result", "problems": [1]})
    process.code = 1
    assert job.poll().state == "done" and job.status.result == {"problems": [1]}


def test_cancel_asks_and_takes_what_there_is(tmp_path, job, process):
    job.cancel()
    assert read_word(tmp_path / "job.control") == "stop" and process.ended == []
    assert job.poll().state == "running"
    say(tmp_path, {"event": "result", "complete": False})
    process.code = 130
    assert job.poll().state == "cancelled" and job.status.result == {"complete": False}


def test_cancel_without_a_control_file_and_kill(tmp_path, process):
    JobProcess(process, tmp_path / "log").cancel()
    JobProcess(process, tmp_path / "log").kill()
    assert process.ended == ["terminate", "kill"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        start_job(None, "rank", [], tmp_path / "file" / "below")
