"""``sammed3d segment-all FOLDER --out DIR``: every scan once, whatever happens meanwhile."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from commandline.bright_search import use_bright_search
from files.dicom_files import write_slices
from SAMMed3DLib import cli
from SAMMed3DLib.commandline import cohort
from SAMMed3DLib.files.output_files import file_lock
from SAMMed3DLib.files.volume_io import read_labels
from SAMMed3DLib.report.findings import read_findings

TESTING = Path(__file__).resolve().parents[1]
RESULTS = {"segmentation.seg.nrrd", "findings.json", "record.json"}


@pytest.fixture
def scans(tmp_path: Path, scene) -> Path:
    """A folder with three CTs, the third as DICOM, and a file that is none."""
    folder = tmp_path / "scans"
    (folder / "a" / "b").mkdir(parents=True)
    for number, name in enumerate(("one.nii.gz", "a/two.nii.gz")):
        array = scene.array.copy()
        array[scene.labels == 1] += 10 * number
        nibabel.Nifti1Image(array.T, scene.ijk_to_ras).to_filename(folder / name)
    lps = np.diag([-1.0, -1.0, 1.0]) @ scene.ijk_to_ras[:3]
    write_slices(
        folder / "a" / "b" / "three",
        scene.array,
        [lps @ [0, 0, k, 1] for k in range(len(scene.array))],
        [*(lps[:, 0] / np.linalg.norm(lps[:, 0])), *(lps[:, 1] / np.linalg.norm(lps[:, 1]))],
        spacing=(0.8, 0.9),
    )
    (folder / "notes.txt").write_text("x")
    return folder


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A network that finds what is bright looks at the two balls."""
    use_bright_search(monkeypatch.setattr)
    yield


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the scans that were segmented."""
    names: list[str] = []
    segmented = cohort._segmented

    def noted(task: Any, *rest: Any) -> Any:
        names.append(task.scan.name)
        return segmented(task, *rest)

    monkeypatch.setattr(cohort, "_segmented", noted)
    return names


def run(scans: Path, out: Path, *words: str) -> int:
    return cli.main(["segment-all", str(scans), "--out", str(out), "--sensitivity", "1", *words])


def table(out: Path) -> list[dict[str, str]]:
    with (out / "nodules.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


NAMES = ["a_b_three", "a_two", "one"]


def test_all_scans_of_a_folder(scans: Path, scene, search, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    (scans / "broken.nii").write_bytes(b"nothing")
    labels = nibabel.Nifti1Image(scene.labels.T, scene.ijk_to_ras)
    labels.to_filename(scans / "labels.nii.gz")
    assert run(scans, out) == 2, "a scan failed"
    rows = table(out)
    assert [row["scan"] for row in rows] == ["a_b_three"] * 2 + ["a_two"] * 2 + ["broken", "labels"] + ["one"] * 2
    assert [row["outcome"] for row in rows] == ["done"] * 4 + ["failed", "left out"] + ["done"] * 2
    assert "cannot be read" in rows[4]["reason"] and "label volume" in rows[5]["reason"]
    for name in NAMES:
        assert {file.name for file in (out / name).iterdir()} == RESULTS
        found = read_labels(out / name / "segmentation.seg.nrrd")
        np.testing.assert_allclose(found.ijk_to_ras, scene.ijk_to_ras, atol=1e-3)
        for label in (1, 2):
            both = np.count_nonzero((found.array_kji == label) & (scene.labels == label))
            assert 2.0 * both / (np.sum(found.array_kji == label) + np.sum(scene.labels == label)) > 0.8
        findings = read_findings(out / name / "findings.json")
        own = [row for row in rows if row["scan"] == name]
        told = {str(each.label): (each.tracking_uid, f"{each.volume_mm3:.2f}") for each in findings.nodules}
        assert told == {row["label"]: (row["tracking_uid"], row["volume_mm3"]) for row in own}
    assert read_findings(out / "a_b_three" / "findings.json").scan.series_uid, "the DICOM header was read"
    assert {each.name for each in out.iterdir()} == {*NAMES, "nodules.csv", "log.txt", ".lock"}
    printed = capsys.readouterr()
    assert "6 nodules in 3 scans, 1 failed, 1 left out" in printed.out
    assert "left out: " in printed.err and "notes" not in printed.err.replace("no image (.txt)", "")
    assert "1 of 5 scans failed" in printed.err
    log = (out / "log.txt").read_text(encoding="utf-8")
    assert "5/5 one: 2 nodules" in log and "no image (.txt)" in log and "broken: FAILED" in log


def test_what_is_done_is_not_done_again(scans: Path, search, begun, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run(scans, out) == 0
    first = (out / "nodules.csv").read_bytes()
    assert begun == NAMES
    corrected = out / "one" / "segmentation.seg.nrrd"
    corrected.write_bytes(b"corrected by hand")
    os.utime(scans / "one.nii.gz", (1.0, 1.0))  # copied: another time, the same content
    begun.clear()
    assert run(scans, out) == 0
    assert begun == [] and (out / "nodules.csv").read_bytes() == first
    assert corrected.read_bytes() == b"corrected by hand"
    assert "done before" in capsys.readouterr().err
    # other content
    image = nibabel.load(scans / "one.nii.gz")
    array = np.asarray(image.dataobj).copy()
    array[0, 0, 0] += 1
    nibabel.Nifti1Image(array, image.affine).to_filename(scans / "one.nii.gz")
    assert run(scans, out) == 0
    assert begun == ["one"] and read_labels(corrected).array_kji.any()
    # a result that is gone, and a record that is damaged
    begun.clear()
    (out / "a_two" / "findings.json").unlink()
    (out / "one" / "record.json").write_text('{"sources": [{}]}')
    assert run(scans, out) == 0
    assert begun == ["a_two", "one"]
    # another option
    begun.clear()
    assert run(scans, out, "--max-diameter", "12") == 0
    assert begun == NAMES and len(table(out)) == 3, "the larger ball is too large"
    # and other weights
    begun.clear()
    other = tmp_path / "other.pth"
    other.write_bytes(b"weights")
    assert run(scans, out, "--max-diameter", "12", "--checkpoint", str(other)) == 0
    assert begun == NAMES


@pytest.mark.parametrize("ended", [KeyboardInterrupt, SystemExit])
def test_an_end_in_mid_run_leaves_whole_results_only(
    scans: Path, search, begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: type[BaseException], capsys
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    from SAMMed3DLib.report import findings

    write = findings.write_findings

    def stop(path: Path, content: Any) -> None:
        if content.scan.name == "a_two":
            raise ended
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(findings, "write_findings", stop)
        if ended is KeyboardInterrupt:
            assert run(scans, out) == 130
        else:
            with pytest.raises(SystemExit):
                run(scans, out)
    assert {each.name for each in (out / "a_b_three").iterdir()} == RESULTS
    assert list((out / "a_two").iterdir()) == [] and not (out / "one").exists()
    assert not list(out.glob(".sammed3d*"))
    assert [row["outcome"] for row in table(out)] == ["done", "done", "not reached", "not reached"]
    begun.clear()
    assert run(scans, out) == 0
    assert begun == ["a_two", "one"]
    assert run(scans, whole) == 0
    assert (out / "nodules.csv").read_bytes() == (whole / "nodules.csv").read_bytes()


def test_errors_of_one_scan_are_its_row(scans: Path, search, tmp_path: Path, monkeypatch, capsys) -> None:
    real = cohort.find_nodules
    errors = iter([MemoryError(), ZeroDivisionError("ours")])

    def fail(*words: Any) -> Any:
        error = next(errors, None)
        if error is not None:
            raise error
        return real(*words)

    monkeypatch.setattr(cohort, "find_nodules", fail)
    out = tmp_path / "out"
    assert run(scans, out, "--json") == 2
    result = json.loads(capsys.readouterr().out)
    assert [scan["outcome"] for scan in result["scans"]] == ["failed", "failed", "done"]
    assert "out of memory" in result["scans"][0]["reason"]
    assert result["scans"][1]["reason"] == "ZeroDivisionError: ours"
    assert "Traceback" in (out / "log.txt").read_text(encoding="utf-8")
    assert [len(scan["nodules"]) for scan in result["scans"]] == [0, 0, 2]


def test_a_model_that_cannot_be_loaded_ends_all(scans: Path, tmp_path: Path, capsys) -> None:
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"no weights")
    assert run(scans, tmp_path / "out", "--checkpoint", str(bad)) == 2
    assert run(scans, tmp_path / "out", "--checkpoint", str(tmp_path / "none.pth")) == 2
    told = capsys.readouterr().err
    assert "bad.pth" in told and "none.pth" in told and "FAILED" not in told


def test_two_runs_do_not_write_into_one_folder(scans: Path, search, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with file_lock(out / ".lock"):
        assert run(scans, out) == 2
    assert "another run writes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["--table", "x.csv"], "--table is for a single CT"),
        (["--workers", "0"], "--workers must be 1 or more"),
        (["--scheduler", "tcp://x:1", "--slurm"], "either --scheduler or --slurm"),
        (["--min-diameter", "70"], "must be below"),
    ],
)
def test_options_that_cannot_be(scans: Path, tmp_path: Path, words: list[str], message: str, capsys) -> None:
    assert run(scans, tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys) -> None:
    assert run(tmp_path / "none", tmp_path / "out") == 2
    assert "none does not exist; check the path" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_ct_stays_one_ct(ct: Path, tmp_path: Path, capsys) -> None:
    assert cli.main(["segment-all", str(ct), "--workers", "2"]) == 2
    assert "for many CTs" in capsys.readouterr().err
    listed = tmp_path / "list.csv"
    listed.write_text(f"{ct}\n", encoding="utf-8")
    assert cli.main(["segment-all", str(listed)]) == 2
    assert "give --out DIR" in capsys.readouterr().err


def test_a_cluster_that_loses_a_worker_makes_the_same_table(scans: Path, search, tmp_path: Path, capsys) -> None:
    """Two Dask processes, of which the one that begins ``a_two`` is killed there."""
    distributed = pytest.importorskip("distributed")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert run(scans, alone, "--threads", "1") == 0

    class Bright(distributed.WorkerPlugin):
        """The search of this test, in every worker, and in those that take the place of dead ones."""

        def __init__(self, died: str, paths: list[str]) -> None:
            self.died, self.paths = died, paths

        def setup(self, worker: Any) -> None:

            sys.path[:0] = [path for path in self.paths if path not in sys.path]
            from commandline.bright_search import die_once, use_bright_search

            use_bright_search(setattr)
            die_once("a_two", self.died)

    died = tmp_path / "died"
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.register_plugin(Bright(str(died), [str(TESTING), str(TESTING.parent / "SAMMed3D")]))
        before = set(client.scheduler_info()["workers"])
        assert run(scans, shared, "--scheduler", cluster.scheduler_address, "--threads", "1") == 0
        assert died.exists(), "a worker died"
        assert set(client.scheduler_info()["workers"]) != before
    assert (shared / "nodules.csv").read_bytes() == (alone / "nodules.csv").read_bytes()
    for name in NAMES:
        segmentation = f"{name}/segmentation.seg.nrrd"
        assert (shared / segmentation).read_bytes() == (alone / segmentation).read_bytes()


def test_the_real_search_in_two_processes(scene, tmp_path: Path, capsys) -> None:
    """The bundled model, in processes of their own."""
    folder = tmp_path / "scans"
    folder.mkdir()
    block = scene.array[4:26, 8:38, 8:44]
    for name in ("a", "b"):
        nibabel.Nifti1Image(block.T, scene.ijk_to_ras).to_filename(folder / f"{name}.nii")
    assert run(folder, tmp_path / "out", "--workers", "2", "--threads", "1", "--whole-volume") == 0
    rows = table(tmp_path / "out")
    assert [row["scan"] for row in rows].count("a") == [row["scan"] for row in rows].count("b") >= 1
    one, other = (
        [{**row, "scan": "", "path": "", "tracking_uid": ""} for row in rows if row["scan"] == n] for n in "ab"
    )
    assert one == other
    truth = float(4.0 / 3.0 * np.pi * scene.radii_mm[0] ** 3)
    assert max(float(row["volume_mm3"]) for row in rows) == pytest.approx(truth, rel=0.5)
