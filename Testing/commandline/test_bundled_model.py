"""The whole way with the bundled model: a synthetic chest and, where they are at hand, real scans."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from SAMMed3DLib import cli
from SAMMed3DLib.files.volume_io import read_labels, read_volume
from shared_data import shared_dir


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "nodules.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def mean_dice(folder: Path) -> float:
    scores = [float(row["dice"]) for row in rows_of(folder)]
    return sum(scores) / len(scores)


def test_the_demo_segments_the_phantoms_nodules_from_one_click(tmp_path: Path) -> None:
    assert cli.main(["demo", "--device", "cpu", "--out", str(tmp_path / "demo")]) == 0
    rows = rows_of(tmp_path / "demo")
    assert len(rows) == 8
    assert all(0.0 <= float(row["predicted_iou"]) <= 1.0 for row in rows)
    assert mean_dice(tmp_path / "demo") > 0.75
    ct = read_volume(tmp_path / "demo" / "ct.nii.gz")
    found = read_labels(tmp_path / "demo" / "segmentation.seg.nrrd")
    assert found.array_kji.shape == ct.array_kji.shape
    assert sorted(set(found.array_kji.ravel())) == list(range(9))


@pytest.mark.skipif(shared_dir() is None, reason="no shared data")
@pytest.mark.parametrize("patient", ["0001", "0003"])
def test_the_demo_segments_real_nodules_from_one_click(patient: str, tmp_path: Path) -> None:
    scan = shared_dir() / "data" / "lidc_idri" / f"LIDC-IDRI-{patient}"
    words = ["demo", f"{scan}_ct.nii.gz", "--labels", f"{scan}_nodules.nii.gz", "--device", "cpu"]
    assert cli.main([*words, "--out", str(tmp_path / "demo")]) == 0
    assert mean_dice(tmp_path / "demo") > 0.6
