"""Killed at any step, with a full disk or in a read-only folder: a case is there as a whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from SAMMed3DTrainingLib.data.case_names import StoreError
from SAMMed3DTrainingLib.data.dataset_check import check_datasets
from SAMMed3DTrainingLib.data.datasets import find_datasets, load_case
from SAMMed3DTrainingLib.store import dataset_files, file_moves
from SAMMed3DTrainingLib.store.dataset_writer import DatasetWriter

from .export_cases import export_case
from .test_dataset_writer import snapshot

#: A child that ends, without any clean-up, just before its n-th change of a file name or removal of a file.
_KILLED = """
import os, pathlib, sys
sys.path[:0] = {path!r}
from training.export_cases import export_case
from SAMMed3DTrainingLib.store.dataset_writer import DatasetWriter

left = [int(sys.argv[2])]
def counted(change):
    def call(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        return change(*arguments, **options)
    return call
for name in ("replace", "unlink"):
    setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
writer = DatasetWriter(sys.argv[1])
if sys.argv[3] == "put":
    writer.put(export_case("a", seed=2, patient="new"))
else:
    writer.remove("a")
"""


def start_child(folder: Path, changes: int, action: str) -> int:
    testing = Path(__file__).resolve().parents[1]
    root = testing.parent
    path = [str(testing), str(root / "SAMMed3D"), str(root / "SAMMed3DTraining")]
    code = _KILLED.format(path=path)
    return subprocess.run([sys.executable, "-c", code, str(folder), str(changes), action], timeout=120).returncode


def state_of(folder: Path) -> str:
    """Which of the two versions of case a is there, as a whole; "" for none."""
    (dataset,) = find_datasets(folder)
    names = {case.name for case in dataset.cases}
    assert json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == len(names)
    assert {case.name for case in DatasetWriter(folder).cases() if case.is_own and not case.problem} == names
    if "a" not in names:
        return ""
    loaded = load_case(next(case for case in dataset.cases if case.name == "a"))
    for seed, patient in ((1, "old"), (2, "new")):
        if np.array_equal(loaded.array_kji, export_case(seed=seed).array_kji):
            assert loaded.case.patient == patient
            return patient
    raise AssertionError("a mixture")


@pytest.mark.parametrize("action, after", [("put", "new"), ("remove", "")])
def test_killed_at_any_step(tmp_path, action, after):
    begun = tmp_path / "begun"
    writer = DatasetWriter(begun)
    writer.put(export_case("a", seed=1, patient="old"))
    writer.put(export_case("b", seed=5))
    states = []
    for changes in range(30):
        folder = tmp_path / f"killed {changes}"
        shutil.copytree(begun, folder)
        ended = start_child(folder, changes, action)
        DatasetWriter(folder)  # whoever opens it next completes what counted already
        assert check_datasets(folder).is_clean
        states.append(state_of(folder))
        # It can be written again, and then nothing is left behind.
        again = DatasetWriter(folder)
        again.put(export_case("c", seed=6))
        assert not list((folder / file_moves.STAGING).glob("*.part"))
        if ended == 0:
            break
    assert ended == 0, "the child never came to its end"
    turn = states.index(after)
    assert turn >= 1 and set(states[:turn]) == {"old"} and set(states[turn:]) == {after}, states
    assert len(states) - turn >= 4, "it was never killed after the change had begun to count"


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    writer = DatasetWriter(tmp_path)
    writer.put(export_case("a"))
    before = snapshot(tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**9, 10**9, 10**6))
    with pytest.raises(StoreError, match=r"nearly full: 1 MB are free, 17 MB are needed"):
        writer.put(export_case("b"))
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")  # noqa: PTH110
def test_a_disk_that_fills_up_meanwhile(tmp_path, monkeypatch):
    writer = DatasetWriter(tmp_path)
    writer.put(export_case("a", seed=1))
    before = snapshot(tmp_path)
    wanted = file_moves.FileMoves.add

    def full(self, target: str) -> Path:
        path = wanted(self, target)
        if target.startswith("imagesTr"):
            path.unlink(missing_ok=True)
            path.symlink_to("/dev/full")
        return path

    monkeypatch.setattr(file_moves.FileMoves, "add", full)
    for case in (export_case("b"), export_case("a", seed=2)):
        with pytest.raises(StoreError, match="No space left on device; nothing was changed"):
            writer.put(case)
        assert snapshot(tmp_path) == before
        assert not list((tmp_path / file_moves.STAGING).glob("*.part"))


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, code):
    def refuse(self, *_arguments, **_options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match="choose another folder"):
        DatasetWriter(tmp_path / "new").put(export_case())
    assert not (tmp_path / "new").exists()


def test_a_read_only_folder_and_a_file_are_seen_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    writer = DatasetWriter(tmp_path / "file")
    assert "is a file" in writer.problem
    with pytest.raises(StoreError, match="is a file"):
        writer.put(export_case())
    assert "is a file" in DatasetWriter(tmp_path / "file" / "below").problem
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    assert "read-only" in DatasetWriter(tmp_path / "new").problem


def test_a_path_that_windows_does_not_open(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_files, "LONGEST_PATH", 259)
    folder = tmp_path / ("x" * (240 - len(str(tmp_path)) - 1))
    with pytest.raises(StoreError, match="26[0-9] characters long, 259 are allowed"):
        DatasetWriter(folder).put(export_case("long"))
    assert not folder.exists()
    DatasetWriter(tmp_path / "short").put(export_case("long"))


def test_one_writer_at_a_time(tmp_path):
    writer = DatasetWriter(tmp_path)
    writer.put(export_case("a"))
    before = snapshot(tmp_path)
    with file_moves.one_writer(tmp_path):
        for call in (lambda: writer.put(export_case("b")), lambda: writer.remove("a")):
            with pytest.raises(StoreError, match="another program is writing"):
                call()
    assert snapshot(tmp_path) == before
    assert writer.put(export_case("b", seed=2)) == "added"


def test_a_file_in_use_is_replaced_later(tmp_path, monkeypatch):
    """Windows refuses to replace a file that a program has open: what counts already is completed afterwards."""
    writer = DatasetWriter(tmp_path)
    writer.put(export_case("a", seed=1, patient="old"))
    replace = Path.replace

    def refuse(self, target):
        if str(target).endswith("a_0000.nii.gz"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(StoreError, match="completed when the data set is opened here again"):
            writer.put(export_case("a", seed=2, patient="new"))
    DatasetWriter(tmp_path)
    assert state_of(tmp_path) == "new"
    assert check_datasets(tmp_path).is_clean
