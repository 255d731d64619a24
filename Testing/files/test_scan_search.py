"""Scans are found wherever they lie, each has a name of its own, and what is left out is said."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from files.dicom_files import ct_header, write_slices
from SAMMed3DLib.files.scan_search import FoundScan, find_scans
from SAMMed3DLib.files.volume_io import read_volume
from SAMMed3DLib.inference import InputError

PLANES = np.random.default_rng(3).integers(-1000, 400, (6, 10, 12)).astype(np.int16)
POSITIONS = [(0.0, 0.0, 2.0 * k) for k in range(len(PLANES))]


def nifti(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(PLANES.T, np.diag([-0.8, -0.8, 2.0, 1.0])).to_filename(path)


def names(scans: list[FoundScan]) -> list[str]:
    return [scan.name for scan in scans]


def test_every_kind_in_any_nesting(tmp_path: Path) -> None:
    nifti(tmp_path / "one.nii.gz")
    nifti(tmp_path / "deep" / "er" / "Größe 2.nii")
    image = sitk.GetImageFromArray(PLANES)
    sitk.WriteImage(image, str(tmp_path / "deep" / "raw.mhd"))
    sitk.WriteImage(image, str(tmp_path / "packed.nrrd"), useCompression=True)
    write_slices(tmp_path / "patient" / "ct", PLANES, POSITIONS)
    scans, left_out = find_scans(tmp_path)
    assert sorted(names(scans)) == ["deep_er_Größe_2", "deep_raw", "one", "packed", "patient_ct"]
    by_name = {scan.name: scan for scan in scans}
    assert [file.name for file in by_name["deep_raw"].files] == ["raw.mhd", "raw.raw"], "voxels beside their header"
    assert left_out == [], "the data file is part of a scan"
    series = by_name["patient_ct"]
    assert series.is_series and len(series.files) == len(PLANES)
    np.testing.assert_array_equal(read_volume(series.path, series.files).array_kji, PLANES)


def test_dicom_is_grouped_by_series_over_folders(tmp_path: Path) -> None:
    first = write_slices(tmp_path / "a", PLANES[:3], POSITIONS[:3])
    write_slices(tmp_path / "b" / "rest", PLANES[3:], POSITIONS[3:], series=first)
    write_slices(tmp_path / "b", PLANES[::-1], POSITIONS, name="X{}.dcm")
    scans, _ = find_scans(tmp_path)
    assert len(scans) == 2 and len(set(names(scans))) == 2
    spread = next(scan for scan in scans if scan.path == tmp_path)
    np.testing.assert_array_equal(read_volume(spread.path, spread.files).array_kji, PLANES)
    (other,) = [scan for scan in scans if scan is not spread]
    np.testing.assert_array_equal(read_volume(other.path, other.files).array_kji, PLANES[::-1])


def test_two_series_of_a_folder_have_names_that_stay(tmp_path: Path) -> None:
    write_slices(tmp_path / "p" / "x", PLANES, POSITIONS, name="A{}.dcm")
    write_slices(tmp_path / "p" / "x", PLANES, POSITIONS, name="B{}.dcm")
    before = names(find_scans(tmp_path)[0])
    assert len(set(before)) == 2 and all(name.startswith("p_x-") for name in before)
    nifti(tmp_path / "a" / "new.nii")
    assert set(before) < set(names(find_scans(tmp_path)[0]))


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    nifti(tmp_path / "ct.nii")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "more.txt").write_text("x")
    (tmp_path / "a.seg.nrrd").write_text("x")
    (tmp_path / ".hidden.nii").write_text("x")
    write_slices(tmp_path / "mr", PLANES, POSITIONS, Modality="MR")
    write_slices(tmp_path / "scout", PLANES[:1], POSITIONS[:1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_slices(tmp_path / "single", PLANES[:1], POSITIONS[:1])
    report = ct_header(PLANES[0], "1.2.3", 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Rows=None)
    report.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    (tmp_path / "gone.nii").symlink_to(tmp_path / "nowhere")
    scans, left_out = find_scans(tmp_path)
    assert names(scans) == ["ct"]
    told = "\n".join(left_out)
    assert len(left_out) == 7, told
    for words in (
        "2 files left out, no image (.txt)",
        "1 file left out, segmentations",
        "modality MR, not CT",
        "a scout",
        "a single slice",
        "report.dcm (no image",
        "broken links",
    ):
        assert words in told


def test_the_results_are_not_looked_into(tmp_path: Path) -> None:
    nifti(tmp_path / "ct.nii")
    nifti(tmp_path / "out" / "result.nii")
    assert names(find_scans(tmp_path, tmp_path / "out")[0]) == ["ct"]


def test_a_list_names_files_folders_and_scans(tmp_path: Path) -> None:
    nifti(tmp_path / "data" / "one.nii.gz")
    nifti(tmp_path / "data" / "same.nii")
    write_slices(tmp_path / "data" / "dicom", PLANES, POSITIONS)
    listed = tmp_path / "list.csv"
    listed.write_text(
        "name,path\nfirst,data/one.nii.gz\n,data/dicom\n,data/dicom/IM003.dcm\nlost,data/none.nii\n,data/same.nii\n,\n"
        "again,data/same.nii\n",
        encoding="utf-8-sig",
    )
    scans, left_out = find_scans(listed)
    assert [(scan.name, scan.path) for scan in scans] == [
        ("first", tmp_path / "data" / "one.nii.gz"),
        ("dicom", tmp_path / "data" / "dicom"),
        ("IM003", tmp_path / "data" / "dicom" / "IM003.dcm"),
        ("lost", tmp_path / "data" / "none.nii"),
        ("same", tmp_path / "data" / "same.nii"),
    ]
    assert len(scans[2].files) == len(PLANES), "a slice stands for its series"
    assert len(left_out) == 1 and "named twice" in left_out[0]
    plain = tmp_path / "plain.csv"
    plain.write_text(f"{tmp_path / 'data' / 'one.nii.gz'}\n")
    assert names(find_scans(plain)[0]) == ["one"]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_list_from_a_spreadsheet_of_another_language(tmp_path: Path, delimiter: str) -> None:
    listed = tmp_path / "list.csv"
    rows = (("Name", "Path"), ("Müller, A.", "data\\ä b\\one.nii"))
    listed.write_bytes("\r\n".join(delimiter.join(row) for row in rows).encode("utf-8-sig"))
    (tmp_path / "data" / "ä b").mkdir(parents=True)
    (tmp_path / "data" / "ä b" / "one.nii").write_bytes(b"x")
    (scan,), left_out = find_scans(listed)
    assert (scan.name, scan.path) == ("Müller_A", tmp_path / "data" / "ä b" / "one.nii") and not left_out


@pytest.mark.parametrize("content", [None, b"", b"path\n", b"\xff\xfe\x00bad"])
def test_a_list_that_cannot_be_used(tmp_path: Path, content: bytes | None) -> None:
    listed = tmp_path / "list.csv"
    if content is not None:
        listed.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read|holds no scan"):
        find_scans(listed)


def test_a_folder_without_scans(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds no scan.*no image \(.txt\)"):
        find_scans(tmp_path)
