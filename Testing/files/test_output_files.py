"""Only regular files are replaced, once their content is on the disk; nothing is left behind, however a run ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from SAMMed3DLib.files import output_files
from SAMMed3DLib.files.output_files import check_folder, check_writable, new_folder, safe_name, whole_file
from SAMMed3DLib.files.volume_io import read_labels, read_volume
from SAMMed3DLib.inference.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name == "nt", reason="pipes, devices and signals of POSIX")


@posix
def test_a_pipe_or_a_device_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    (tmp_path / "null.csv").symlink_to("/dev/null")
    (tmp_path / "link.csv").symlink_to(pipe)
    for name in ("pipe.csv", "null.csv", "link.csv"):
        with pytest.raises(InputError, match="is a pipe or a device"):
            check_writable(tmp_path / name, (".csv",))
        with pytest.raises(InputError, match="is a pipe or a device"), whole_file(tmp_path / name) as part:
            part.write_text("x")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert (tmp_path / "null.csv").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "null.csv", "pipe.csv"]


@posix
def test_a_link_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to("b.csv")
    (tmp_path / "b.csv").symlink_to("a.csv")
    with pytest.raises(InputError, match="leads to itself"):
        check_writable(tmp_path / "a.csv", (".csv",))
    with pytest.raises(InputError, match="cannot be read|does not exist"):
        read_volume(tmp_path / "a.csv")


def test_a_name_that_is_empty_is_refused() -> None:
    with pytest.raises(InputError, match="a file without a name cannot be written"):
        check_writable(Path(), (".csv",))
    for name in ("", "  "):
        with pytest.raises(InputError, match="no file was named"):
            read_volume(name)


@posix
@pytest.mark.parametrize("read", [read_volume, read_labels])
def test_a_pipe_or_a_device_is_not_waited_for(read, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ct.nii.gz")
    for path in (tmp_path / "ct.nii.gz", Path("/dev/zero")):
        with pytest.raises(InputError, match="a pipe or a device"):
            read(path)
    (tmp_path / "ct.nhdr").write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nspacings: 1 1 1\nencoding: raw\ndata file: ct.nii.gz\n\n"
    )
    with pytest.raises(InputError, match="a pipe or a device"):
        read(tmp_path / "ct.nhdr")


def test_a_user_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="~nobody-of-that-name/x.nii cannot be found"):
        read_volume("~nobody-of-that-name/x.nii")


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: steps.append("sync") or sync(handle))
    monkeypatch.setattr(Path, "replace", lambda self, to: steps.append("rename") or replace(self, to))
    with whole_file(tmp_path / "a.txt") as part:
        part.write_text("content")
    assert steps[:2] == ["sync", "rename"]
    assert (tmp_path / "a.txt").read_text() == "content"


WRITER = """
import sys, time
from pathlib import Path
from SAMMed3DLib.commandline.terminal import ending_cleanly
from SAMMed3DLib.files.output_files import whole_file
try:
    with ending_cleanly(), whole_file(Path(sys.argv[1])) as part:
        part.write_text("half")
        print("begun", flush=True)
        time.sleep(60)
except KeyboardInterrupt as error:
    sys.exit(getattr(error, "code", 130))
"""


def _heed_signals() -> None:
    """A shell's background job ignores SIGINT, ``nohup`` SIGHUP, and children inherit that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start_writer(path: Path) -> subprocess.Popen:
    run = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "SAMMed3D")},
        preexec_fn=_heed_signals if os.name == "posix" else None,
    )
    assert run.stdout is not None and run.stdout.readline() == "begun\n"
    return run


@posix
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_signals_leave_nothing_behind(name: str, code: int, tmp_path: Path) -> None:
    run = start_writer(tmp_path / "a.txt")
    run.send_signal(getattr(signal, name))
    assert run.wait(timeout=60) == code
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_killed_run_is_cleaned_up_by_the_next_and_a_running_one_is_not(tmp_path: Path) -> None:
    killed, running = start_writer(tmp_path / "a.txt"), start_writer(tmp_path / "b.txt")
    killed.kill()
    killed.wait(timeout=60)
    assert len(list(tmp_path.glob(".sammed3d-*"))) == 2
    check_folder(tmp_path)
    (left,) = tmp_path.glob(".sammed3d-*")
    assert f"-{running.pid}-" in left.name
    running.send_signal(signal.SIGTERM)
    running.wait(timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_old_folders_of_other_computers_are_removed_and_new_ones_are_not(tmp_path: Path) -> None:
    old, new, others = (tmp_path / name for name in (".sammed3d-far-1-x", ".sammed3d-far-2-x", "kept"))
    for folder in (old, new, others):
        folder.mkdir()
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    os.utime(others, (time.time() - 2 * 24 * 3600,) * 2)
    with whole_file(tmp_path / "a.txt") as part:
        part.write_text("content")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".sammed3d-far-2-x", "a.txt", "kept"]


def test_a_full_disk_has_another_cure_than_a_read_only_folder(tmp_path: Path, monkeypatch) -> None:
    def refuse(number: int) -> None:
        def make(*given: object, **options: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(output_files.tempfile, "TemporaryDirectory", make)

    refuse(28)
    with pytest.raises(InputError, match="No space left on device; free some space"):
        check_folder(tmp_path)
    refuse(30)
    with pytest.raises(InputError, match="Read-only file system; choose another folder"):
        check_folder(tmp_path)


def test_a_new_folder_comes_whole_or_not_at_all(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as part:
        (part / "a.txt").write_text("a")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a.txt"]
    with pytest.raises(RuntimeError), new_folder(tmp_path / "half") as part:
        (part / "a.txt").write_text("a")
        raise RuntimeError
    with pytest.raises(InputError, match="exists"), new_folder(tmp_path / "out") as part:
        (part / "b.txt").write_text("b")
    with pytest.raises(InputError, match="does not exist"), new_folder(tmp_path / "no" / "out"):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "out"], "nothing is left behind"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Nodule 1", "Nodule_1"),
        ("Knoten äöü", "Knoten_äöü"),
        ('a<b>:"/\\|?*c', "a_b_c"),
        ("con", "x_con"),
        ("LPT1.txt", "x_LPT1.txt"),
        ("..", "x"),
        ("name. ", "name"),
        ("-rf", "rf"),
        ("é" * 200, "é" * 50),
    ],
)
def test_names_of_files_are_safe_on_every_system(text: str, name: str) -> None:
    assert safe_name(text, "x") == name
    assert safe_name(name, "x") == name, "and stay as they are"
