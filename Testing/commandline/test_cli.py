"""The commands from argument list to exit code, with a network that finds what is bright."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from SAMMed3DLib import __version__, cli
from SAMMed3DLib.commandline import segmenting
from SAMMed3DLib.commandline.terminal import our_warnings_told
from SAMMed3DLib.files.volume_io import read_labels
from SAMMed3DLib.model import build_model, save_checkpoint

from .conftest import BrightnessModel

ROOT = Path(__file__).resolve().parents[2]


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return 2.0 * np.count_nonzero((found != 0) & (truth != 0)) / (np.count_nonzero(found) + np.count_nonzero(truth))


@pytest.mark.parametrize("convention", ["ras", "lps", "ijk"])
def test_segment_writes_labels_picture_and_table(convention, ct, scene, bright, tmp_path, capsys) -> None:
    out, picture = tmp_path / "out ö.seg.nrrd", tmp_path / "p.png"
    words = ["segment", str(ct), "--point", scene.point(0, convention), "--nodule", "--point"]
    words += [scene.point(1, convention), "--out", str(out)]
    words += ["--preview", str(picture)] if convention == "ras" else [f"--{convention}"]
    assert cli.main(words) == 0
    labels = read_labels(out)
    np.testing.assert_allclose(labels.ijk_to_ras, scene.ijk_to_ras, atol=1e-5)
    for label in (1, 2):
        assert dice(labels.array_kji == label, scene.labels == label) > 0.85
    assert convention != "ras" or picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    printed = capsys.readouterr()
    head, _, first, second = printed.out.splitlines()
    assert head == "nodule    volume mm³  from mm³  to mm³  long mm  short mm  mean HU  pred. IoU  seconds"
    assert first.startswith("nodule 1") and second.startswith("nodule 2")
    assert float(first.split()[2]) == pytest.approx(4 / 3 * np.pi * 7.0**3, rel=0.25)
    assert " 0.88 " in first
    assert "reading the CT" in printed.err
    assert "2/2" in printed.err


def test_clicks_into_one_nodule_are_told_from_two_nodules(ct, scene, bright, capsys) -> None:
    words = ["segment", str(ct), "--point", scene.point(0), "--nodule", "--point", scene.point(1)]
    assert cli.main(words) == 0 and "share" not in capsys.readouterr().err
    assert cli.main([*words, "--nodule", "--point", scene.point(0)]) == 0
    told = capsys.readouterr().err
    assert (
        "nodule 3 and nodule 1 share 100 % of the smaller one: are they one nodule?" in told and "nodule 2" not in told
    )


def test_segment_as_json(ct, scene, bright, capsys) -> None:
    beside = (scene.center_ras(0) + (0.0, 0.0, 12.0)).round(3)
    words = ["segment", str(ct), "--point", scene.point(0), "--point", ",".join(map(str, beside)) + ",0", "--json"]
    assert cli.main([*words, "--device", "cpu", "--precision", "fp32", "--profile", "nodule"]) == 0
    result = json.loads(capsys.readouterr().out)
    (nodule,) = result["nodules"]
    assert nodule["positive"] == [True, False]
    assert len(nodule["seconds"]) == 2, "one time per click"
    assert nodule["predicted_iou"] == pytest.approx(0.875)
    assert nodule["volume_mm3"] == pytest.approx(4 / 3 * np.pi * 7.0**3, rel=0.25)
    assert bright() == [(None, None, "nodule", "cpu", "fp32")]


def test_segment_with_a_box(ct, scene, bright, tmp_path) -> None:
    center = scene.center_ras(1)
    box = ",".join(f"{value:.3f}" for value in (*(center + 7.0), *(center - 7.0)))
    assert cli.main(["segment", str(ct), "--box", box, "--out", str(tmp_path / "b.nii.gz")]) == 0
    assert dice(read_labels(tmp_path / "b.nii.gz").array_kji, scene.labels == 2) > 0.8


def test_demo_with_reference_labels(ct, scene, labels_file, bright, tmp_path, capsys) -> None:
    out = tmp_path / "new" / "demo"
    assert cli.main(["demo", str(ct), "--labels", str(labels_file), "--out", str(out)]) == 0
    assert {file.name for file in out.iterdir()} == {"segmentation.seg.nrrd", "nodules.csv", "preview.png"}
    with (out / "nodules.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["1", "2"]
    for row, label in zip(rows, (1, 2), strict=True):
        assert float(row["dice"]) > 0.85
        assert float(row["reference_mm3"]) == pytest.approx(np.sum(scene.labels == label) * 0.8 * 0.9 * 1.5, rel=1e-6)
        click = [float(row[f"click_{axis}"]) for axis in "ras"]
        np.testing.assert_allclose(click, scene.center_ras(label - 1), atol=1.6)
    printed = capsys.readouterr().out
    assert "Dice" in printed
    assert printed.splitlines()[4].startswith("mean")


def test_demo_takes_labels_from_another_grid(ct, scene, bright, tmp_path, capsys) -> None:
    """A reference cropped to part of the CT, as a segmentation saved by another program may be."""
    matrix = scene.ijk_to_ras.copy()
    matrix[:3, 3] = (matrix @ [5, 3, 2, 1])[:3]
    path = tmp_path / "cropped.nii.gz"
    nibabel.Nifti1Image(scene.labels[2:, 3:, 5:].T, matrix).to_filename(path)
    assert cli.main(["demo", str(ct), "--labels", str(path), "--out", str(tmp_path / "o")]) == 0
    rows = capsys.readouterr().out.splitlines()[2:4]
    volumes = [float(row.split()[-2]) for row in rows]
    np.testing.assert_allclose(volumes, [np.sum(scene.labels == n) * 0.8 * 0.9 * 1.5 for n in (1, 2)], atol=0.06)


def test_demo_without_data_makes_a_phantom(scene, bright, tmp_path, monkeypatch, capsys) -> None:
    from SAMMed3DLib.synthesis import phantom

    class Phantom:
        array_kji, ijk_to_ras, labels_kji = scene.array, scene.ijk_to_ras, scene.labels
        nodules = (
            {"label": 1, "kind": "part-solid", "diameter_mm": 14.2},
            {"label": 2, "kind": "solid", "diameter_mm": 9.7},
        )

    seeds: list[int] = []
    monkeypatch.setattr(phantom, "chest_phantom", lambda seed: seeds.append(seed) or Phantom)
    out = tmp_path / "o"
    assert cli.main(["demo", "--seed", "3", "--out", str(out)]) == 0
    assert seeds == [3]
    assert "part-solid 14 mm" in capsys.readouterr().out
    np.testing.assert_array_equal(read_labels(out / "reference.seg.nrrd").array_kji, scene.labels)
    again = ["demo", str(out / "ct.nii.gz"), "--labels", str(out / "reference.seg.nrrd"), "--out", str(tmp_path / "p")]
    assert cli.main(again) == 0, "what the demo writes, the demo reads"


def test_bad_input_ends_with_code_2_and_one_line(ct, scene, bright, labels_file, tmp_path, capsys) -> None:
    with_nan = scene.array.astype(np.float32)
    with_nan[3, 4, 5] = np.nan
    nibabel.Nifti1Image(with_nan.T, scene.ijk_to_ras).to_filename(tmp_path / "nan.nii.gz")
    (tmp_path / "notes.txt").write_text("")
    point = ["--point", scene.point(0)]
    cases = [
        ("NaN or infinite", ["segment", str(tmp_path / "nan.nii.gz"), *point]),
        ("lies outside the volume", ["segment", str(ct), *point, "--nodule", "--point", "-900,0,0"]),
        ("no nodule was named", ["segment", str(ct)]),
        ("nodule 1 has no click on it", ["segment", str(ct), "--point", scene.point(0) + ",0"]),
        ("label volume", ["segment", str(labels_file), *point]),
        ("does not exist", ["segment", str(tmp_path / "absent.nii"), *point]),
        ("make it first", ["segment", str(ct), *point, "--out", str(tmp_path / "absent" / "o.nrrd")]),
        ("must end in", ["segment", str(ct), *point, "--out", str(tmp_path / "o.stl")]),
        ("must end in .png", ["segment", str(ct), *point, "--preview", str(tmp_path / "o.jpg")]),
        ("is the CT itself", ["segment", str(ct), *point, "--out", str(ct)]),
        ("cannot be made", ["demo", "--out", str(tmp_path / "notes.txt")]),
        ("belong to a CT", ["demo", *point, "--out", str(tmp_path / "d")]),
        ("say where the nodules", ["demo", str(ct), "--out", str(tmp_path / "d")]),
        ("either --labels or", ["demo", str(ct), *point, "--labels", str(labels_file), "--out", str(tmp_path / "d")]),
        ("no label above 0", ["demo", str(ct), "--labels", str(_empty(tmp_path, scene)), "--out", str(tmp_path / "d")]),
    ]
    for message, words in cases:
        assert cli.main(words) == 2, message
        printed = capsys.readouterr()
        assert printed.out == ""
        last = printed.err.splitlines()[-1]
        assert last.startswith("sammed3d: error: ") and message in last, printed.err
    assert not (tmp_path / "o.stl").exists()


def test_the_demo_does_not_overwrite_its_reference(ct, scene, bright, tmp_path, capsys) -> None:
    assert cli.main(["demo", str(ct), "--point", scene.point(0), "--out", str(tmp_path)]) == 0
    found = tmp_path / "segmentation.seg.nrrd"
    before = found.read_bytes()
    assert cli.main(["demo", str(ct), "--labels", str(found), "--out", str(tmp_path)]) == 2
    assert "choose another --out FOLDER" in capsys.readouterr().err
    assert found.read_bytes() == before


def test_names_that_the_system_refuses(ct, scene, bright, tmp_path, capsys) -> None:
    long = "x" * 300
    point = ["--point", scene.point(0)]
    for words in (["segment", long, *point], ["segment", str(ct), *point, "--out", str(tmp_path / f"{long}.nii.gz")]):
        assert cli.main(words) == 2
        assert "File name too long" in capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_that_may_not_be_read(ct, scene, monkeypatch, capsys) -> None:
    def refused(*names: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(segmenting, "load_model", refused)
    assert cli.main(["segment", str(ct), "--point", scene.point(0), "--checkpoint", "there/a.pth"]) == 2
    assert "there/a.pth cannot be read: Permission denied" in capsys.readouterr().err


def test_a_network_that_answers_nan_is_refused(ct, scene, bright, monkeypatch, tmp_path, capsys) -> None:
    decode = BrightnessModel.decode
    monkeypatch.setattr(
        BrightnessModel,
        "decode",
        lambda *given, **options: tuple(part * float("nan") for part in decode(*given, **options)),
    )
    out = tmp_path / "o.nii.gz"
    assert cli.main(["segment", str(ct), "--point", scene.point(0), "--out", str(out)]) == 2
    assert "take another --checkpoint" in capsys.readouterr().err
    assert not out.exists()


def test_a_profile_reaches_the_loader_by_name(ct, scene, monkeypatch) -> None:
    """So that the loader can fit it to the size of the network."""
    asked: list[object] = []

    def load_model(path: Path, device: str, precision: str, profile: object) -> BrightnessModel:
        asked.append(profile)
        return BrightnessModel()

    monkeypatch.setattr(segmenting, "load_model", load_model)
    words = ["segment", str(ct), "--point", scene.point(0), "--checkpoint", "a.pth", "--profile", "lidc_fork"]
    assert cli.main(words) == 0
    assert asked == ["lidc_fork"]


def test_a_picture_of_very_many_nodules(scene, bright, tmp_path, monkeypatch) -> None:
    from SAMMed3DLib.commandline import preview

    monkeypatch.setattr(preview, "_MOST_ROWS", 1)
    drawn: list[tuple] = []
    monkeypatch.setattr(preview, "write_preview", lambda *given: drawn.append(given))
    prompts = [segmenting.NodulePrompt((tuple(scene.center_ras(n)),), (True,)) for n in (0, 1)]
    results = segmenting.segment_nodules(segmenting.load_predictor(), scene.volume, prompts)
    preview.write_picture(tmp_path / "p.png", scene.volume, results)
    ((*_, rows, _title, subtitle),) = drawn
    assert len(rows) == 1
    assert subtitle == "2 nodules, one click each; the first 1 are shown"


def test_the_picture_says_what_was_asked() -> None:
    from SAMMed3DLib.commandline.preview import _what_was_asked
    from SAMMed3DLib.commandline.prompts import NodulePrompt

    click, box = ((1.0, 2.0, 3.0),), ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    one, two, boxed = NodulePrompt(click, (True,)), NodulePrompt(click * 2, (True, False)), NodulePrompt(box=box)
    assert _what_was_asked([one, one]) == "2 nodules, one click each"
    assert _what_was_asked([two, boxed]) == "2 nodules, 2 clicks, 1 box"
    assert _what_was_asked([boxed]) == "1 nodule, 1 box"


def _empty(folder: Path, scene) -> Path:
    nibabel.Nifti1Image(np.zeros_like(scene.labels).T, scene.ijk_to_ras).to_filename(folder / "empty.nii.gz")
    return folder / "empty.nii.gz"


def test_bad_models_end_with_code_2_and_one_line(ct, scene, tmp_path, capsys) -> None:
    """With the real loader."""
    good, cut, text = tmp_path / "good.pth", tmp_path / "cut.pth", tmp_path / "text.pth"
    save_checkpoint(build_model("nodule"), good)
    cut.write_bytes(good.read_bytes()[:100_000])
    text.write_text("hello")
    other = tmp_path / "other.pth"
    torch.save({"weights": torch.zeros(3)}, other)
    cases = [
        ("is not a file", ["--checkpoint", str(tmp_path / "absent.pth")]),
        (str(cut), ["--checkpoint", str(cut)]),
        (str(text), ["--checkpoint", str(text)]),
        (str(other), ["--checkpoint", str(other)]),
        ("unknown architecture 'resnet': use one of", ["--model", "resnet"]),
        ("no preprocessing profile named 'x'; there are", ["--profile", "x", "--checkpoint", str(good)]),
        ("device", ["--device", "toaster", "--checkpoint", str(good)]),
    ]
    if not torch.cuda.is_available():
        cases.append(("no CUDA GPU", ["--device", "cuda", "--checkpoint", str(good)]))
    for message, words in cases:
        assert cli.main(["segment", str(ct), "--point", scene.point(0), *words]) == 2, message
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("sammed3d: error: ") and message in last


def test_an_error_of_ours_is_not_hidden(ct, scene, monkeypatch) -> None:
    def broken(*options: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(segmenting, "load_predictor", broken)
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["segment", str(ct), "--point", scene.point(0)])


def test_a_missing_package_is_named(ct, scene, monkeypatch, capsys) -> None:
    def missing(*options: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(segmenting, "load_predictor", missing)
    assert cli.main(["segment", str(ct), "--point", scene.point(0)]) == 2
    assert "torch is not installed: pip install torch" in capsys.readouterr().err


def test_running_out_of_graphics_memory_is_said(ct, scene, bright, monkeypatch, capsys) -> None:
    """The predictor's warning reaches the user as a note."""
    import warnings

    from SAMMed3DLib.inference import SamPredictor3D, predictor

    original = SamPredictor3D.predict

    def predict(self, *points, **options):
        warnings.warn_explicit(
            "out of graphics memory: going on on the CPU",
            RuntimeWarning,
            predictor.__file__,
            1,
            module=predictor.__name__,
        )
        warnings.warn("chatter of a library", RuntimeWarning, stacklevel=1)
        return original(self, *points, **options)

    monkeypatch.setattr(SamPredictor3D, "predict", predict)
    assert cli.main(["segment", str(ct), "--point", scene.point(0)]) == 0
    printed = capsys.readouterr().err
    assert "note: out of graphics memory: going on on the CPU\n" in printed
    assert "chatter" not in printed


