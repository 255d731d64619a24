"""The pictures are drawn from few and many nodules, and the worst come first."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from SAMMed3DLib.inference import InputError
from SAMMed3DLib.inference.geometry import Block, transform_points
from SAMMed3DTrainingLib.data.datasets import Case, LoadedCase
from SAMMed3DTrainingLib.data.instances import split_instances
from SAMMed3DTrainingLib.evaluate import evaluation_plots
from SAMMed3DTrainingLib.evaluate.evaluation_plots import draw_dice, draw_volumes, draw_worst

from .dataset_files import balls, ct, matrix
from .scores import score


@pytest.mark.parametrize("count", [1, 2, 30])
def test_plots_of_any_number_of_nodules(tmp_path, count):
    rng = np.random.default_rng(0)
    scores = [
        score(
            dice=tuple(np.sort(rng.random(4))),
            patient=f"P{n}",
            truth=float(rng.uniform(50, 5000)),
            volumes=rng.uniform(50, 5000, 4).tolist(),
            method=method,
        )
        for n in range(count)
        for method in ("challenge", "random")
    ]
    draw_dice(tmp_path / "dice.png", scores, "title")
    draw_volumes(tmp_path / "volumes.png", scores[::2], "title")
    for name in ("dice.png", "volumes.png"):
        picture = matplotlib.image.imread(tmp_path / name)
        assert picture.shape[0] > 300 and picture[..., :3].std() > 0.02
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dice.png", "volumes.png"]


def test_one_click_and_an_empty_segmentation(tmp_path):
    scores = [score(dice=(0.0,), volumes=(0.0,))]
    draw_dice(tmp_path / "dice.png", scores, "title")
    draw_volumes(tmp_path / "volumes.png", scores, "title")
    assert (tmp_path / "volumes.png").stat().st_size > 1000


def loaded() -> LoadedCase:
    labels = balls((12, 10, 10), (12, 30, 30), values=(1, 2))
    case = Case("P1", Path("P1.nii.gz"), Path("P1.nii.gz"), "P1", "lidc", "Ts")
    return LoadedCase(case, ct(labels), matrix(), split_instances(labels, matrix()))


def scores_of(case: LoadedCase) -> list:
    scores = []
    for nodule, value in zip(case.nodules, (0.9, 0.3), strict=True):
        click = transform_points(case.ijk_to_ras, np.add(nodule.offset_kji, 2)[::-1])
        scores.append(
            dataclasses.replace(
                score(dice=(value,), nodule=nodule.name),
                points_ras=click[None],
                labels=np.ones(1, int),
                prediction=Block(nodule.mask.astype(np.uint8), nodule.offset_kji),
            )
        )
    return scores


def test_the_worst_come_first_and_lie_where_they_are(tmp_path, monkeypatch):
    case, drawn = loaded(), []
    monkeypatch.setattr(evaluation_plots, "_VIEW_MM", 3.0)
    monkeypatch.setattr(evaluation_plots, "write_preview", lambda path, array, ijk, rows, *more: drawn.extend(rows))
    draw_worst(tmp_path / "worst.png", scores_of(case), 5, lambda score: case, "title")
    assert [row.title for row in drawn] == ["P1 #2.1", "P1 #1.1"]
    for row in drawn:
        array, affine = row.volume
        assert array.size < case.array_kji.size, "only its surroundings stay in memory"
        inside = np.argwhere(row.prediction.mask) + row.prediction.offset_kji
        assert array[tuple(inside.T)].min() == 50, "the nodule's own voxels"
        np.testing.assert_array_equal(row.prediction.offset_kji, row.reference.offset_kji)
        place = np.linalg.inv(affine) @ np.append(row.clicks[0][0], 1)
        np.testing.assert_allclose(place[2::-1], np.add(row.prediction.offset_kji, 2), atol=1e-9)


def test_the_page_is_drawn(tmp_path):
    case = loaded()
    draw_worst(tmp_path / "worst.png", scores_of(case), 1, lambda score: case, "title")
    assert matplotlib.image.imread(tmp_path / "worst.png").shape[1] > 1000


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="could not be written"):
        draw_dice(tmp_path / "gone" / "dice.png", [score()], "title")


def test_the_documentations_figures(tmp_path, capsys):
    """Architecture from a forward pass; evaluations side by side on the nodules that both have."""
    script = Path(__file__).resolve().parents[2] / "Resources" / "draw_figures.py"
    spec = importlib.util.spec_from_file_location("draw_figures", script)
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    assert figures.main(["architecture", "--model", "nodule_light", "--out", str(tmp_path / "a.png")]) == 0

    def results(name, nodules):
        rows = [
            {"dataset": "d", "case": c, "nodule": "1.1", "patient": c, "method": "challenge", "dice": [0.5, 0.7]}
            for c in nodules
        ]
        content = {"model": {"title": name}, "nodules": rows}
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path / f"{name}.json"

    both = [results("ours", "abc"), results("theirs", "bcd")]
    assert figures.draw_comparison(both, tmp_path / "c.png") == 2
    for name in ("a", "c"):
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    (tmp_path / "none.json").write_text("{}")
    for wrong in ([both[0], results("other", "xy")], [tmp_path / "none.json"]):
        assert figures.main(["comparison", *map(str, wrong), "--out", str(tmp_path / "d.png")]) == 2
        assert "draw_figures: error" in capsys.readouterr().err and not (tmp_path / "d.png").exists()
