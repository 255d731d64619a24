"""The list of runs says what they were; renaming and deleting never touch one that is under way, or anything else."""

from __future__ import annotations

import json
import sys

import pytest

from SAMMed3DTrainingLib.runs.run_files import CONFIG, DICE_BEST, LATEST, STATE, RunError, hold_lock, write_command
from SAMMed3DTrainingLib.runs.run_history import RunHistory
from SAMMed3DTrainingLib.runs.run_request import TrainingRequest, running_in

from .run_events import begin, end, start, step, validation, write


@pytest.fixture
def work(tmp_path):
    """Three runs: finished, killed, and stopped long ago; and things that are no runs."""
    work = tmp_path / "Läufe"
    begin(work / "fertig", time=2000.0)
    write(
        work / "fertig",
        start(),
        *(step(n) for n in range(1, 11)),
        validation(1, 0.6),
        validation(2, 0.8),
        end(time=2090.0),
        since=2000.0,
    )
    (work / "fertig" / DICE_BEST).write_bytes(b"w" * 1000)
    (work / "fertig" / STATE).write_bytes(b"s" * 500)
    begin(work / "killed", time=3000.0)
    write(work / "killed", start(), step(1), validation(1, 0.4), since=3000.0)
    (work / "killed" / LATEST).write_bytes(b"w")
    (work / "killed" / STATE).write_bytes(b"s")
    write(work / "old", start(), end("stopped"), since=100.0)
    (work / ".case_cache" / "entry").mkdir(parents=True)
    (work / "notes").mkdir()
    (work / "file.txt").write_text("")
    return work


def by_name(history):
    return {record.name: record for record in history.runs()}


def test_all_runs_the_newest_first(work):
    history = RunHistory(work)
    assert [record.name for record in history.runs()] == ["killed", "fertig", "old"]
    done = by_name(history)["fertig"]
    assert (done.state, done.best_dice, done.nodules, done.cases) == ("finished", 0.8, 6, 3)
    assert (done.started.timestamp(), done.ended.timestamp()) == (2000.0, 2090.0)
    assert done.weights == work / "fertig" / DICE_BEST and not done.resumable and done.config["preset"] == "quick"
    assert done.size_bytes == sum(path.stat().st_size for path in (work / "fertig").iterdir()) > 1500
    killed = by_name(history)["killed"]
    assert (killed.state, killed.resumable, killed.weights) == ("killed", True, work / "killed" / LATEST)
    assert by_name(history)["old"].state == "stopped" and by_name(history)["old"].weights is None


def test_no_folder_yet(tmp_path):
    history = RunHistory(tmp_path / "nowhere")
    assert history.runs() == []


def test_what_has_changed_is_read_again(work):
    history = RunHistory(work)
    history.runs()
    write(work / "killed", validation(2, 0.9), end("stopped"))
    assert by_name(history)["killed"].best_dice == 0.9 and by_name(history)["killed"].state == "stopped"
    with hold_lock(work / "killed"):
        assert by_name(history)["killed"].is_running and not by_name(history)["killed"].resumable
        assert running_in(work) == ["killed"]
    assert not by_name(history)["killed"].is_running


def test_ended_by_its_user_without_a_word_is_stopped(work):
    write_command(work / "killed", "stop")
    assert by_name(RunHistory(work))["killed"].state == "stopped"


def test_a_run_gets_another_name_and_can_still_be_resumed(work):
    history = RunHistory(work)
    assert history.rename("killed", " Süd 2 ") == work / "Süd 2"
    assert set(by_name(history)) == {"fertig", "Süd 2", "old"}
    assert json.loads((work / "Süd 2" / CONFIG).read_text(encoding="utf-8"))["task_name"] == "Süd 2"
    assert TrainingRequest.of_run(work / "Süd 2").folder == work / "Süd 2"


@pytest.mark.parametrize(
    ("name", "new", "message"),
    [
        ("killed", "fertig", "already"),
        ("killed", "a/b", "every system"),
        ("killed", "  ", "needs a name"),
        ("nobody", "x", "no run nobody"),
        ("notes", "x", "no run notes"),
        (".case_cache", "x", "no run"),
        ("../Läufe/killed", "x", "no run"),
    ],
)
def test_names_that_cannot_be(work, name, new, message):
    with pytest.raises(RunError, match=message):
        RunHistory(work).rename(name, new)
    assert (work / "killed").is_dir() and (work / "fertig").is_dir()


def test_deleting_tells_what_it_frees(work):
    history = RunHistory(work)
    size = by_name(history)["fertig"].size_bytes
    assert history.delete("fertig") == size
    assert set(by_name(history)) == {"killed", "old"} and not (work / "fertig").exists()
    for name in ("fertig", "notes", ".case_cache", "..", "."):
        with pytest.raises(RunError, match="no run"):
            history.delete(name)
    assert (work / "notes").is_dir() and (work / ".case_cache" / "entry").is_dir()


def test_a_run_under_way_is_left_alone(work):
    history = RunHistory(work)
    with hold_lock(work / "killed"):
        with pytest.raises(RunError, match="under way"):
            history.rename("killed", "other")
        with pytest.raises(RunError, match="under way"):
            history.delete("killed")
    assert (work / "killed" / STATE).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_what_a_link_points_to_is_never_deleted(work, tmp_path):
    begin(tmp_path / "elsewhere")
    (work / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="no run"):
        RunHistory(work).delete("link")
    assert (tmp_path / "elsewhere" / CONFIG).exists()


def test_a_refusal_of_the_system_is_told(work, monkeypatch):
    from SAMMed3DTrainingLib.runs import run_history

    def refuse(path):
        raise PermissionError(13, "in use", str(path))

    monkeypatch.setattr(run_history.shutil, "rmtree", refuse)
    with pytest.raises(RunError, match="in use"):
        RunHistory(work).delete("fertig")