def test_a_model_too_large_for_the_graphics_memory_is_loaded_on_the_cpu(ct, scene, monkeypatch, capsys) -> None:
    devices: list[str] = []

    def load_model(path: Path, device: str, precision: str, profile: object) -> BrightnessModel:
        devices.append(device)
        if device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return BrightnessModel()

    monkeypatch.setattr(segmenting, "load_model", load_model)
    words = ["segment", str(ct), "--point", scene.point(0), "--checkpoint", "large.pth", "--device", "cuda"]
    assert cli.main(words) == 0
    assert devices == ["cuda", "cpu"]
    assert "note: out of graphics memory: going on on the CPU" in capsys.readouterr().err


def test_an_untrained_network_is_called_that(ct, scene, monkeypatch, capsys) -> None:
    monkeypatch.setattr(segmenting, "build_model", lambda *names, **options: BrightnessModel())
    assert cli.main(["segment", str(ct), "--point", scene.point(0), "--model", "vit_b_ori"]) == 0
    assert "note: vit_b_ori has no weights of its own" in capsys.readouterr().err


def test_lists(capsys) -> None:
    assert cli.main(["models"]) == 0
    models = capsys.readouterr().out
    assert "nodule" in models and "vit_b_ori" in models
    assert "name for vit_h" in models.splitlines()[0], "'default' is no default of this program"
    assert cli.main(["profiles"]) == 0
    profiles = capsys.readouterr().out
    assert "sam_med3d" in profiles and "1.5 mm" in profiles and "native" in profiles


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["segment"],
        ["frobnicate"],
        ["segment", "ct", "--poi", "1,2,3"],
        ["segment", "ct", "--checkpoint", "f", "--model", "nodule"],
        ["demo", "--seed", "-1"],
        ["demo", "--seed", "one"],
    ],
)
def test_wrong_options_end_with_code_2(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2


def test_a_reader_that_stops_early_is_no_error() -> None:
    """As in ``sammed3d ... | head -1``."""
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(
        [sys.executable, "-m", "SAMMed3DLib.cli", "profiles"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT / "SAMMed3D")},
        text=True,
        check=False,
    )
    os.close(writing)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    "command",
    [[sys.executable, "-m", "SAMMed3DLib.cli"], [sys.executable, "-c", "from SAMMed3DLib.cli import main; main()"]],
)
def test_notes_appear_however_the_command_is_started(command: list[str], scene, tmp_path: Path) -> None:
    """``python -m`` gives the module another name, which hid them."""
    nibabel.Nifti1Image((scene.array + 1024.0).astype(np.float32).T, scene.ijk_to_ras).to_filename(tmp_path / "f.nii")
    words = ["segment", str(tmp_path / "f.nii"), "--point", scene.point(0), "--checkpoint", "missing"]
    run = subprocess.run(
        [*command, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT / "SAMMed3D")},
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert "note: f: it has no negative values" in run.stderr


