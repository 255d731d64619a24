"""Old against new: the same clicks on the held-out nodules, masks in the image's geometry, and no half results."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from SAMMed3DLib.files.volume_io import read_labels, read_volume
from SAMMed3DLib.model import build_model, load_model, save_checkpoint
from SAMMed3DLib.weights import default_checkpoint
from SAMMed3DTrainingLib.data.datasets import DatasetError, find_datasets
from SAMMed3DTrainingLib.data.splits import Split, write_split
from SAMMed3DTrainingLib.evaluate.comparison import ComparisonConfig, compare, run_comparison
from SAMMed3DTrainingLib.evaluate.evaluation import dice
from SAMMed3DTrainingLib.job import Job
from SAMMed3DTrainingLib.runs.run_files import DICE_BEST, RunError
from SAMMed3DTrainingLib.train.training_config import parse_training_options

from .dataset_files import balls, write_case


class Listener(Job):
    """A job that keeps what it is told."""

    def __init__(self, stop_after: float = 1e9) -> None:
        super().__init__("compare")
        self.notes, self.items, self.done, self._stop_after = [], [], [], stop_after

    @property
    def cancelled(self):
        return len(self.items) >= self._stop_after

    def note(self, text):
        self.notes.append(text)

    def item(self, values, text):
        self.items.append(values)

    def progress(self, done, total, message=""):
        self.done.append(done / total)

    def result(self, values, text):
        self.text = text


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A run of the bundled model that made it worse, with two patients held out."""
    folder = tmp_path_factory.mktemp("Läufe")
    data = folder / "Fälle"
    for n in range(3):
        write_case(data, f"P{n}", balls((8, 12, 12), (16, 28, 28), radius_mm=3.0 + n, values=(5, 9)), seed=n)
    run = folder / "work" / "Süd 1"
    run.mkdir(parents=True)
    model = load_model(default_checkpoint())
    decoder = model.mask_decoder.state_dict()
    generator = np.random.default_rng(0)
    for value in decoder.values():
        if value.is_floating_point():
            value += value.std(unbiased=False) * 0.2 * np.float32(generator.standard_normal(1)[0])
    save_checkpoint(model, run / DICE_BEST)
    config = parse_training_options(
        ["--task_name", run.name, "--work_dir", str(run.parent), "--data", str(data), "--preset", "quick"]
    )
    config.write(run / "config.json", {})
    train, *held_out = find_datasets(data)[0].cases
    write_split(Split((train,), tuple(held_out), (), "random by patient"), run)
    return folder


