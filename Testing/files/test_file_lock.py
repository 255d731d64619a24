"""One lock over all programs: held, asked for, waited for, and gone with its process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from SAMMed3DLib.files import output_files as module
from SAMMed3DLib.files.output_files import LockHeld, file_lock, is_locked


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_a_lock_is_held_by_one_at_a_time(path) -> None:
    assert not is_locked(path), "nothing there"
    with file_lock(path):
        assert is_locked(path)
        with pytest.raises(LockHeld, match="lock"), file_lock(path):
            raise AssertionError("held twice")
        assert is_locked(path), "whoever failed to get it has not lifted it"
    assert path.exists() and not is_locked(path)
    with file_lock(path), pytest.raises(ZeroDivisionError), file_lock(path.with_name("other")):
        1 / 0  # noqa: B018
    assert not is_locked(path.with_name("other"))


def test_it_is_waited_for(path) -> None:
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with file_lock(path):
            held.set()
            let_go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    threading.Timer(0.2, let_go.set).start()
    with file_lock(path, seconds=60):
        assert let_go.is_set()
    thread.join()


def test_it_goes_with_a_killed_process(path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom SAMMed3DLib.files.output_files import file_lock\n"
        "with file_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        assert child.stdout.readline() == "held\n"
        assert is_locked(path)
        child.kill()
    assert not is_locked(path)


def test_a_file_that_may_only_be_read_can_be_asked_about(path) -> None:
    with file_lock(path):
        path.chmod(0o444)
        assert is_locked(path)
    assert not is_locked(path)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path) -> None:
    with pytest.raises(FileNotFoundError), file_lock(tmp_path / "nowhere" / "lock"):
        raise AssertionError("held")


@pytest.mark.skipif(sys.platform == "win32", reason="fcntl")
def test_a_file_system_without_locks_stops_nobody(path, monkeypatch) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with file_lock(path):
        assert not is_locked(path)
