"""The benchmark on crops of real nodules: its fill, its clicks, its figures, and a run on crops made here."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from Research import real_crops
from SAMMed3DLib.inference import Prediction, SamPredictor3D
from SAMMed3DLib.inference.geometry import transform_points, voxel_index, world_to_ijk
from shared_data import shared_dir

SPACING = (1.5, 0.8, 0.7)


def ball(shape, center, radius_mm):
    offsets = (np.moveaxis(np.indices(shape), 0, -1) - center) * SPACING
    return np.linalg.norm(offsets, axis=-1) <= radius_mm


def write_crop(
    folder: Path, name: str, patient: str, radius_mm: float, drawn_mm: tuple[float, ...] = (-0.5, 0.0, 0.5), **facts
) -> dict[str, str]:
    """A ball in lung tissue that readers drew smaller, as it is and larger, and its row of the index."""
    shape, center = (14, 36, 38), (6, 17, 19)
    readers = np.array([ball(shape, center, radius_mm + grow) for grow in drawn_mm])
    hu = np.where(readers[1], 40, -860) + np.random.default_rng(len(name)).integers(-30, 31, shape)
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    affine[:3, 3] = (12.0, -30.0, 140.0)
    np.savez_compressed(
        folder / f"{name}.npz",
        hu=hu.astype(np.int16),
        votes=np.packbits(readers),
        nvotes=len(readers),
        spacing=np.array(SPACING),
        affine=affine,
    )
    row = {
        "name": name,
        "patient": patient,
        "split": "validation",
        "equivalent_diameter_mm": str(2 * radius_mm),
        "slice_spacing_mm": str(SPACING[0]),
        "slices_below": "1",
        "slices_above": "2",
        "texture": "5",
        "margin": "5",
        "spiculation": "1",
    }
    return row | {key: str(value) for key, value in facts.items()}


@pytest.fixture
def shared(tmp_path) -> Path:
    folder = tmp_path / "data" / "lidc_voi"
    folder.mkdir(parents=True)
    rows = [
        write_crop(folder, "A_1", "A", 5.0),
        write_crop(folder, "A_2", "A", 6.5, texture=1.5),
        write_crop(folder, "B_1", "B", 7.0, (-0.5, 0.0, 0.0, 0.5), spiculation=4.5),
        write_crop(folder, "C_1", "C", 6.0, slices_above=0),
        write_crop(folder, "D_1", "D", 6.0, split="train"),
    ]
    with (folder / "index.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def nodules(shared: Path, **options) -> list[real_crops.RealNodule]:
    return list(real_crops.read_nodules(shared / "data" / "lidc_voi", "validation", **options))


# -- the crops --------------------------------------------------------------------------------------------------------


def test_only_nodules_of_the_split_with_margin_at_both_ends(shared):
    assert [nodule.name for nodule in nodules(shared)] == ["A_1", "A_2", "B_1"]
    assert [nodule.name for nodule in nodules(shared, limit=2)] == ["A_1", "A_2"]


def test_a_crop_is_surrounded_by_lung_and_stays_where_it_was(shared):
    nodule = nodules(shared)[0]
    with np.load(shared / "data" / "lidc_voi" / "A_1.npz") as stored:
        crop, affine = stored["hu"], stored["affine"]
    pads = [int(np.ceil(24.0 / step)) for step in SPACING]
    inside = tuple(slice(pad, pad + n) for pad, n in zip(pads, crop.shape, strict=True))
    assert np.array_equal(nodule.hu[inside], crop)
    assert np.allclose(
        transform_points(nodule.ijk_to_ras, np.array(pads[::-1]) + (2, 3, 4)), transform_points(affine, (2, 3, 4))
    )
    outside = np.ones(nodule.hu.shape, bool)
    outside[inside] = False
    # nothing of the nodule goes on above it, and no air begins where the crop ends
    assert abs(np.median(nodule.hu[outside]) + 860) < 10 and (nodule.hu[outside] < -600).all()
    assert np.array_equal(nodule.consensus, nodule.readers[1])
    expected = np.mean([real_crops.dice(nodule.readers[a], nodule.readers[b]) for a, b in ((0, 1), (0, 2), (1, 2))])
    assert nodule.readers_dice == pytest.approx(expected)


def test_each_of_four_readers_is_left_out_once(shared):
    three, _, four = nodules(shared)
    assert three.left_out == []  # half of the two others would be either of them
    readers, others = zip(*four.left_out, strict=True)
    assert np.array_equal(readers, four.readers)
    assert all(np.array_equal(consensus, four.readers[1]) for consensus in others)


@pytest.mark.skipif(
    shared_dir() is None or not (shared_dir() / "data" / "lidc_voi" / "surround.py").is_file(), reason="no crops"
)
def test_the_fill_is_that_of_the_data():
    folder = shared_dir() / "data" / "lidc_voi"
    spec = importlib.util.spec_from_file_location("surround", folder / "surround.py")
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    for nodule in real_crops.read_nodules(folder, "train", limit=5):
        hu, affine, votes, consensus = rule.surrounded(rule.read(folder / f"{nodule.name}.npz"))
        assert np.array_equal(nodule.hu, hu) and np.allclose(nodule.ijk_to_ras, affine)
        assert np.array_equal(nodule.readers, votes) and np.array_equal(nodule.consensus, consensus)


def test_first_clicks_lie_where_their_names_say_and_do_not_depend_on_the_other_nodules(shared):
    for nodule in nodules(shared):
        clicks = real_crops.first_clicks(nodule)
        radius = float(nodule.facts["equivalent_diameter_mm"]) / 2
        middle = np.argwhere(nodule.consensus).mean(axis=0)
        inner = np.linalg.norm((clicks.inner - middle) * SPACING, axis=1)
        assert len(np.unique(clicks.inner, axis=0)) > 4 and (inner < 0.5 * radius + 1.6).all()
        rim = np.linalg.norm((clicks.border - middle) * SPACING)
        assert nodule.consensus[tuple(clicks.border)] and rim > 0.5 * radius
        for click, steps in ((clicks.outside, 1), (clicks.further, 2)):
            assert not nodule.consensus[tuple(click)]
            in_slice = np.argwhere(nodule.consensus[click[0]])
            assert np.abs(in_slice - click[1:]).sum(axis=1).min() == steps
    again = real_crops.first_clicks(nodules(shared, limit=1)[0])
    assert np.array_equal(again.inner, real_crops.first_clicks(nodules(shared)[0]).inner)


def test_masses_are_nodules_enlarged(shared):
    (nodule, other) = nodules(shared, enlarge_to_mm=52.0)
    assert (nodule.name, other.name) == ("A_2", "B_1")  # 10 mm is too coarse to be enlarged
    assert nodule.spacing_kji == pytest.approx(np.array(SPACING) * 4)


# -- figures ----------------------------------------------------------------------------------------------------------


class Reader:
    """Answers each click with the true ball moved by one voxel for each click that is still missing."""

    def __init__(self, wrong_clicks: int = 2) -> None:
        self.wrong_clicks = wrong_clicks

    def set_image(self, hu, matrix):
        self.hu, self.matrix = hu, matrix

    def predict(self, points, labels, *, previous):
        mask = np.roll(self.hu > -400, max(0, self.wrong_clicks + 1 - len(points)), axis=1)
        # a mask that follows the click: the volume then depends on where it was
        first = voxel_index(world_to_ijk(self.matrix, points[0]))[::-1]
        mask[tuple(first)] = True
        return Prediction(mask.astype(np.uint8), (0, 0, 0), 0.25 + 0.25 * len(points), None, None)


def test_figures_of_a_predictor_that_is_right_at_the_third_click(shared):
    figures = [real_crops.measure(Reader(), nodule) for nodule in nodules(shared)]
    summary = real_crops.summarize(figures)
    assert summary["nodules"] == 3 and summary["patients"] == 2
    curve = [summary["challenge"][str(click)]["mean"] for click in real_crops.SHOWN]
    assert curve[0] < curve[1] < curve[2] == curve[-1] == 1.0
    assert summary["single_readers"]["10"]["mean"] < 1.0  # the readers differ from their consensus
    # of the nodule with four: two readers drew what the others agree on, and the mask is a voxel off
    assert 0.9 < summary["left_out_reader"] < 1.0 and summary["left_out_mask"] == figures[2]["challenge"][0]
    assert summary["nsd_1mm"]["3"]["mean"] == 1.0
    assert summary["volume_ratio"]["1"][0] == pytest.approx(1.0, abs=0.01)
    assert summary["outside_2"]["1"]["mean"] < summary["challenge"]["1"]["mean"]
    assert summary["drops"]["challenge"] == {"mean": 0.0, "single": 0.0, "nodule": "A_1", "above_0.03": 0}
    low, high = summary["challenge"]["1"]["interval"]
    assert low < curve[0] < high
    assert summary["calibration"]["pearson"] > 0.5


def made_up(challenge, volumes, patient="A", name="n"):
    told = [0.9 * value / (2 - value) for value in challenge]
    return {
        "name": name,
        "patient": patient,
        "readers_dice": 0.8,
        "left_out_reader": float("nan") if name == "falls" else 0.7,
        "left_out_mask": 0.75,
        "challenge": challenge,
        "single_readers": challenge,
        "nsd_1mm": challenge[:5],
        "volume_ratio": [0.5] * len(challenge),
        "inner": challenge[:5],
        "inner_first": [0.6, 0.8],
        "inner_voxel_mm3": volumes,
        "inner_measured_mm3": volumes,
        "border": challenge[:5],
        "outside": challenge[:5],
        "outside_2": challenge[:1],
        "predicted_iou": told,
        "true_iou": [value / (2 - value) for value in challenge],
        "seconds": 1.0,
    }


def test_drops_spread_and_failures_are_read_off_single_nodules():
    falling = made_up([0.4, 0.9, 0.85, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.7], [90.0, 110.0], name="falls")
    rising = made_up([0.8, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 1.0], [100.0, 100.0], "B")
    summary = real_crops.summarize([falling, rising])
    assert summary["left_out_reader"] == 0.7  # where there are four readers
    assert summary["drops"]["challenge"]["single"] == pytest.approx(0.2)
    assert summary["drops"]["challenge"]["mean"] == pytest.approx(0.05)
    assert summary["drops"]["challenge"]["nodule"] == "falls" and summary["drops"]["challenge"]["above_0.03"] == 1
    assert summary["challenge"]["1"]["failures"] == 0.5 and summary["challenge"]["3"]["failures"] == 0.0
    assert summary["variation_voxel"]["worst"] == pytest.approx(np.sqrt(200) / 100)
    assert summary["variation_voxel"]["median"] == pytest.approx(np.sqrt(200) / 200)
    assert summary["inner_first"] == {"mean": pytest.approx(0.7), "mean_of_worst": pytest.approx(0.6)}
    assert summary["calibration"]["pearson"] == pytest.approx(1.0)
    assert 0.03 < summary["calibration"]["expected_error"] < 0.1


def test_calibration():
    assert real_crops.calibration([None] * 4, [0.5] * 4) is None
    known = real_crops.calibration([0.95, 0.95, 0.15, 0.15], [0.9, 0.8, 0.2, 0.3])
    assert known["expected_error"] == pytest.approx(0.1) and known["absolute_error"] == pytest.approx(0.1)
    assert 0.9 < known["pearson"] <= 1.0


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_bundled_model_on_made_up_crops(shared, tmp_path, capsys):
    out, pictures = tmp_path / "out", tmp_path / "pictures"
    arguments = ["--shared", shared, "--limit", "2", "--out", out, "--pictures", pictures]
    assert real_crops.main([str(argument) for argument in arguments]) == 0
    document = json.loads((out / "results.json").read_text(encoding="utf-8"))
    (checkpoint,) = document["checkpoints"]
    assert [nodule["name"] for nodule in checkpoint["nodules"]] == ["A_1", "A_2"]
    assert checkpoint["summary"]["challenge"]["3"]["mean"] > 0.8
    assert {row["stratum"] for row in checkpoint["strata"]} >= {"ground glass (< 2.5)", "solid (4-5)", "10-20 mm"}
    printed = capsys.readouterr().out
    assert printed == (out / "tables.md").read_text(encoding="utf-8")
    assert "| consensus, 1 / 2 / 3 / 5 / 10 clicks" in printed
    assert (pictures / "worst_sammed3d_nodule.png").stat().st_size > 10_000


@pytest.mark.parametrize("wrong", [["--limit", "0"], ["--threads", "0"], ["--mass", "-1"], ["--split", "test"]])
def test_wrong_options(shared, wrong):
    with pytest.raises(SystemExit) as stopped:
        real_crops.main(["--shared", str(shared), *wrong])
    assert stopped.value.code == 2


def test_missing_data_is_named(tmp_path, caplog):
    assert real_crops.main(["--shared", str(tmp_path)]) == 2
    assert "--shared" in caplog.text
    assert real_crops.main(["--shared", str(tmp_path), "--checkpoint", str(tmp_path / "none.pth")]) == 2


def test_measuring_leaves_the_predictor_usable(shared):
    """The real predictor takes the crops as they come: a click in the middle gives the ball."""
    from SAMMed3DLib.model import load_model
    from SAMMed3DLib.weights import default_checkpoint

    predictor = SamPredictor3D(load_model(default_checkpoint()))
    (nodule,) = nodules(shared, limit=1)
    figures = real_crops.measure(predictor, nodule, clicks=2)
    assert len(figures["challenge"]) == 2 and figures["challenge"][1] > 0.8
    assert len(figures["inner_first"]) == len(figures["inner_measured_mm3"]) == 8
