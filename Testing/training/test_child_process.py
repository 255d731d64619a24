"""Child processes: started without a shell, followed, and ended with everything they started. Real processes."""

from __future__ import annotations

import json
import os
import sys

import pytest

from SAMMed3DTrainingLib.runs.child_process import AttachedProcess, TrainingProcess
from SAMMed3DTrainingLib.runs.process_tree import Process, end_tree, processes, tree
from SAMMed3DTrainingLib.runs.run_files import SESSION, RunError, hold_lock, note_process

from .child_scripts import STUBBORN, WITH_GRANDCHILD, command, environment, numbers, until

HARD = [pytest.param(0.0, id="at once"), pytest.param(5.0, id="politely first")]


def alive(pid: int) -> bool:
    return pid in {each.pid for each in processes()}


def start(tmp_path, script: str, *arguments: str) -> TrainingProcess:
    return TrainingProcess.start(command(script, *arguments), environment(), tmp_path / "run.log")


def test_words_arrive_as_they_are_and_output_is_appended_to_the_log(tmp_path):
    log = tmp_path / "Läufe mit Leerzeichen" / "run.log"
    log.parent.mkdir()
    log.write_bytes(b"before\n")
    words = ["a b", 'quo"te', "$HOME", "&& echo", "%PATH%", "ü", ""]
    script = "import sys, json; print(json.dumps(sys.argv[1:])); print('oh', file=sys.stderr); sys.exit(3)"
    process = TrainingProcess.start([sys.executable, "-S", "-c", script, *words], environment(), log)
    until(lambda: process.poll() is not None)
    assert process.poll() == 3
    first, *rest = log.read_text(encoding="utf-8").splitlines()
    assert first == "before" and process.log_offset == 7
    assert json.loads(rest[0]) == words and rest[1] == "oh"


def test_what_cannot_be_started_is_named(tmp_path):
    with pytest.raises(RunError, match="no_such_program"):
        TrainingProcess.start([str(tmp_path / "no_such_program")], environment(), tmp_path / "run.log")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="log"):
        TrainingProcess.start(command("pass"), environment(), tmp_path / "file" / "run.log")


@pytest.mark.parametrize("grace_s", HARD)
def test_the_whole_tree_ends(tmp_path, grace_s):
    process = start(tmp_path, WITH_GRANDCHILD, str(tmp_path / "pids"), "stays")
    child, grandchild = numbers(tmp_path / "pids")
    assert child == process.pid and alive(child) and alive(grandchild)
    process.kill_tree(grace_s)
    assert not alive(child) and not alive(grandchild)
    assert process.poll() is not None
    process.kill_tree()  # nothing is left to end


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="found by the environment in /proc")
def test_a_grandchild_ends_although_its_parent_is_gone(tmp_path):
    """As with a launcher that has died: nothing but the environment says whose process it is."""
    process = start(tmp_path, WITH_GRANDCHILD, str(tmp_path / "pids"), "goes")
    child, grandchild = numbers(tmp_path / "pids")
    until(lambda: process.poll() is not None)
    assert not alive(child) and alive(grandchild)
    process.kill_tree()
    assert not alive(grandchild)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_who_does_not_hear_is_ended_all_the_same(tmp_path):
    process = start(tmp_path, STUBBORN, str(tmp_path / "pids"))
    numbers(tmp_path / "pids")
    process.terminate()
    assert process.poll() is None
    process.kill_tree(0.2)
    assert process.poll() == -9


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_a_polite_end(tmp_path):
    process = start(tmp_path, WITH_GRANDCHILD, str(tmp_path / "pids"), "stays")
    numbers(tmp_path / "pids")
    process.terminate()
    until(lambda: process.poll() is not None)
    assert process.poll() == -15
    process.kill_tree()


def test_it_never_ends_itself_or_those_it_comes_from():
    assert os.getpid() not in tree(os.getpid()) and os.getpid() not in tree(os.getppid())


def test_an_older_process_is_nobodys_child(monkeypatch):
    """Windows gives the number of a dead parent to another process."""
    from SAMMed3DTrainingLib.runs import process_tree

    table = [
        Process(10, 1, started=500),
        Process(11, 10, started=600),
        Process(12, 11, started=600),
        Process(13, 10, started=400),
        Process(14, 13, started=700),
        Process(15, 99, started=900),
    ]
    monkeypatch.setattr(process_tree, "processes", lambda: table)
    assert tree(10) == {10, 11, 12}
    assert tree(99) == set()  # gone, and so its number may be anyone's


def test_what_cannot_be_ended_is_told(tmp_path, monkeypatch):
    from SAMMed3DTrainingLib.runs import process_tree

    other = Process(999_999_999, 1, 999_999_999)  # no signal reaches it
    monkeypatch.setattr(process_tree, "processes", lambda: [other])
    seconds = iter(range(100))
    assert end_tree(other.pid, sleep=lambda _: None, clock=lambda: next(seconds)) == {other.pid}
    assert next(seconds) < 10


def test_a_run_found_on_disk_lives_as_long_as_its_lock_is_held(tmp_path):
    attached = AttachedProcess(tmp_path)
    assert attached.poll() == 0
    with hold_lock(tmp_path):
        note_process(tmp_path, 4711, "mine")
        assert attached.poll() is None and attached.session == "mine"
    assert attached.poll() == 0
    attached.kill_tree()  # 4711 may long be another program's number: nobody is touched


def test_a_run_of_another_machine_is_not_ended_here(tmp_path, monkeypatch):
    from SAMMed3DTrainingLib.runs import child_process

    with hold_lock(tmp_path):
        note_process(tmp_path, os.getpid(), "")
        monkeypatch.setattr(child_process.platform, "node", lambda: "elsewhere")
        with pytest.raises(RunError, match="under way on"):
            AttachedProcess(tmp_path).kill_tree()


def test_an_attached_tree_ends(tmp_path):
    """A child that was started elsewhere: known by its number and session in process.json."""
    process = start(tmp_path, WITH_GRANDCHILD, str(tmp_path / "pids"), "stays")
    child, grandchild = numbers(tmp_path / "pids")
    with hold_lock(tmp_path):
        note_process(tmp_path, child, process.session)
        AttachedProcess(tmp_path).kill_tree()
    assert not alive(grandchild)
    until(lambda: process.poll() is not None)


def test_every_start_has_a_session_of_its_own_in_its_environment(tmp_path):
    script = f"import os; print(os.environ['{SESSION}'])"
    found = []
    for _ in range(2):
        process = start(tmp_path, script)
        until(lambda process=process: process.poll() is not None)
        found.append(process.session)
    assert (tmp_path / "run.log").read_text(encoding="utf-8").split() == found and len(set(found)) == 2
