"""Whole evaluations: the familiar call, the scripts of the 2D models, and every kind of bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from SAMMed3DLib.model.sizes import BUNDLED_NETWORK
from SAMMed3DLib.weights import default_checkpoint
from SAMMed3DTrainingLib.__main__ import main
from SAMMed3DTrainingLib.data.datasets import find_datasets
from SAMMed3DTrainingLib.data.instances import split_instances
from SAMMed3DTrainingLib.data.splits import split_cases, write_split
from SAMMed3DTrainingLib.evaluate.evaluation_run import prediction_values

from .dataset_files import SHAPE_KJI, balls, ct, matrix, write, write_case
from .networks import small_vit
from .peer_weights import SMALL_ADAPTED, need_segment_anything, written

TRAINING = Path(__file__).resolve().parents[2] / "SAMMed3DTraining"
ONE, TWO = balls((12, 20, 20), radius_mm=4.0), balls((12, 12, 12), (12, 28, 28), values=(3, 7))
FILES = [
    "cases",
    "dice_over_clicks.png",
    "nodules.csv",
    "predictions",
    "results.json",
    "summary.txt",
    "volumes_bland_altman.png",
    "worst_nodules.png",
]


def run(tmp_path: Path, *words: str, model: str = "threshold") -> int:
    return main(["evaluate", "-vp", str(tmp_path / "out"), "-tdp", str(tmp_path / "data"), "--model", model, *words])


def results(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))


def test_everything_is_written_and_predictions_lie_on_their_images(tmp_path, capsys):
    write_case(tmp_path / "data", "P1", ONE, part="Ts")
    write_case(tmp_path / "data", "P2", TWO, part="Ts")
    assert run(tmp_path, "-nc", "3", "-pm", "challenge", "jitter", "--first_clicks", "2") == 0
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == FILES
    told = capsys.readouterr()
    assert "the data's Ts part" in told.out and "challenge" in told.out and "jitter" in told.out
    assert "1/2 data/Ts/P1: 1 nodule, Dice" in told.err and "left" in told.err
    content = results(tmp_path)
    assert len(content["nodules"]) == 6
    clicked = [n for n in content["nodules"] if n["method"] == "challenge"]
    assert [(n["case"], n["nodule"]) for n in clicked] == [("P1", "1.1"), ("P2", "3.1"), ("P2", "7.1")]
    assert content["summary"][0]["nodules"] == 3 and len(content["nodules"][0]["first_clicks"]) == 2
    names = sorted(path.name for path in (out / "predictions" / "data").iterdir())
    assert names == [f"P{n}_pred{end}.nii.gz" for n in (1, 2) for end in ("", "_jitter")]
    found = nibabel.load(out / "predictions" / "data" / "P2_pred.nii.gz")
    np.testing.assert_allclose(found.affine, matrix())
    values = np.asarray(found.dataobj).T
    assert set(np.unique(values)) == {0, 3, 7}, "the reference's values"
    for value, dice in zip((3, 7), (n["dice"][-1] for n in clicked[1:]), strict=True):
        mask, truth = values == value, value == TWO
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) == pytest.approx(dice, abs=1e-6)


def test_masks_and_dice_of_every_click_as_sam_med3d_lays_them_out(tmp_path):
    write_case(tmp_path / "data", "P2", TWO, part="Ts")
    assert run(tmp_path, "-nc", "2", "--first_clicks", "0", "--worst", "0", "--per_click") == 0
    out = tmp_path / "out"
    table = json.loads((out / "out_dice.json").read_text(encoding="utf-8"))
    nodules = results(tmp_path)["nodules"]
    assert list(table) == ["data"] and list(table["data"]) == ["P2/3.1", "P2/7.1"]
    for click in range(2):
        values = np.asarray(nibabel.load(out / "predictions" / "data" / f"P2_pred{click}.nii.gz").dataobj).T
        for value, nodule in zip((3, 7), nodules, strict=True):
            mask, truth = values == value, value == TWO
            dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
            assert dice == pytest.approx(nodule["dice"][click], abs=1e-6)
            assert table["data"][f"P2/{nodule['nodule']}"][str(click)] == nodule["dice"][click]
    last, whole = (out / "predictions" / "data" / f"P2_pred{end}.nii.gz" for end in ("1", ""))
    assert np.array_equal(*(np.asarray(nibabel.load(path).dataobj) for path in (last, whole)))


def test_components_of_one_value_are_numbered():
    labels = balls((12, 12, 12), (12, 28, 28))
    assert prediction_values(split_instances(labels, matrix())) == [1, 2]
    assert prediction_values(split_instances(TWO, matrix())) == [3, 7]
    assert prediction_values(split_instances(TWO.astype(np.uint32) * 40_000, matrix())) == [1, 2]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}


def test_the_familiar_call_runs_as_written(tmp_path):
    """From a folder with work_dir/lidc_finetune, the data's own held-out split is found and named."""
    for number in range(3):
        write_case(tmp_path / "CACHE" / "lidc", f"P{number}", ONE, seed=number)
    finetuned = tmp_path / "work_dir" / "lidc_finetune"
    finetuned.mkdir(parents=True)
    shutil.copy(default_checkpoint(), finetuned / "sam_model_dice_best.pth")
    split = split_cases(find_datasets(tmp_path / "CACHE"), seed=11)
    write_split(split, finetuned)
    call = [
        "--seed",
        "2023",
        "-vp",
        "./results/visualization/lidc_test",
        "-cp",
        "./work_dir/lidc_finetune/sam_model_dice_best.pth",
        "-tdp",
        "CACHE",
        "-nc",
        "10",
    ]
    done = subprocess.run(
        [sys.executable, str(TRAINING / "test.py"), *call],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "held-out" in done.stdout and "seed 11" in done.stdout
    assert f"{BUNDLED_NETWORK} (sam_model_dice_best.pth)" in done.stdout
    out = tmp_path / "results" / "visualization" / "lidc_test"
    assert sorted(path.name for path in out.iterdir()) == FILES
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert [n["case"] for n in content["nodules"]] == [case.name for case in split.val]
    assert len(content["nodules"][0]["dice"]) == 10 and content["nodules"][0]["dice"][0] > 0.6


@pytest.mark.parametrize(
    ("script", "key", "adapted"),
    [("infer_sam.sh", None, False), ("medsam_infer.sh", None, False), ("infer_med2d.sh", "model", True)],
)
def test_the_scripts_of_the_2d_models_run(tmp_path, script, key, adapted):
    need_segment_anything()
    if os.name == "nt":
        pytest.skip("the scripts need bash")
    write_case(tmp_path / "sam_med3d_cache" / "lidc", "P1", ONE, part="Ts")
    layout = {"layout": SMALL_ADAPTED} if adapted else {}
    words = ["-cp", str(written(tmp_path / "small.pth", key=key, **layout)), "-nc", "2", "--first_clicks", "1"]
    done = subprocess.run(
        ["bash", str(TRAINING / script), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "results").iterdir()
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert len(content["nodules"][0]["first_clicks"]) == (0 if script == "medsam_infer.sh" else 1), "a box is no click"
    assert "slice by slice" in content["model"]["title"] and "more clicks than a 3D model" in done.stdout


def test_a_script_without_its_weights_says_where_they_are(tmp_path):
    if os.name == "nt":
        pytest.skip("the scripts need bash")
    write_case(tmp_path / "sam_med3d_cache" / "lidc", "P1", ONE, part="Ts")
    done = subprocess.run(
        ["bash", str(TRAINING / "infer_sam.sh")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 2 and "facebookresearch/segment-anything" in done.stderr
    assert "Traceback" not in done.stderr


# -- bad input --------------------------------------------------------------------------------------------------------


def refused(tmp_path, capsys, message: str, *words: str, model: str = "threshold") -> None:
    assert run(tmp_path, *words, model=model) == 2
    told = capsys.readouterr()
    assert message in told.err and "Traceback" not in told.err
    out = tmp_path / "out"
    assert not out.exists() or any((out / "cases").iterdir()), "nothing is left behind but the records of cases"
    assert not (out / "results.json").exists()


def test_an_empty_folder(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    refused(tmp_path, capsys, "no data set in")


def test_no_folder(tmp_path, capsys):
    refused(tmp_path, capsys, "is not a folder")


def test_images_without_labels(tmp_path, capsys):
    write_case(tmp_path / "data", "P1", None, part="Ts")
    refused(tmp_path, capsys, "no labelled case")


def test_one_case_is_enough_and_its_limits_are_said(tmp_path, capsys):
    write_case(tmp_path / "data", "P1", ONE)
    assert run(tmp_path) == 0
    assert "one patient only" in capsys.readouterr().out


def test_label_maps_of_zeros_are_named(tmp_path, capsys):
    zeros = np.zeros(SHAPE_KJI, np.uint8)
    write_case(tmp_path / "data", "P1", zeros, part="Ts")
    refused(tmp_path, capsys, "no nodule to evaluate")
    write_case(tmp_path / "data", "P2", ONE, part="Ts")
    assert run(tmp_path) == 0
    assert "data/Ts/P1: the label map is empty" in capsys.readouterr().out
    assert not (tmp_path / "out" / "predictions" / "data" / "P1_pred.nii.gz").exists()


def test_an_empty_folder_of_the_user_stays_empty(tmp_path, capsys):
    other_geometry(tmp_path / "data")
    assert run(tmp_path) == 2
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    assert run(tmp_path) == 2
    assert "no nodule to evaluate" in capsys.readouterr().err and list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_lead_to_cases_or_are_told(tmp_path, capsys):
    write_case(tmp_path / "elsewhere", "P1", ONE, part="Ts")
    for kind in ("images", "labels"):
        (tmp_path / "data" / f"{kind}Ts").mkdir(parents=True)
        for file in (tmp_path / "elsewhere" / f"{kind}Ts").iterdir():
            (tmp_path / "data" / f"{kind}Ts" / file.name).symlink_to(file)
        (tmp_path / "data" / f"{kind}Ts" / "gone.nii.gz").symlink_to(tmp_path / "moved.nii.gz")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    assert run(tmp_path) == 0
    told = capsys.readouterr().out
    assert [each["case"] for each in results(tmp_path)["nodules"]] == ["P1"]
    for kind in ("images", "labels"):
        assert f"{kind}Ts/gone.nii.gz is a link to {tmp_path / 'moved.nii.gz'}, which does not exist" in told


def other_geometry(folder: Path) -> None:
    write(folder / "imagesTs" / "bad_0000.nii.gz", ct(ONE))
    write(folder / "labelsTs" / "bad.nii.gz", ONE, matrix((0.0, 0.0, 0.0)))


def fractions(folder: Path) -> None:
    write(folder / "imagesTs" / "bad_0000.nii.gz", ct(ONE))
    write(folder / "labelsTs" / "bad.nii.gz", ONE.astype(np.float32) * 0.5)


def four_axes(folder: Path) -> None:
    write(folder / "imagesTs" / "bad_0000.nii.gz", np.stack([ct(ONE)] * 2))
    write(folder / "labelsTs" / "bad.nii.gz", ONE)


def corrupt(folder: Path) -> None:
    path = write(folder / "imagesTs" / "bad_0000.nii.gz", ct(ONE))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    write(folder / "labelsTs" / "bad.nii.gz", ONE)


def not_finite(folder: Path) -> None:
    image = ct(ONE).astype(np.float32)
    image[0, 0, 0] = np.nan
    write(folder / "imagesTs" / "bad_0000.nii.gz", image)
    write(folder / "labelsTs" / "bad.nii.gz", ONE)


@pytest.mark.parametrize(
    ("make", "message"),
    [(other_geometry, "mm away"), (fractions, "not whole numbers"), (four_axes, "4D"), (corrupt, "truncated")],
)
def test_a_bad_case_is_named_and_the_others_count(tmp_path, capsys, make, message):
    make(tmp_path / "data")
    refused(tmp_path, capsys, message)
    write_case(tmp_path / "data", "good", ONE, part="Ts")
    assert run(tmp_path) == 2, "not everything that was asked for could be done"
    told = capsys.readouterr()
    assert "LEFT OUT data/Ts/bad" in told.out and message in told.out and "could not be used: 1" in told.err
    content = results(tmp_path)
    assert message in content["skipped"]["data/Ts/bad"] and [n["case"] for n in content["nodules"]] == ["good"]


def test_an_image_with_holes_in_its_numbers(tmp_path, capsys):
    not_finite(tmp_path / "data")
    refused(tmp_path, capsys, "NaN", "-nc", "1", "--device", "cpu", model="sam3d")
    refused(tmp_path, capsys, "NaN", "-nc", "1")  # no tool is judged on a case that the models cannot use


def test_names_with_spaces_and_other_letters(tmp_path, capsys):
    data = tmp_path / "data" / "Lungen Kohorte Ä"
    write_case(data, "Müller 日本 1", ONE, part="Ts")
    assert run(tmp_path) == 0
    assert results(tmp_path)["nodules"][0]["case"] == "Müller 日本 1"
    assert (tmp_path / "out" / "predictions" / "Lungen Kohorte Ä" / "Müller 日本 1_pred.nii.gz").is_file()


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    write_case(tmp_path / "data", "P1", ONE, part="Ts")
    (tmp_path / "out").write_text("a file")
    assert run(tmp_path) == 2
    assert "cannot be made" in capsys.readouterr().err
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        (tmp_path / "out").unlink()
        (tmp_path / "out").mkdir(mode=0o555)
        assert run(tmp_path) == 2
        assert "-vp" in capsys.readouterr().err


def test_a_checkpoint_of_another_network(tmp_path, capsys):
    write_case(tmp_path / "data", "P1", ONE, part="Ts")
    path = tmp_path / "other.pth"
    torch.save({"model_state_dict": small_vit().state_dict()}, path)
    refused(tmp_path, capsys, "unknown architecture", "-cp", str(path), "--device", "cpu", model="sam3d")
    path.write_text("<html>not found</html>")
    refused(tmp_path, capsys, "web page", "-cp", str(path), "--device", "cpu", model="sam3d")
    refused(tmp_path, capsys, "check the path", "-cp", str(tmp_path / "gone.pth"), "--device", "cpu", model="sam3d")


def test_a_device_that_is_not_there(tmp_path, capsys):
    write_case(tmp_path / "data", "P1", ONE, part="Ts")
    device, message = ("cuda:99", "cuda:99") if torch.cuda.is_available() else ("cuda", "no CUDA GPU")
    refused(tmp_path, capsys, message, "--device", device, model="sam3d")


def test_interrupting_leaves_no_report(tmp_path, capsys, monkeypatch):
    from SAMMed3DTrainingLib.evaluate import evaluation_run

    def interrupt(*unused):
        raise KeyboardInterrupt

    write_case(tmp_path / "data", "P1", ONE, part="Ts")
    monkeypatch.setattr(evaluation_run, "score_nodule", interrupt)
    assert run(tmp_path) == 130 and "interrupted" in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()


def without_times(tmp_path: Path) -> str:
    """Everything that was found, but how long it took and by whom."""
    content = results(tmp_path)
    for nodule in content["nodules"]:
        del nodule["seconds"]
    for summary in content["summary"]:
        del summary["first_s"], summary["next_s"]
    for name in ("vis_path", "worker_count", "threads", "scheduler", "slurm"):
        del content["options"][name]
    return json.dumps(content)


def test_cases_are_evaluated_once_and_by_several_processes_alike(tmp_path, capsys, monkeypatch):
    from SAMMed3DTrainingLib.evaluate import evaluation_run

    for number, labels in enumerate((ONE, TWO, ONE)):
        write_case(tmp_path / "data", f"P{number}", labels, part="Ts", seed=number)
    words = ["-nc", "2", "--first_clicks", "1", "--worst", "1"]
    assert run(tmp_path, *words, "--workers", "2", "--threads", "1") == 0
    first, told = without_times(tmp_path), capsys.readouterr().err
    assert "3/3 data/Ts/P" in told and "done before" not in told
    scored = []
    score = evaluation_run.score_nodule

    def noted(evaluated, loaded, *rest):
        scored.append(loaded.case.name)
        return score(evaluated, loaded, *rest)

    monkeypatch.setattr(evaluation_run, "score_nodule", noted)
    assert run(tmp_path, *words) == 0
    assert scored == [] and without_times(tmp_path) == first
    assert capsys.readouterr().err.count("done before") == 3
    (tmp_path / "out" / "predictions" / "data" / "P2_pred.nii.gz").unlink()
    write_case(tmp_path / "data", "P0", TWO, part="Ts", seed=9)
    assert run(tmp_path, *words) == 0
    assert sorted(set(scored)) == ["P0", "P2"]
    scored.clear()
    before = without_times(tmp_path)
    for name, old, new in (("P0", '"dice"', '"dise"'), ("P1", r'"dice": \[\s*[\d.]+', '"dice": [NaN')):
        record = tmp_path / "out" / "cases" / f"data_Ts_{name}.json"
        text, count = re.subn(old, new, record.read_text(encoding="utf-8"))
        assert count
        record.write_text(text, encoding="utf-8")
    assert run(tmp_path, *words) == 0
    assert sorted(set(scored)) == ["P0", "P1"] and without_times(tmp_path) == before
    scored.clear()
    assert run(tmp_path, *words, "--seed", "5") == 0
    assert sorted(set(scored)) == ["P0", "P1", "P2"]
    shutil.rmtree(tmp_path / "out")
    assert run(tmp_path, *words, "--seed", "5") == 0
    assert run(tmp_path, "--workers", "0") == 2
