"""``sammed3d report`` and ``sammed3d compare`` from argument list to exit code, on small scans without lungs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from SAMMed3DLib import cli
from SAMMed3DLib.files import output_files
from SAMMed3DLib.files.segmentation_io import read_segment_names, write_segmentation
from SAMMed3DLib.files.volume_io import read_labels
from SAMMed3DLib.report import document
from SAMMed3DLib.report.findings import read_findings, tracking_uid

from .dicom_series import write_series

WRITTEN = {"findings.csv", "findings.json", "findings.txt", "report.html", "report.pdf", "segmentation.seg.nrrd"}


def matrix() -> np.ndarray:
    made = np.diag([-0.8, -0.8, 1.5, 1.0])
    made[:3, 3] = (20.0, 20.0, -30.0)
    return made


def scene(*radii_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """A scan of balls in a row, from label 1 on, and their labels."""
    rng = np.random.default_rng(0)
    array = rng.normal(-850.0, 15.0, (24, 50, 60))
    labels = np.zeros(array.shape, np.uint8)
    spacing = np.reshape([1.5, 0.8, 0.8], (3, 1, 1, 1))
    for label, radius in enumerate(radii_mm, start=1):
        center = np.reshape([12, 25, 15 * label], (3, 1, 1, 1))
        labels[(((np.indices(array.shape) - center) * spacing) ** 2).sum(axis=0) <= radius**2] = label
    array[labels > 0] = 30.0
    return array.astype(np.int16), labels


@pytest.fixture
def scans(tmp_path) -> Path:
    """now/ and before/ (DICOM) with their segmentations: the first ball grew, the second stayed, one came, one went."""
    for name, radii, date in (("now", (5.0, 4.0, 3.0), "20240601"), ("before", (4.0, 4.0), "20240101")):
        array, labels = scene(*radii)
        write_series(tmp_path / name, array, matrix(), StudyDate=date)
        names = {label: f"Rundherd {label} größer" for label in range(1, len(radii) + 1)}
        write_segmentation(tmp_path / f"{name}.seg.nrrd", labels, matrix(), names)
    return tmp_path


def compare(folder: Path, *words: str) -> int:
    scans = [str(folder / "now"), str(folder / "before")]
    return cli.main(
        [
            "compare",
            *scans,
            "--segmentations",
            *(f"{scan}.seg.nrrd" for scan in scans),
            "--out",
            str(folder / "out"),
            *words,
        ]
    )


def report(folder: Path, *words: str) -> int:
    return cli.main(
        [
            "report",
            str(folder / "now"),
            "--segmentation",
            str(folder / "now.seg.nrrd"),
            "--out",
            str(folder / "Bericht größer"),
            *words,
        ]
    )


def test_a_report_writes_everything_at_once(scans, capsys) -> None:
    pytest.importorskip("highdicom")
    assert report(scans, "--brock", "1:62:f:upper:emphysema") == 0
    out = scans / "Bericht größer"
    assert {each.name for each in out.iterdir()} == WRITTEN | {"segmentation.dcm", "measurements.dcm"}
    found = read_findings(out / "findings.json")
    assert [nodule.name for nodule in found.nodules] == [f"Rundherd {n} größer" for n in (1, 2, 3)]
    assert found.nodules[0].volume_mm3 == pytest.approx(4.0 / 3.0 * np.pi * 125.0, rel=0.05)
    assert "Brock model" in found.nodules[0].remarks[0] and "upper" in found.nodules[0].remarks[0]
    names, uids = read_segment_names(out / "segmentation.seg.nrrd")
    assert uids == {nodule.label: nodule.tracking_uid for nodule in found.nodules}
    assert names[2] == "Rundherd 2 größer"
    np.testing.assert_array_equal(read_labels(out / "segmentation.seg.nrrd").array_kji, scene(5.0, 4.0, 3.0)[1])
    printed = capsys.readouterr()
    assert "Rundherd 1 größer" in printed.out and document.DISCLAIMER in printed.err
    # again, over itself: the same nodules have the same names for machines
    assert report(scans) == 0
    again = read_findings(out / "findings.json")
    assert [each.tracking_uid for each in again.nodules] == [each.tracking_uid for each in found.nodules]
    assert not [each for each in out.iterdir() if each.name.startswith(".")]


def test_without_names_no_output_knows_the_patient(scans, capsys) -> None:
    assert report(scans, "--no-names") == 0
    out = scans / "Bericht größer"
    assert {each.name for each in out.iterdir()} == WRITTEN
    (out / "segmentation.dcm").write_text("of an earlier run: Müller", encoding="utf-8")
    assert report(scans, "--no-names") == 0
    assert "segmentation.dcm of an earlier run removed" in capsys.readouterr().err
    for file in out.iterdir():
        content = file.read_bytes()
        assert "Müller".encode() not in content and b"P 7" not in content
    capsys.readouterr()


def test_compare_by_hand_where_registration_fails(scans, capsys) -> None:
    assert compare(scans, "--pair", "1=1", "--pair", "2=2") == 0
    printed = capsys.readouterr()
    assert "registration failed" in printed.err and "--pair" in printed.err
    found = read_findings(scans / "out" / "findings.json")
    pairs = {found.nodule(pair.current_uid).label: pair for pair in found.follow_up.pairs}
    assert [pairs[label].status for label in (1, 2, 3)] == ["matched", "matched", "unmatched"]
    grown, same = pairs[1], pairs[2]
    assert grown.volume.percent == pytest.approx(100.0 * (1.25**3 - 1.0), abs=15.0) and grown.doubling_days > 0
    assert same.doubling_days is None and not same.is_measurable and found.follow_up.days == 152
    assert (scans / "out" / "prior.seg.nrrd").exists()
    # the two files now bear the pairs: comparing them again needs no hand
    for name, made in (("now", "segmentation"), ("before", "prior")):
        (scans / "out" / f"{made}.seg.nrrd").replace(scans / f"{name}.seg.nrrd")
    assert compare(scans) == 0
    again = read_findings(scans / "out" / "findings.json")
    assert [pair.status for pair in again.follow_up.pairs] == ["matched", "matched", "unmatched"]
    assert not any(pair.by_hand for pair in again.follow_up.pairs)


def test_no_nodules_now_after_a_registration(made_up, tmp_path, capsys) -> None:
    """Scans with lungs, of one day: what the prior had is expected where it lies, and no doubling time is told."""
    words = ["compare"]
    for name, scan in (("jetzt größer", made_up.current), ("früher", made_up.prior)):
        words.append(str(nifti(tmp_path, name, scan.array_kji, scan.ijk_to_ras)))
    for name, scan, factor in (("now", made_up.current, 0), ("then", made_up.prior, 1)):
        write_segmentation(tmp_path / f"{name}.seg.nrrd", scan.labels_kji * factor, scan.ijk_to_ras)
    out = tmp_path / "Ausgabe ü"
    words += ["--segmentations", str(tmp_path / "now.seg.nrrd"), str(tmp_path / "then.seg.nrrd"), "--out", str(out)]
    assert cli.main([*words, "--date", "2024-01-01", "--prior-date", "2024-01-01"]) == 0
    found = read_findings(out / "findings.json")
    assert found.nodules == () and found.follow_up.days == 0 and "affine" in found.follow_up.registration
    there = {each.label: each for each in made_up.nodules if each.prior_ras is not None}
    assert {pair.status for pair in found.follow_up.pairs} == {"gone"} and len(found.follow_up.pairs) == len(there)
    for pair in found.follow_up.pairs:
        true = made_up.to_current(there[found.prior_nodule(pair.prior_uid).label].prior_ras)
        assert np.linalg.norm(np.subtract(pair.expected_ras, true)) < 5.0
    assert "there are no nodules, so no DICOM SEG and SR" in capsys.readouterr().err
    assert {each.name for each in out.iterdir()} == WRITTEN | {"prior.seg.nrrd"}


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refused(capsys, folder: Path, code: int, message: str, before: set[str]) -> None:
    printed = capsys.readouterr()
    assert code == 2 and message in printed.err, printed.err
    assert "Traceback" not in printed.err and files_in(folder) == before, "nothing is left behind"


def test_another_patient_must_be_confirmed(scans, capsys) -> None:
    array, _ = scene(4.0, 4.0)
    for file in (scans / "before").iterdir():
        file.unlink()
    write_series(scans / "before", array, matrix(), StudyDate="20240101", PatientName="Möller^Ute", PatientID="P 8")
    before = files_in(scans)
    refused(capsys, scans, compare(scans), "Möller Ute", before)
    assert compare(scans, "--same-patient") == 0


def test_a_prior_that_is_newer_can_be_swapped(scans, capsys) -> None:
    (scans / "now").rename(scans / "x")
    (scans / "before").rename(scans / "now")
    (scans / "x").rename(scans / "before")
    (scans / "now.seg.nrrd").rename(scans / "x")
    (scans / "before.seg.nrrd").rename(scans / "now.seg.nrrd")
    (scans / "x").rename(scans / "before.seg.nrrd")
    refused(capsys, scans, compare(scans), "--swap", files_in(scans))
    assert compare(scans, "--swap", "--pair", "2=2") == 0
    (scans / "straight").mkdir()
    for name, other in (("now", "before"), ("before", "now")):
        (scans / "straight" / name).symlink_to(scans / other)
        (scans / "straight" / f"{name}.seg.nrrd").symlink_to(scans / f"{other}.seg.nrrd")
    refused(capsys, scans, compare(scans / "straight", "--swap"), "leave --swap out", files_in(scans))
    found = read_findings(scans / "out" / "findings.json")
    assert found.scan.date == "2024-06-01" and found.follow_up.days == 152
    assert len(found.nodules) == 3


def test_a_scan_is_no_prior_of_itself(tmp_path, capsys) -> None:
    array, labels = scene(4.0)
    ct, mask = nifti(tmp_path, "ct", array, matrix()), nifti(tmp_path, "mask", labels, matrix())
    words = ["compare", str(ct), str(ct), "--segmentations", str(mask), str(mask), "--out", str(tmp_path / "out")]
    refused(capsys, tmp_path, cli.main(words), "both scans are the same file", files_in(tmp_path))
    words[2] = str(nifti(tmp_path, "copy", array, matrix()))
    refused(capsys, tmp_path, cli.main(words), "both scans hold the same voxels", files_in(tmp_path))


def test_nodules_under_one_label_are_told(tmp_path, capsys) -> None:
    array, labels = scene(4.0, 5.0)
    ct, mask = nifti(tmp_path, "ct", array, matrix()), nifti(tmp_path, "mask", (labels > 0) * np.uint8(1), matrix())
    assert cli.main(["report", str(ct), "--segmentation", str(mask), "--out", str(tmp_path / "out")]) == 0
    assert "nodule 1: It is in 2 separate parts, measured as one: give each" in capsys.readouterr().err


def test_results_beside_the_scan_are_left_out_of_it_once(scans, capsys) -> None:
    pytest.importorskip("highdicom")
    words = ["report", str(scans / "now"), "--segmentation", str(scans / "now.seg.nrrd"), "--out", str(scans / "now")]
    for _ in range(2):
        assert cli.main(words) == 0
    assert capsys.readouterr().err.count("segmentation.dcm") == 1, "not once a frame"


def test_what_a_killed_run_left_is_removed(scans, capsys) -> None:
    out = scans / "Bericht größer"
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = out / f".sammed3d-{output_files._HOST}-{ended.stdout.strip()}-x"
    left.mkdir(parents=True)
    (left / "report.html").write_text("half", encoding="utf-8")
    assert report(scans, "--no-names") == 0
    assert {each.name for each in out.iterdir()} == WRITTEN


def test_other_modality_and_damaged_input(scans, capsys) -> None:
    array, _ = scene(4.0)
    write_series(scans / "mr", array + 1000, matrix(), Modality="MR")
    before = files_in(scans)
    words = ["report", str(scans / "mr"), "--segmentation", str(scans / "now.seg.nrrd"), "--out", str(scans / "out")]
    refused(capsys, scans, cli.main(words), "MR", before)
    words[1] = str(scans / "missing")
    refused(capsys, scans, cli.main(words), "does not exist", before)


def nifti(folder: Path, name: str, array: np.ndarray, ijk_to_ras: np.ndarray) -> Path:
    path = folder / f"{name}.nii.gz"
    nibabel.Nifti1Image(array.T, ijk_to_ras).to_filename(path)
    return path


def test_files_without_a_header_say_what_is_missing(tmp_path, capsys) -> None:
    """No date, no patient, no DICOM: the figures are there, and what is not is named."""
    array, labels = scene(5.0)
    ct, mask = nifti(tmp_path, "ct", array, matrix()), nifti(tmp_path, "mask", labels, matrix())
    old = nifti(tmp_path, "old", array[:, :, ::-1] + 0, matrix())
    words = [
        "compare",
        str(ct),
        str(old),
        "--segmentations",
        str(mask),
        str(mask),
        "--out",
        str(tmp_path / "out"),
        "--pair",
        "1=1",
    ]
    assert cli.main(words) == 0
    printed = capsys.readouterr()
    assert "the current scan has no date" in printed.err and "give --prior-date" in printed.err
    assert "no DICOM SEG and SR: the scan is no DICOM series" in printed.err
    assert (tmp_path / "out" / "findings.csv").exists()
    assert read_findings(tmp_path / "out" / "findings.json").follow_up.days is None
    assert cli.main([*words, "--date", "2024-05-01", "--prior-date", "2024-01-01"]) == 0
    assert read_findings(tmp_path / "out" / "findings.json").follow_up.days == 121


def test_no_nodules_are_a_result(tmp_path, capsys) -> None:
    array, labels = scene(5.0)
    ct, mask = nifti(tmp_path, "ct", array, matrix()), nifti(tmp_path, "mask", labels * 0, matrix())
    assert cli.main(["report", str(ct), "--segmentation", str(mask), "--out", str(tmp_path / "out")]) == 0
    assert "no nodules" in capsys.readouterr().out
    assert {each.name for each in (tmp_path / "out").iterdir()} == WRITTEN


def test_values_that_are_no_numbers_are_refused(tmp_path, capsys) -> None:
    array, labels = scene(5.0)
    array = array.astype(np.float32)
    array[12, 25, 15] = np.nan
    ct, mask = nifti(tmp_path, "ct", array, matrix()), nifti(tmp_path, "mask", labels, matrix())
    words = ["report", str(ct), "--segmentation", str(mask), "--out", str(tmp_path / "out")]
    refused(capsys, tmp_path, cli.main(words), "NaN or infinite values (1 in slice 12", {"ct.nii.gz", "mask.nii.gz"})


def test_a_segmentation_on_a_part_of_the_grid_and_on_another_one(tmp_path, capsys) -> None:
    array, labels = scene(5.0)
    ct = nifti(tmp_path, "ct", array, matrix())
    part = matrix()
    part[:3, 3] += part[:3, :3] @ (5, 12, 4)
    inside = nifti(tmp_path, "part", labels[4:20, 12:40, 5:40], part)
    out = tmp_path / "out"
    words = ["report", str(ct), "--segmentation", str(inside), "--out", str(out)]
    assert cli.main(words) == 0
    np.testing.assert_array_equal(read_labels(out / "segmentation.seg.nrrd").array_kji, labels)
    before = files_in(tmp_path)
    part[:3, 3] += (0.4, 0.0, 0.0)
    words[3] = str(nifti(tmp_path, "off", labels[4:20, 12:40, 5:40], part))
    refused(capsys, tmp_path, cli.main(words), "does not lie on the CT's voxels", before | {"off.nii.gz"})
    far = matrix()
    far[:3, 3] += far[:3, :3] @ (40, 0, 0)
    words[3] = str(nifti(tmp_path, "far", labels, far))
    refused(capsys, tmp_path, cli.main(words), "reaches beyond the CT", before | {"off.nii.gz", "far.nii.gz"})


@pytest.mark.parametrize(
    "words, message",
    [
        (["--pair", "9=1"], "no nodule with label 9"),
        (["--pair", "1=7"], "it has: 1, 2"),
        (["--pair", "1=1", "--pair", "1=2"], "two pairs"),
        (["--brock", "8:60:f"], "no nodule with label 8"),
        (["--brock", "1:7:f"], "age"),
    ],
)
def test_labels_and_ages_that_cannot_be(scans, capsys, words, message) -> None:
    refused(capsys, scans, compare(scans, *words), message, files_in(scans))


@pytest.mark.parametrize(
    "words", [["--pair", "1"], ["--date", "2024-13-01"], ["--brock", "1:x:f"], ["--brock", "1:60:f:tall"]]
)
def test_options_that_cannot_be_read(scans, words) -> None:
    with pytest.raises(SystemExit) as stopped:
        compare(scans, *words)
    assert stopped.value.code == 2


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0 and not Path("/proc").is_dir(), reason="needs a closed place")
def test_unwritable_places(scans, capsys) -> None:
    closed = Path("/proc/nothing") if os.geteuid() == 0 else scans / "closed"
    if os.geteuid() != 0:
        closed.mkdir(mode=0o500)
    words = ["report", str(scans / "now"), "--segmentation", str(scans / "now.seg.nrrd"), "--out"]
    before = files_in(scans)
    for place, message in (
        (closed / "out", "nothing can be written"),
        (scans / "missing" / "out", "does not exist"),
        (scans / "now.seg.nrrd", "is not a folder"),
    ):
        refused(capsys, scans, cli.main([*words, str(place)]), message, before)


def test_a_disk_that_is_full_half_way_leaves_no_folder(scans, capsys, monkeypatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("SAMMed3DLib.report.document.write_pdf", full)
    places = set(scans.iterdir())
    refused(capsys, scans, report(scans, "--no-names"), "No space left on device", files_in(scans))
    assert set(scans.iterdir()) == places


def test_a_folder_in_the_place_of_a_document(scans, capsys) -> None:
    (scans / "Bericht größer" / "findings.json").mkdir(parents=True)
    refused(capsys, scans, report(scans, "--no-names"), "findings.json is a folder; move it away", files_in(scans))


def test_tracking_uids_survive_in_the_segmentation(tmp_path) -> None:
    path = tmp_path / "x.seg.nrrd"
    uid = tracking_uid("a")
    write_segmentation(path, scene(5.0, 4.0)[1], matrix(), {1: "a", 2: "b"}, {2: uid})
    assert read_segment_names(path) == ({1: "a", 2: "b"}, {2: uid})
    assert read_segment_names(nifti(tmp_path, "m", scene(4.0)[1], matrix())) == ({}, {})
