"""What is to be trained, as a value: the command line it becomes, and what is refused before anything starts."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from SAMMed3DTrainingLib.options import words_of
from SAMMed3DTrainingLib.runs import run_request
from SAMMed3DTrainingLib.runs.child_process import Interpreter, find_interpreter
from SAMMed3DTrainingLib.runs.run_files import CONFIG, STATE, RunError, RunUnderWay, hold_lock
from SAMMed3DTrainingLib.runs.run_request import TrainingRequest, free_name, start_training
from SAMMed3DTrainingLib.train.training_config import TrainingConfig, parse_training_options

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def request_(tmp_path):
    (tmp_path / "Fälle 1" / "imagesTr").mkdir(parents=True)
    (tmp_path / "start.pth").write_bytes(b"weights")
    return TrainingRequest(
        tmp_path / "Läufe", "lidc", (tmp_path / "Fälle 1",), tmp_path / "start.pth", "standard", 7, 6, 2, 3e-4, "cpu"
    )


def test_nothing_heavy_is_imported():
    """Slicer's main thread imports these."""
    names = [path.stem for path in (ROOT / "SAMMed3DTraining/SAMMed3DTrainingLib/runs").glob("*.py")]
    imports = "; ".join(f"import SAMMed3DTrainingLib.runs.{name}" for name in names if name != "__init__")
    folders = [str(ROOT / "SAMMed3D"), str(ROOT / "SAMMed3DTraining")]
    script = (
        f"import sys; sys.path[:0] = {folders!r}; {imports}; import SAMMed3DTrainingLib.options; "
        "print([n for n in ('torch', 'numpy', 'scipy', 'SimpleITK', 'nibabel') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]" and len(names) > 8


def test_the_command_line_says_what_the_request_says(request_, tmp_path):
    config = parse_training_options(request_.arguments())
    assert config.folder == request_.folder
    assert (config.data, config.checkpoint) == ((str(tmp_path / "Fälle 1"),), str(tmp_path / "start.pth"))
    assert (config.preset, config.num_epochs, config.batch_size, config.accumulation_steps) == ("standard", 7, 6, 2)
    assert (config.lr, config.device, config.resume, config.multi_gpu) == (3e-4, "cpu", False, False)


def test_the_bundled_model_and_the_presets_values_need_no_option(tmp_path):
    config = parse_training_options(TrainingRequest(tmp_path, "a", (tmp_path,)).arguments())
    assert (config.checkpoint, config.num_epochs, config.lr, config.device) == (None, None, None, "auto")


@pytest.mark.parametrize(
    ("gpus", "found"), [((), ("auto", False)), ((2,), ("cuda:2", False)), ((0, 3), ("auto", True))]
)
def test_gpus(tmp_path, gpus, found):
    config = parse_training_options(TrainingRequest(tmp_path, "a", (tmp_path,), gpu_ids=gpus).arguments())
    assert (config.device, config.multi_gpu) == found
    assert not config.multi_gpu or config.gpu_ids == gpus


@pytest.mark.parametrize("labels", [(), ("--labels", "nodule", "3")], ids=["all labels", "chosen labels"])
def test_a_run_is_continued_with_all_its_options(request_, labels):
    """Also those that the request has no field for, whatever the defaults are by then."""
    more = (
        "--seed=7",
        "--no_augment",
        "--warmup=0.125",
        "--step_size",
        "3",
        "4",
        "--fold=1",
        "--patient_pattern=-(.+)",
        *labels,
    )
    config = parse_training_options(dataclasses.replace(request_, more=more).arguments())
    request_.folder.mkdir(parents=True)
    config.resolved(False).write(request_.folder / CONFIG, {"versions": {"torch": "2"}})
    again = TrainingRequest.of_run(request_.folder)
    assert again.resume and again.folder == request_.folder and again.checkpoint == request_.checkpoint
    resumed = parse_training_options(again.arguments())
    assert resumed == dataclasses.replace(config.resolved(False), resume=True)


def test_a_renamed_run_is_continued_under_its_new_name(request_):
    request_.folder.mkdir(parents=True)
    parse_training_options(request_.arguments()).write(request_.folder / CONFIG, {})
    request_.folder.rename(request_.work_dir / "neu")
    assert TrainingRequest.of_run(request_.work_dir / "neu").task_name == "neu"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"data": 5}'])
def test_a_broken_configuration_is_told(tmp_path, text):
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(RunError, match="cannot be continued"):
        TrainingRequest.of_run(tmp_path)


@pytest.mark.parametrize(
    ("batch", "accumulated", "expected"), [(4, 1, (2, 2)), (5, 1, (3, 2)), (2, 3, (1, 6)), (1, 1, None)]
)
def test_half_the_memory(request_, batch, accumulated, expected):
    request = dataclasses.replace(request_, batch_size=batch, accumulation_steps=accumulated, resume=True)
    smaller = request.smaller()
    assert (smaller and (smaller.batch_size, smaller.accumulation_steps)) == expected
    if smaller:
        assert not smaller.resume and smaller.task_name == "lidc"
        request.folder.mkdir(parents=True)
        (request.folder / STATE).write_bytes(b"")
        assert request.smaller().task_name == "lidc_2"  # what was saved is of another batch


