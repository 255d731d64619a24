"""What the model is least sure of comes first."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from SAMMed3DLib.inference import InputError
from SAMMed3DTrainingLib.data.datasets import DatasetError
from SAMMed3DTrainingLib.evaluate.active_learning import (
    MEASURE,
    MEASURE_STABILITY,
    GeneratorFinder,
    RankingConfig,
    rank,
    run_ranking,
    uncertainty,
    unlabelled_images,
)
from SAMMed3DTrainingLib.job import Job

from .dataset_files import SHAPE_KJI, balls, ct, write, write_case


def record(score, iou=0.9, stability=0.9):
    return {
        "score": score,
        "predicted_iou": iou,
        "stability_score": stability,
        "point_coords": [[1.0, 2.0, 3.0]],
        "measurements": SimpleNamespace(equivalent_diameter_mm=6.0),
    }


class Finder:
    """Finds what the test says, by the volume's name."""

    def __init__(self, ranking="probability", **found) -> None:
        self.ranking, self._found = ranking, found

    def __call__(self, checkpoint, device, precision):
        return self

    def find(self, volume, progress):
        if not all(progress(part, 10) for part in range(10)):
            return None
        found = self._found[volume.name]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def volumes(tmp_path):
    for name in ("empty", "clear", "unsure"):
        write(tmp_path / "Fälle" / f"{name}.nii.gz", ct(np.zeros(SHAPE_KJI, np.uint8)))
    return tmp_path / "Fälle"


FOUND = {"empty": [], "clear": [record(0.99), record(0.02)], "unsure": [record(0.5), record(0.45, 0.5, 0.4)]}


def test_the_least_sure_comes_first(volumes, tmp_path):
    content = rank(RankingConfig((volumes,), out=tmp_path / "ranking.json"), Job("rank", True), Finder(**FOUND))
    assert [entry["name"] for entry in content["ranked"]] == ["unsure", "clear", "empty"]
    assert json.loads((tmp_path / "ranking.json").read_text(encoding="utf-8")) == content
    assert content["complete"] and content["measure"] == MEASURE and "Settles" in content["source"]
    first, *__, last = content["ranked"]
    assert (last["uncertainty"], last["candidates"], last["objects"]) == (0, 0, [])
    assert first["expected_nodules"] == pytest.approx(0.95) and first["path"] == str(volumes / "unsure.nii.gz")
    parts = [each["uncertainty"] for each in first["objects"]]
    assert parts == sorted(parts, reverse=True) and first["uncertainty"] == pytest.approx(sum(parts), abs=1e-3)


def test_the_measure():
    assert uncertainty(record(0.5, 1.0, 1.0), "probability") == pytest.approx(1.0)  # one bit
    assert uncertainty(record(0.0, 0.0, 0.0), "probability") == 0.0  # no nodule: nobody asks for its outline
    assert uncertainty(record(1.0, 0.6, 0.8), "probability") == pytest.approx(0.3)
    assert uncertainty(record(1.0, None, 0.8), "probability") == pytest.approx(0.2)
    assert uncertainty(record(0.9, None, 0.8), "stability") == pytest.approx(0.2)
    curve = [uncertainty(record(p), "probability") for p in (0.01, 0.1, 0.3, 0.5)]
    assert curve == sorted(curve)


def test_a_hundred_faint_objects_do_not_beat_everything(volumes):
    found = FOUND | {"empty": [record(0.02)] * 100}
    content = rank(RankingConfig((volumes,)), Job("rank", True), Finder(**found))
    assert content["ranked"][0]["name"] == "unsure"


def test_weights_without_a_probability(volumes):
    content = rank(RankingConfig((volumes,)), Job("rank", True), Finder("stability", **FOUND))
    assert content["measure"] == MEASURE_STABILITY and content["ranked"][0]["expected_nodules"] is None


def test_what_cannot_be_read_is_named(volumes, capsys):
    (volumes / "torn.nii.gz").write_bytes(b"torn")
    write(volumes / "labels.nii.gz", balls((8, 12, 12)))
    content = rank(RankingConfig((volumes,)), Job("rank", True), Finder(**FOUND | {"clear": InputError("NaN")}))
    assert len(content["ranked"]) == 2 and content["complete"]
    assert sorted(path.rpartition("/")[2] for path in map(str, content["skipped"])) == [
        "clear.nii.gz",
        "labels.nii.gz",
        "torn.nii.gz",
    ]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines if line["event"] != "progress"] == [
        "note",
        "item",
        "note",
        "note",
        "item",
        "result",
    ]
    with pytest.raises(DatasetError, match="NaN"):
        rank(RankingConfig((volumes / "clear.nii.gz",)), Job("rank", True), Finder(clear=InputError("NaN")))


def test_asked_to_end_it_tells_what_it_has(volumes, tmp_path):
    control = tmp_path / "control"

    class Stopping(Finder):
        def find(self, volume, progress):
            if volume.name == "empty":  # the second in the order of names
                control.write_text("stop")
            return super().find(volume, progress)

    seconds = iter(range(10_000))
    job = Job("rank", True, control, clock=lambda: next(seconds))
    content = rank(RankingConfig((volumes,), out=tmp_path / "r.json"), job, Stopping(**FOUND))
    assert [entry["name"] for entry in content["ranked"]] == ["clear"] and not content["complete"]
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["complete"] is False


def test_which_volumes(tmp_path):
    data = tmp_path / "set"
    write_case(data, "P1", balls((8, 12, 12)))
    write_case(data, "P2", None)
    write_case(data, "P3", None, part="Ts")
    assert [path.name for path in unlabelled_images([data])] == ["P2_0000.nii.gz", "P3_0000.nii.gz"]
    file = data / "imagesTr" / "P1_0000.nii.gz"
    assert unlabelled_images([file, file, data / "imagesTr"]) == [file, data / "imagesTr" / "P2_0000.nii.gz"]
    series = tmp_path / "series"
    series.mkdir()
    (series / "IM0001").write_bytes(b"")
    assert unlabelled_images([series]) == [series]
    labelled = tmp_path / "labelled"
    write_case(labelled, "P1", balls((8, 12, 12)))
    (tmp_path / "nothing").mkdir()
    for path, message in ((labelled, "nothing left"), (tmp_path / "nothing", "no volume"), (tmp_path / "gone", "gone")):
        with pytest.raises(DatasetError, match=message):
            unlabelled_images([path])


def test_the_real_model_is_less_sure_of_ambiguous_nodules(tmp_path):
    """Vessel-like tubes and faint balls against clear ones and an empty lung; the bundled model."""
    empty, clear = np.zeros(SHAPE_KJI, np.uint8), balls((8, 12, 12), (16, 28, 28), radius_mm=4.0)
    write(tmp_path / "v" / "empty.nii.gz", ct(empty, 1))
    write(tmp_path / "v" / "clear.nii.gz", ct(clear, 2))
    faint = ct(empty, 3).astype(np.float64)
    for center, height in (((8, 12, 12), 300.0), ((16, 28, 28), 250.0)):
        ball = balls(center, radius_mm=3.0) > 0
        faint[ball] += height
    tube = faint.copy()
    tube[3:22, 8:11, 24:27] += 500.0
    write(tmp_path / "v" / "unsure.nii.gz", tube.astype(np.int16))
    content = rank(RankingConfig((tmp_path / "v",), device="cpu"), Job("rank", True), GeneratorFinder)
    assert [entry["name"] for entry in content["ranked"]] == ["unsure", "clear", "empty"]


def test_the_command_line(tmp_path, capsys):
    assert run_ranking(["--data", str(tmp_path / "gone"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["kind"] == "bad_data"
