"""The check names everything that is wrong, case by case."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from SAMMed3DTrainingLib.data.dataset_check import check_datasets

from .dataset_files import SHAPE_KJI, balls, ct, matrix, write, write_case
from .runs import ROOT

LABELS = balls((8, 12, 12), (16, 28, 28))


def problems(report, name: str) -> str:
    (row,) = [row for row in report.rows if row.case.name == name]
    return "; ".join(row.problems)


def test_a_clean_dataset(tmp_path):
    write_case(tmp_path, "a", LABELS, seed=1)
    write_case(tmp_path, "b", LABELS, seed=2)
    report = check_datasets(tmp_path)
    assert report.is_clean
    (row, _) = report.rows
    assert row.size == (40, 40, 24) and row.orientation == "LPS" and len(row.diameters_mm) == 2
    assert "2 cases of 2 patients, 4 nodules" in str(report)


def test_what_is_wrong_is_found(tmp_path):
    write_case(tmp_path, "same1", LABELS, seed=1)
    write_case(tmp_path, "same2", LABELS, seed=1)
    write_case(tmp_path, "empty", np.zeros(SHAPE_KJI, np.uint8), seed=2)
    write_case(tmp_path, "alone", None, seed=3)
    speck = LABELS.copy()
    speck[0, 0, 0] = 1
    write_case(tmp_path, "speck", speck, seed=4)
    write_case(tmp_path, "air", LABELS, seed=5)
    write(tmp_path / "labelsTr" / "air.nii.gz", np.ascontiguousarray(LABELS[:, ::-1]))
    dark = np.where(LABELS > 0, 50, -950).astype(np.int16)
    write(tmp_path / "imagesTr" / "air_0000.nii.gz", dark)
    write_case(tmp_path, "unit", LABELS, seed=6)
    write(tmp_path / "imagesTr" / "unit_0000.nii.gz", ((ct(LABELS, 6) + 1024) / 1324).astype(np.float32))
    write_case(tmp_path, "bare", LABELS, seed=7)
    for kind, array in (("images", ct(LABELS, 7)), ("labels", LABELS)):
        name = "bare_0000" if kind == "images" else "bare"
        write(tmp_path / f"{kind}Tr" / f"{name}.nii.gz", array, np.eye(4))
    write_case(tmp_path, "nan", LABELS, seed=8)
    holed = ct(LABELS, 8).astype(np.float32)
    holed[3, 3, 3] = np.nan
    write(tmp_path / "imagesTr" / "nan_0000.nii.gz", holed)
    write_case(tmp_path, "moved", LABELS, seed=9)
    write(tmp_path / "labelsTr" / "moved.nii.gz", LABELS, matrix((0.0, 0.0, 0.0)))
    write(tmp_path / "labelsTr" / "orphan.nii.gz", LABELS)

    report = check_datasets(tmp_path)
    assert "the same image as" in problems(report, "same2") and problems(report, "same1") == ""
    assert "empty" in problems(report, "empty")
    assert "no label map" in problems(report, "alone")
    assert "one or two voxels" in problems(report, "speck")
    assert "lies in air" in problems(report, "air")
    assert "not in Hounsfield units" in problems(report, "unit") and "air" not in problems(report, "unit")
    assert "geometry is missing" in problems(report, "bare")
    assert "NaN" in problems(report, "nan")
    assert "mm away" in problems(report, "moved")
    assert {row.case.name for row in report.rows if row.fatal} == {"nan", "moved", "unit"}
    assert any("orphan" in problem for problem in report.problems)
    assert not report.is_clean
    for row in report.rows:
        assert all(text in str(report) for text in row.problems)


def test_unnamed_values_and_shared_patients(tmp_path):
    write_case(tmp_path, "P1_scan1", balls((8, 12, 12), (16, 28, 28), values=(1, 5)), seed=1)
    write_case(tmp_path, "P1_scan2", LABELS, part="Ts", seed=2)
    names = {"background": 0, "nodule": 1, "mass": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names}))
    report = check_datasets(tmp_path)
    assert "does not name: 5" in problems(report, "P1_scan1")
    assert any("patient P1 is in the test part" in problem for problem in report.problems)


def test_label_maps_mirrored_under_the_image_s_header_are_noticed(tmp_path):
    """Lung with noise everywhere but in the nodules: a mirrored label map shows no contrast to what is around it."""
    labels = balls((8, 12, 8), (16, 28, 13))
    for number, name in enumerate(("P1", "P2")):
        write_case(tmp_path, name, labels, seed=number)
    write(tmp_path / "labelsTr" / "P2.nii.gz", np.ascontiguousarray(labels[:, :, ::-1]))
    report = check_datasets(tmp_path)
    assert problems(report, "P1") == ""
    assert "no brighter than what is around it: mirrored" in problems(report, "P2")


def test_classes_and_patients_are_asked_about(tmp_path):
    for number in (1, 2):
        write_case(tmp_path, f"CT_scan_{number:03d}", balls((8, 12, 12), (16, 28, 28), values=(1, 2)), seed=number)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "lung": 1, "nodule": 2}}))
    report = check_datasets(tmp_path)
    assert not report.is_clean
    assert any("all 2 cases" in problem and "'CT'" in problem for problem in report.problems)
    assert any("which classes of dataset.json are nodules" in problem for problem in report.problems)
    asked = check_datasets(tmp_path, patient_pattern="^(.+)$", labels=["nodule"])
    assert asked.is_clean and all(len(row.diameters_mm) == 1 for row in asked.rows)


@pytest.mark.parametrize("values", ["offset", "dark"])
def test_doubtful_values_are_problems_of_the_case(values, tmp_path):
    write_case(tmp_path, "P1", LABELS)
    shifted = ct(LABELS).astype(np.float32) + (1024 if values == "offset" else -1024)
    write(tmp_path / "imagesTr" / "P1_0000.nii.gz", shifted)
    said = "no negative values" if values == "offset" else "darker than air"
    assert said in problems(check_datasets(tmp_path), "P1")


@pytest.mark.parametrize("stop_after", [1, 2])
def test_the_check_can_be_ended(tmp_path, stop_after):
    for n in range(3):
        write_case(tmp_path, f"c{n}", LABELS, seed=n)
    seen = []

    def progress(done, total):
        seen.append((done, total))
        return done < stop_after

    assert len(check_datasets(tmp_path, progress).rows) == stop_after
    assert seen[-1] == (stop_after, 3)


def test_as_readers_of_the_readme_start_it(tmp_path):
    """From SAMMed3DTraining of a checkout that is not installed, into a file that knows no other letters."""
    write_case(tmp_path / "Fälle 肺", "Müller", balls((8, 12, 12)))
    write_case(tmp_path / "Fälle 肺", "B", balls((8, 14, 12)), seed=1)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "SAMMed3DTrainingLib", "check", str(tmp_path)],
        cwd=ROOT / "SAMMed3DTraining",
        env={**environment, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        encoding="ascii",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "M\\xfcller" in done.stdout and "2 cases of 2 patients" in done.stdout