def test_free_names(tmp_path):
    for name in ("run", "Run_2"):
        (tmp_path / name).mkdir()
    assert free_name(tmp_path, "run") == "run_3"
    assert free_name(tmp_path, "other") == "other"
    assert free_name(tmp_path / "nowhere", "run") == "run"


def test_a_good_request_passes(request_):
    request_.check()
    assert not list(request_.work_dir.iterdir())  # nothing is left of looking


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_name": ""}, "name"),
        ({"task_name": "a/b"}, "every system"),
        ({"task_name": "con"}, "every system"),
        ({"task_name": "Lpt1.x"}, "every system"),
        ({"task_name": "a?"}, "every system"),
        ({"task_name": "a."}, "every system"),
        ({"task_name": ".."}, "every system"),
        ({"task_name": "a" * 200}, "long"),
        ({"task_name": "a\nb"}, "every system"),
        ({"batch_size": 0}, "Batch size"),
        ({"num_epochs": 0}, "Epochs"),
        ({"lr": float("nan")}, "Learning rate"),
        ({"lr": -1.0}, "Learning rate"),
        ({"accumulation_steps": 0}, "Accum"),
        ({"data": ()}, "No data set"),
        ({"data": (Path("nowhere"),)}, "nowhere"),
        ({"preset": "slow"}, "slow"),
        ({"checkpoint": Path("gone.pth")}, "gone.pth"),
        ({"resume": True}, "no run"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(request_, changes, message):
    with pytest.raises(RunError, match=message):
        dataclasses.replace(request_, **changes).check()


def test_letters_of_any_language_are_names(request_):
    dataclasses.replace(request_, task_name="Rundherde Süd 結節 (2)").check()


def test_a_run_that_is_there_is_not_overwritten(request_):
    request_.folder.mkdir(parents=True)
    request_.check()  # an empty folder, or a run that never saved
    (request_.folder / STATE).write_bytes(b"")
    with pytest.raises(RunError, match="resume it"):
        request_.check()


def test_no_disk_space(request_, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 10 * 2**20))
    with pytest.raises(RunError, match="GB free"):
        request_.check()


def test_a_folder_that_cannot_be_written(request_, tmp_path):
    (tmp_path / "Läufe").write_text("a file is in the way")
    with pytest.raises(RunError, match="cannot be written"):
        request_.check()


def test_two_runs_at_once_are_refused(request_, tmp_path):
    interpreter = Interpreter(Path("never started"))
    for name, message in (("lidc", "lidc is under way"), ("other", "other is under way")):
        (request_.work_dir / name).mkdir(parents=True)
        with hold_lock(request_.work_dir / name), pytest.raises(RunError, match=message):
            start_training(request_, interpreter)
    assert issubclass(RunUnderWay, RunError) and run_request.running_in(request_.work_dir) == []


def test_the_python_of_slicer():
    assert find_interpreter(lambda name: f"/opt/slicer/bin/{name}", "/opt/slicer/bin/SlicerApp-real") == Interpreter(
        Path("/opt/slicer/bin/PythonSlicer")
    )
    assert find_interpreter(lambda name: None, "/usr/bin/python3.12").executable == Path("/usr/bin/python3.12")
    with pytest.raises(RunError, match="PythonSlicer"):  # or a second Slicer would start
        find_interpreter(lambda name: None, "/opt/slicer/bin/SlicerApp-real")


def test_both_packages_are_on_the_childs_path_and_words_stay_words():
    values = Interpreter(Path("p")).environment({"PYTHONPATH": "here", "HOME": "x"})
    first, second, *rest = values["PYTHONPATH"].split(":" if sys.platform != "win32" else ";")
    assert {Path(first), Path(second)} == {ROOT / "SAMMed3D", ROOT / "SAMMed3DTraining"} and rest == ["here"]
    assert values["HOME"] == "x" and values["PYTHONUTF8"] == "1"
    assert Interpreter(Path("p y")).command("rank", ["--data", "a b"]) == [
        "p y",
        "-u",
        "-m",
        "SAMMed3DTrainingLib",
        "rank",
        "--data",
        "a b",
    ]


def test_options_of_every_kind_are_carried_over():
    """A new option of a kind that cannot be written on a command line would be lost in silence."""
    kinds = {type(field.default) for field in dataclasses.fields(TrainingConfig) if field.name != "task_name"}
    assert kinds <= {int, float, str, bool, tuple, type(None)}
    booleans = {f.name for f in dataclasses.fields(TrainingConfig) if isinstance(f.default, bool)}
    for name in booleans - {"augment"} - run_request._OWN:
        assert list(words_of({name: True})) == [f"--{name}"] and not list(words_of({name: False}))