def test_what_was_said_of_a_file_is_not_said_again_of_its_voxels() -> None:
    told: list[str] = []
    with our_warnings_told(told.append):
        for text in ("f: too dark", "too dark", "f: too dark", "g: too dark"):
            warnings.warn_explicit(text, UserWarning, "x.py", 1, module="SAMMed3DLib.files.volume_io")
        warnings.warn_explicit("not ours", UserWarning, "x.py", 1, module="nibabel")
    assert told == ["f: too dark", "g: too dark"]


def test_help_and_version_need_no_torch() -> None:
    """--help answers at once: the commands import what they need."""
    code = (
        "import sys; from SAMMed3DLib.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "main(['models']); main(['profiles']); main(['weights', 'list'])\n"
        "assert not {'torch', 'SimpleITK', 'matplotlib'} & set(sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT / "SAMMed3D")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"sammed3d {__version__}\n")
    assert "vit_b_ori" in run.stdout and "nodule_classifier.pth" in run.stdout


@pytest.mark.parametrize(
    "command", ["segment", "segment-all", "demo", "weights", "models", "evaluate", "train", "check"]
)
def test_every_command_tells_its_version(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"sammed3d {__version__}\n")


@pytest.mark.skipif(os.name == "nt", reason="POSIX file descriptors")
@pytest.mark.parametrize("place", ["closed", "full"])
def test_results_that_cannot_be_printed_end_with_code_2_and_one_line(place: str) -> None:
    code = "import os, sys; from SAMMed3DLib.cli import main; sys.exit(main(['profiles']))"
    command = [sys.executable, "-c", code]
    shell = 'exec "$@" >&-' if place == "closed" else 'exec "$@" >/dev/full'
    run = subprocess.run(
        ["sh", "-c", shell, "sh", *command],
        env=os.environ | {"PYTHONPATH": str(ROOT / "SAMMed3D")},
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("sammed3d: error: standard output"), run.stderr


def test_train_and_check_stand_beside_evaluate(tmp_path: Path, capsys) -> None:
    assert cli.main(["check", str(tmp_path)]) == 2
    assert "imagesTr" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        cli.main(["train"])
    assert caught.value.code == 2 and "usage: sammed3d train" in capsys.readouterr().err
