"""A command tells how far it is, hears when it is to end, and has one clear last word."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings

import pytest

from SAMMed3DLib.inference import InputError
from SAMMed3DTrainingLib.commands import COMMANDS, check
from SAMMed3DTrainingLib.job import Job

from .dataset_files import balls, write_case


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_lines(capsys):
    seconds = iter([0.0, *(float(n) for n in range(100))])
    job = Job("x", True, clock=lambda: next(seconds))
    job.note("hm")
    job.progress(1, 4, "P1")
    job.item({"n": 1}, "one")
    job.result({"n": 2}, "two")
    note, progress, item, result = lines(capsys)
    assert (note, item, result) == (
        {"event": "note", "message": "hm"},
        {"event": "item", "n": 1},
        {"event": "result", "n": 2},
    )
    assert (progress["done"], progress["total"], progress["message"]) == (1, 4, "P1") and progress["left_s"] > 0


def test_text(capsys):
    job = Job("x")
    job.note("hm")
    job.progress(1, 4)
    job.result({}, "the table")
    job.error("no", "other")
    captured = capsys.readouterr()
    assert captured.out == "the table\n" and "note: hm" in captured.err and "x: error: no" in captured.err


def test_progress_is_not_told_a_thousand_times(capsys):
    job = Job("x", True, clock=lambda: 5.0)
    for done in range(1001):
        job.progress(done, 1000)
    assert [line["done"] for line in lines(capsys)] == [0, 1000]


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        (InputError("torn"), "other", "torn"),
        (MemoryError(), "out_of_memory", "memory"),
        (RuntimeError("CUDA out of memory"), "out_of_memory", "memory"),
        (OSError(28, "No space left", "/x"), "disk_full", "/x: No space left"),
    ],
)
def test_errors_become_the_last_word(capsys, error, kind, word):
    def work(job):
        raise error

    assert Job("x", True).run(work) == 2
    (line,) = lines(capsys)
    assert (line["event"], line["kind"]) == ("error", kind) and word in line["message"]


def test_our_own_mistakes_are_not_hidden():
    def work(job):
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        Job("x", True).run(work)


def test_warnings_become_notes(capsys):
    def work(job):
        warnings.warn_explicit("ours", UserWarning, "a.py", 1, module="SAMMed3DLib.files.volume_io")
        warnings.warn_explicit("theirs", UserWarning, "b.py", 1, module="numpy")

    assert Job("x", True).run(work) == 0
    assert lines(capsys) == [{"event": "note", "message": "ours"}]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_a_polite_kill_is_heard_a_second_one_ends_it():
    def work(job):
        assert not job.cancelled
        os.kill(os.getpid(), signal.SIGTERM)
        assert job.cancelled

    before = signal.getsignal(signal.SIGTERM)
    assert Job("x", True).run(work) == 130 and signal.getsignal(signal.SIGTERM) is before

    def twice(job):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")

    assert Job("x", True).run(twice) == 130


def test_the_control_file(tmp_path):
    control = tmp_path / "control"
    seconds = iter(float(n) for n in range(100))
    job = Job("x", True, control, clock=lambda: next(seconds))
    assert not job.cancelled
    control.write_text("run")
    assert not job.cancelled
    control.write_text("stop\n")
    assert job.cancelled
    control.unlink()
    assert job.cancelled


def test_check_for_programs(tmp_path, capsys):
    write_case(tmp_path / "set", "P1", balls((8, 12, 12)))
    assert check([str(tmp_path / "set"), "--json"]) == 0
    result = lines(capsys)[-1]
    assert (result["event"], result["cases"], result["nodules"], result["clean"]) == ("result", 1, 1, True)
    write_case(tmp_path / "set", "P2", None)
    (tmp_path / "set" / "imagesTr" / "P3_0000.nii.gz").write_bytes(b"torn")
    write_case(tmp_path / "set", "P4", balls())
    assert check([str(tmp_path / "set"), "--json"]) == 1
    result = lines(capsys)[-1]
    assert (result["cases"], result["labelled"], result["clean"], result["fatal"]) == (4, 2, False, True)
    assert any(problem["case"].endswith("P3") for problem in result["problems"])
    assert check([str(tmp_path / "gone"), "--json"]) == 2
    assert lines(capsys)[-1]["event"] == "error"


def test_the_commands():
    assert sorted(COMMANDS) == ["check", "compare", "evaluate", "rank", "train"]
