"""Images and label maps are found by their names, however people lay them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from SAMMed3DTrainingLib.data.case_names import StoreError
from SAMMed3DTrainingLib.store import folder_import
from SAMMed3DTrainingLib.store.folder_import import find_pairs


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    "image, label, name",
    [
        ("a.nii.gz", "a_seg.nii.gz", "a"),
        ("a_ct.nii.gz", "a_nodules.nii.gz", "a"),
        ("a_0000.nrrd", "a.seg.nrrd", "a"),
        ("A-CT.mha", "A-Label.mhd", "A"),
        ("images/a.nii", "labels/a.nii", "a"),
        ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "a"),
        ("b/ct.nii.gz", "b/mask.nii.gz", "b"),
        ("b/b_ct.nii.gz", "b/b_mask.nii.gz", "b"),
        ("c/dicom/1.dcm", "c/seg.nrrd", "c"),
        ("Fall 7 äö/ct.nii.gz", "Fall 7 äö/roi.nii.gz", "Fall_7_äö"),
        ("x1/images/b.mha", "x1/labels/b.mha", "b"),
    ],
)
def test_layouts(tmp_path, image, label, name):
    touch(tmp_path, image, label)
    (pair,) = find_pairs(tmp_path)
    assert (pair.name, pair.problem) == (name, "")
    assert pair.label == tmp_path / label
    assert pair.image == (tmp_path / image if not image.endswith(".dcm") else (tmp_path / image).parent)


def test_many_cases_keep_apart(tmp_path):
    touch(tmp_path, *(f"p{n}/{kind}.nii.gz" for n in (1, 2, 10) for kind in ("ct", "mask")))
    assert sorted(pair.name for pair in find_pairs(tmp_path)) == ["p1", "p10", "p2"]


def test_the_same_name_in_two_folders_becomes_two_cases(tmp_path):
    touch(tmp_path, "x/scan1.nrrd", "x/scan1.seg.nrrd", "y/Scan1.nrrd", "y/Scan1.seg.nrrd")
    assert [pair.name for pair in find_pairs(tmp_path)] == ["scan1", "Scan1-2"]


def test_words_within_a_name_say_nothing(tmp_path):
    touch(tmp_path, "connect.nii.gz", "mascot.nii.gz", "segment7.nii.gz")
    assert [pair.name for pair in find_pairs(tmp_path)] == ["connect", "mascot", "segment7"]
    assert all("no label map" in pair.problem for pair in find_pairs(tmp_path))


@pytest.mark.parametrize(
    "files, words",
    [
        (["a.nii.gz"], "no label map"),
        (["a_seg.nii.gz"], "no image"),
        (["a.nii.gz", "a_seg.nii.gz", "a_mask.nii.gz"], "several"),
        (["a.nii", "a.nrrd", "a_seg.nii"], "several"),
    ],
)
def test_problems_are_told(tmp_path, files, words):
    touch(tmp_path, *files)
    (pair,) = find_pairs(tmp_path)
    assert words in pair.problem


def test_a_whole_disk_is_not_searched(tmp_path, monkeypatch):
    touch(tmp_path, *(f"{number}.nii" for number in range(6)))
    monkeypatch.setattr(folder_import, "_MOST_FILES", 5)
    with pytest.raises(StoreError, match="too many images"):
        find_pairs(tmp_path)


def test_nothing_there(tmp_path):
    touch(tmp_path, "notes.txt", ".hidden/a.nii.gz", "._a.nii.gz")
    with pytest.raises(StoreError, match="no image"):
        find_pairs(tmp_path)
    with pytest.raises(StoreError, match="not a folder"):
        find_pairs(tmp_path / "notes.txt")
