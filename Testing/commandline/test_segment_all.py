"""``sammed3d segment-all`` from argument list to exit code, with a network that finds what is bright."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from commandline.bright_search import two_ball_generator
from SAMMed3DLib import cli
from SAMMed3DLib.files.volume_io import read_labels, read_volume, write_volume
from SAMMed3DLib.report.findings import read_findings


@pytest.fixture
def finder(monkeypatch):
    """Candidates on the two balls, and no lungs."""
    monkeypatch.setattr("SAMMed3DLib.inference.SamAutomaticMaskGenerator3D", two_ball_generator())


def test_segmentation_and_tables_agree(ct, scene, bright, finder, tmp_path, capsys) -> None:
    out, table = tmp_path / "all.seg.nrrd", tmp_path / "all.csv"
    words = ["segment-all", str(ct), "--out", str(out), "--table", str(table), "--sensitivity", "1"]
    assert cli.main(words) == 0
    labels = read_labels(out)
    np.testing.assert_allclose(labels.ijk_to_ras, scene.ijk_to_ras, atol=1e-5)
    # the largest has label 1, as in the scene
    for label in (1, 2):
        found, truth = labels.array_kji == label, scene.labels == label
        assert 2.0 * np.count_nonzero(found & truth) / (found.sum() + truth.sum()) > 0.85
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["nodule 1", "nodule 2"]
    assert float(rows[0]["volume_mm3"]) > float(rows[1]["volume_mm3"]) > 0
    clicks = np.array([[float(row[f"click_{axis}"]) for axis in "ras"] for row in rows])
    for number in (0, 1):
        assert np.linalg.norm(clicks[number] - scene.center_ras(number)) < 2.0
    assert all(0 < float(row["score"]) <= 1 for row in rows)
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].split()[:2] == ["nodule", "probability"]
    assert len(printed.out.splitlines()) == 4
    assert "whole volume" in printed.err and "Not a medical device" in printed.err and "% (about" in printed.err


def test_json_holds_the_same(ct, scene, bright, finder, capsys) -> None:
    assert cli.main(["segment-all", str(ct), "--json", "--sensitivity", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ranking"] == "probability" and "whole volume" in result["message"]
    assert [nodule["label"] for nodule in result["nodules"]] == [1, 2]
    scores = [nodule["score"] for nodule in result["nodules"]]
    assert scores == sorted(scores, reverse=True) and result["tflop"] is None
    assert set(result["seconds"]) == {"read", "load", "find"}


def test_fewer_shows_a_part_of_more(ct, scene, bright, finder, capsys) -> None:
    shown = []
    for sensitivity in ("0", "0.5", "1"):
        assert cli.main(["segment-all", str(ct), "--json", "--sensitivity", sensitivity]) == 0
        shown.append(
            {
                tuple(np.round([n["click_r"], n["click_a"], n["click_s"]], 3))
                for n in json.loads(capsys.readouterr().out)["nodules"]
            }
        )
    assert shown[0] <= shown[1] <= shown[2] and len(shown[2]) == 2


def test_nothing_found_is_a_result(ct, bright, finder, tmp_path, capsys) -> None:
    out, table = tmp_path / "none.nii.gz", tmp_path / "none.csv"
    words = ["segment-all", str(ct), "--min-diameter", "30", "--out", str(out), "--table", str(table)]
    assert cli.main(words) == 0
    assert "no nodules found" in capsys.readouterr().out
    assert not read_labels(out).array_kji.any()
    assert cli.main(["segment-all", str(ct), "--sensitivity", "1", "--table", str(tmp_path / "some.csv")]) == 0
    head = (tmp_path / "some.csv").read_text(encoding="utf-8").splitlines()[0]
    assert table.read_text(encoding="utf-8").splitlines() == [head], "readers find the columns they know"


@pytest.mark.parametrize(
    "words, message",
    [
        (["--out", "x.txt"], "must end in"),
        (["--table", "x.xls"], "must end in"),
        (["--min-diameter", "9", "--max-diameter", "4"], "must be below"),
    ],
)
def test_options_that_cannot_be_used(ct, bright, finder, words, message, capsys) -> None:
    assert cli.main(["segment-all", str(ct), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--sensitivity", "2"], ["--sensitivity", "x"], ["--min-diameter", "-1"]])
def test_numbers_out_of_range(ct, words) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["segment-all", str(ct), *words])
    assert stopped.value.code == 2


def test_the_thorough_search_asks_a_detector_that_the_user_brings(
    ct, scene, bright, finder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "data"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cli.main(["segment-all", str(ct), "--thorough"]) == 2
    assert "sammed3d weights download lung_nodule_ct_detection" in capsys.readouterr().err
    assert cli.main(["segment-all", str(ct), "--detector", "model.pt"]) == 2
    assert "--thorough" in capsys.readouterr().err
    file = tmp_path / "model.pt"
    file.write_text("no weights")
    assert cli.main(["segment-all", str(ct), "--thorough", "--detector", str(file)]) == 2
    assert str(file) in capsys.readouterr().err

    class Nothing:
        tflop = 1.5

        def __init__(self, network):
            self.network = network

        def __call__(self, *args, **options):
            return []

    monkeypatch.setattr("SAMMed3DLib.finding.detectors.RetinaNetDetector", Nothing)
    monkeypatch.setattr("SAMMed3DLib.model.retina_net.load_retina_net", lambda path, device: (path, device))
    words = ["segment-all", str(ct), "--json", "--sensitivity", "1"]
    scores = []
    for more in ([], ["--thorough", "--detector", str(file)]):
        assert cli.main([*words, *more]) == 0
        scores.append([nodule["score"] for nodule in json.loads(capsys.readouterr().out)["nodules"]])
    assert len(scores[0]) == len(scores[1]) == 2 and scores[1][0] < scores[0][0], "what it does not name is doubted"


def test_report_and_compare_find_the_nodules_first(ct, scene, bright, finder, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert cli.main(["report", str(ct), "--out", str(out)]) == 0
    found = read_findings(out / "findings.json")
    assert [nodule.label for nodule in found.nodules] == [1, 2]
    for number, nodule in enumerate(found.nodules):
        assert np.linalg.norm(scene.center_ras(number) - nodule.place.centroid_ras) < 1.5
        assert nodule.mean_diameter_mm == pytest.approx(2.0 * scene.radii_mm[number], abs=1.5)
    labels = read_labels(out / "segmentation.seg.nrrd").array_kji
    assert np.count_nonzero(labels == 1) > np.count_nonzero(labels == 2) > 0
    prior, volume = tmp_path / f"prior-{ct.name}", read_volume(ct)
    volume.array_kji[0, 0, 0] += 1  # the same voxels would be the same scan
    write_volume(prior, volume)
    assert cli.main(["compare", str(ct), str(prior), "--out", str(out), "--pair", "1=1"]) == 0
    pairs = read_findings(out / "findings.json").follow_up.pairs
    assert pairs[0].status == "matched" and pairs[0].volume.percent == pytest.approx(0.0, abs=1e-6)
    assert len(bright()) == 2, "one model for both scans of a comparison"
    capsys.readouterr()
