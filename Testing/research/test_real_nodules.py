"""The real-nodule table: its verdict, and a run on a scan made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from Research import real_nodules as benchmark
from SAMMed3DLib.files.volume_io import Volume, write_volume
from SAMMed3DLib.inference.geometry import Block
from SAMMed3DTrainingLib.evaluate.evaluation import dice


def test_verdict():
    assert benchmark.missed_targets([0.80, 0.84, 0.86, 0.855, 0.86]) == []
    assert [line.split(" is")[0] for line in benchmark.missed_targets([0.76, 0.8, 0.8, 0.8, 0.84])] == [
        "mean Dice at 1 click",
        "mean Dice at 5 clicks",
    ]
    assert "lowers" in benchmark.missed_targets([0.9, 0.95, 0.93, 0.94, 0.95])[0]
    assert benchmark.missed_targets([0.8]) == []


def test_the_largest_drop_of_a_curve():
    assert benchmark.largest_drop((0.5, 0.7, 0.9, 0.8, 1.0)) == pytest.approx(0.1)
    assert benchmark.largest_drop((0.5, 0.6)) == 0.0 and benchmark.largest_drop((0.5,)) == 0.0


def test_reader_agreement_is_the_pairs_dice():
    readers = np.random.default_rng(0).random((2, 20, 20)) < 0.4
    assert benchmark.reader_agreement(readers.sum(axis=0), 2) == pytest.approx(dice(*readers))
    distance = np.linalg.norm(np.indices((20, 20, 20)).T - 10, axis=-1)
    four = np.stack([distance <= radius for radius in (6, 6.4, 7, 7.3)])
    pairs = [dice(four[a], four[b]) for a in range(4) for b in range(a)]
    assert benchmark.reader_agreement(four.sum(axis=0), 4) == pytest.approx(np.mean(pairs), abs=0.01)
    for votes, count in ((four.sum(axis=0), 1), (four.sum(axis=0), 3), (np.zeros(5), 2)):
        with pytest.raises(ValueError, match="readers"):
            benchmark.reader_agreement(votes, count)


@pytest.fixture
def scan(tmp_path, monkeypatch) -> Path:
    """A lung with one ball that three readers drew in three sizes and one that a single reader drew."""
    folder = tmp_path / "data" / "lidc_idri"
    folder.mkdir(parents=True)
    grid = np.moveaxis(np.indices((40, 48, 56)), 0, -1)
    near, far = (np.linalg.norm(grid - center, axis=-1) for center in ((20, 24, 28), (8, 8, 8)))
    votes = (near <= 6).astype(np.uint8) + (near <= 6.5) + (near <= 7)
    labels = np.where(near <= 6.5, 1, np.where(far <= 3, 2, 0)).astype(np.uint8)
    votes[far <= 3] = 1
    ct = np.where((near <= 6.8) | (far <= 3), 30, -850) + np.random.default_rng(0).integers(-20, 21, labels.shape)
    for suffix, array in (("ct", ct.astype(np.int16)), ("nodules", labels), ("readers", votes)):
        path = folder / f"TOY-0001_{suffix}.nii.gz"
        write_volume(path, Volume(array, np.diag((0.8, 0.8, 1.0, 1.0)), path.name, path))
    entries = [{"label": 1, "readers": 3}, {"label": 2, "readers": 1}]
    (folder / "TOY-0001.json").write_text(json.dumps({"nodules": entries}))
    monkeypatch.setattr(benchmark, "SCANS", ("TOY-0001",))
    return tmp_path


class Stamp:
    """In the predictor's place: a cube of 5 voxels at the newest click."""

    def __init__(self, model: str) -> None:
        self.model = model

    def set_image(self, array_kji: np.ndarray, ijk_to_ras: np.ndarray) -> None:
        self.to_ijk = np.linalg.inv(ijk_to_ras)

    def predict(self, points_ras: np.ndarray, labels: np.ndarray, *, previous: Block | None = None) -> Block:
        k, j, i = np.rint(self.to_ijk @ np.append(points_ras[-1], 1))[2::-1].astype(int) - 2
        return Block(np.ones((5, 5, 5), dtype=np.uint8), (k, j, i))


def test_runs_and_reports(scan, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "load_model", lambda path, device, precision: path)
    monkeypatch.setattr(benchmark, "SamPredictor3D", Stamp)
    figures = tmp_path / "figures.json"
    code = benchmark.main(
        [
            "--shared",
            str(scan),
            "--checkpoint",
            "any.pth",
            "--clicks",
            "2",
            "--first-clicks",
            "2",
            "--json",
            str(figures),
        ]
    )
    printed = capsys.readouterr()
    assert code == 1 and "MISSED" in printed.err
    assert "never a benchmark" in printed.out and "LIDC-0001 #1 (3)" in printed.out and "#2" not in printed.out
    stored = json.loads(figures.read_text(encoding="utf-8"))
    (nodule,) = stored["nodules"]
    assert nodule["dice"][0] == pytest.approx(2 * 125 / (125 + nodule["truth_mm3"] / 0.64))
    assert len(nodule["dice"]) == 2 and len(nodule["first_click_trials"]) == 2
    assert 0.85 < nodule["readers_dice"] < 1 and nodule["region_growing_dice"] > 0.85
    assert stored["mean_dice"] == nodule["dice"] and stored["missed"]


def test_missing_data_is_said(tmp_path, capsys):
    assert benchmark.main(["--shared", str(tmp_path)]) == 2
    assert "--shared" in capsys.readouterr().err