@pytest.fixture
def run(template, tmp_path):
    shutil.copytree(template, tmp_path / "copy")
    folder = tmp_path / "copy" / "work" / "Süd 1"
    text = (folder / "config.json").read_text(encoding="utf-8")
    config = json.loads(text) | {"data": [str(tmp_path / "copy" / "Fälle")]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def config(run):
    return ComparisonConfig(run, clicks=3, device="cpu")


def test_every_held_out_nodule_with_its_masks(run, config):
    job = Listener()
    path = compare(config, job)
    assert path == run / "comparison" / "comparison.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["clicks"] == [1, 3] and content["old"]["checkpoint"] == "bundled"
    assert content["new"]["checkpoint"] == str(run / DICE_BEST) and content["skipped"] == {}
    assert [row["case"] for row in content["nodules"]] == ["Fälle/Tr/P1"] * 2 + ["Fälle/Tr/P2"] * 2
    assert (content["nodules_count"], content["patients"]) == (4, 2) and "split.json" in content["source"]
    assert job.items == content["nodules"] and job.done[-1] == 1.0 and job.done == sorted(job.done)
    for row in content["nodules"]:
        assert row["delta"] == pytest.approx(np.subtract(row["new"]["dice"], row["old"]["dice"]), abs=2e-5)
    for what in ("old", "new", "delta"):
        curve = [row[what] if what == "delta" else row[what]["dice"] for row in content["nodules"]]
        for column, click in enumerate(("1", "3")):
            mean = content["mean"][what][click]
            assert mean["mean"] == pytest.approx(np.mean([each[column] for each in curve]), abs=1e-4)
            assert mean["low"] <= mean["mean"] <= mean["high"]
    assert content["mean_old"] == content["mean"]["old"]["3"]["mean"] > 0.7
    assert content["mean_delta"] == pytest.approx(content["mean_new"] - content["mean_old"], abs=1e-4)
    assert "mean Dice after 3 clicks" in job.text and "Fälle/Tr/P1" in job.text

    # The masks are those that were scored, and lie where the image lies.
    for case in content["cases"]:
        image, truth = read_volume(case["image"]), read_labels(case["label"])
        for side in ("old", "new"):
            for column, click in ((0, "1"), (1, "3")):
                mask = read_labels(path.parent / case[side][click])
                assert mask.array_kji.shape == image.array_kji.shape
                assert np.allclose(mask.ijk_to_ras, image.ijk_to_ras)
                for row in (each for each in content["nodules"] if each["case"] == case["case"]):
                    found = dice(truth.array_kji == row["label_value"], mask.array_kji == row["value"])
                    assert found == pytest.approx(row[side]["dice"][column], abs=1e-4)
                    center = np.linalg.inv(image.ijk_to_ras) @ [*row["center_ras"], 1.0]
                    i, j, k = np.round(center[:3]).astype(int)
                    assert truth.array_kji[k, j, i] == row["label_value"]


def test_a_second_comparison_takes_the_place_of_the_first(run):
    config = ComparisonConfig(run, clicks=1, device="cpu")
    compare(config, Listener())
    before = json.loads((run / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    compare(config, Listener())
    after = json.loads((run / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    assert after["nodules"] == before["nodules"]  # the same clicks
    assert len(list((run / "comparison").iterdir())) == 2  # the table and one folder of masks
    files = [case[side]["1"] for case in after["cases"] for side in ("old", "new")]
    assert len(files) == 4
    moved = run.rename(run.with_name("renamed"))  # the masks are found all the same
    assert all((moved / "comparison" / file).is_file() for file in files)
    moved.rename(run)

    # One that is ended leaves what there was.
    assert compare(config, Listener(stop_after=1)) is None
    assert json.loads((run / "comparison" / "comparison.json").read_text(encoding="utf-8")) == after
    assert len(list((run / "comparison").iterdir())) == 2


def test_one_click_and_weights_from_elsewhere(run, tmp_path):
    adopted = tmp_path / "adopted.pth"
    shutil.copyfile(default_checkpoint(), adopted)
    job = Listener()
    compare(ComparisonConfig(run, run / DICE_BEST, adopted, out=tmp_path / "out", clicks=1, device="cpu"), job)
    content = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert content["clicks"] == [1] and content["new"]["checkpoint"] == str(adopted)
    assert "split.json" in content["source"]  # of the run, wherever the weights lie
    assert [set(case["old"]) for case in content["cases"]] == [{"1"}, {"1"}]


def test_a_case_that_cannot_be_read_is_left_out_and_named(run):
    config = ComparisonConfig(run, clicks=1, device="cpu")
    data = run.parents[1] / "Fälle"
    (data / "imagesTr" / "P1_0000.nii.gz").write_bytes(b"torn")
    job = Listener()
    compare(config, job)
    content = json.loads((run / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    assert list(content["skipped"]) == ["Fälle/Tr/P1"] and content["nodules_count"] == 2
    assert content["mean"]["delta"]["1"]["low"] is None  # one patient gives no interval
    assert any("P1" in note for note in job.notes)
    (data / "imagesTr" / "P2_0000.nii.gz").write_bytes(b"torn")
    with pytest.raises(DatasetError, match="no nodule to compare on"):
        compare(config, Listener())


def test_what_the_run_started_from_is_the_old_one(run, tmp_path):
    (run.parents[1] / "Fälle" / "labelsTr" / "P2.nii.gz").write_bytes(b"torn")  # one case is enough
    path = tmp_path / "start.pth"
    save_checkpoint(build_model("vit_tiny"), path)
    values = json.loads((run / "config.json").read_text(encoding="utf-8"))
    (run / "config.json").write_text(json.dumps(values | {"checkpoint": str(path)}), encoding="utf-8")
    compare(ComparisonConfig(run, clicks=1, device="cpu"), Listener())
    content = json.loads((run / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    assert content["old"]["checkpoint"] == str(path)
    path.unlink()
    job = Listener()
    compare(ComparisonConfig(run, clicks=1, device="cpu"), job)
    assert any("start.pth" in note and "bundled" in note for note in job.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": "nowhere"}, "no weights yet"),
        ({"old": "gone.pth"}, "gone.pth"),
        ({"new": "gone.pth"}, "gone.pth"),
        ({"old": DICE_BEST}, "the same file"),
        ({"clicks": 0}, "--clicks"),
    ],
)
def test_what_cannot_be_compared(run, changes, message):
    values = {key: run / value if isinstance(value, str) else value for key, value in changes.items()}
    with pytest.raises(RunError, match=message):
        compare(ComparisonConfig(**{"run": run, "device": "cpu", **values}), Listener())
    assert not (run / "comparison").exists()


def test_the_command_line(run, capsys):
    assert run_comparison(["--run", str(run / "no"), "--json"]) == 2
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["event"] == "error" and "no weights yet" in last["message"] and last["kind"] == "other"
    assert run_comparison(["--run", str(run / "no")]) == 2
    assert "compare: error:" in capsys.readouterr().err
