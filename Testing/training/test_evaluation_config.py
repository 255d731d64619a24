"""The command line of the evaluation: familiar names, defaults, refusals."""

from __future__ import annotations

import subprocess
import sys

import pytest

from SAMMed3DTrainingLib.evaluate.evaluation_config import EvaluationConfig, EvaluationError, parse_evaluation_options


def test_the_familiar_call():
    config = parse_evaluation_options(
        [
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
    )
    assert config.seed == 2023 and config.vis_path == "./results/visualization/lidc_test"
    assert config.checkpoint.endswith("sam_model_dice_best.pth") and config.data == ("CACHE",)
    assert config.num_clicks == 10 and config.data_type == "Ts" and config.model == "sam3d"
    assert config.point_methods == ("challenge",) and config.first_clicks == 5
    config.check()


def test_long_names_and_several_protocols():
    config = parse_evaluation_options(
        [
            "--test_data_path",
            "a",
            "b",
            "--vis_path",
            "v",
            "--num_clicks",
            "3",
            "--data_type",
            "Val",
            "--point_method",
            "ritm",
            "random",
            "jitter",
            "--model_type",
            "vit_b_ori",
            "--window_hu",
            "-1000",
            "400",
        ]
    )
    assert config.data == ("a", "b") and config.point_methods == ("random", "jitter")
    assert config.model_type == "vit_b_ori" and config.window_hu == (-1000.0, 400.0)


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (["--dim", "2"], "sam"),
        (["--dim", "2", "--image_size", "256"], "sam_med2d"),
        (["--dim", "2", "--ft2d", "--image_size", "1024"], "medsam"),
        (["--image_size", "256"], "sam3d"),
        (["--dim", "2", "--model", "medsam"], "medsam"),
    ],
)
def test_the_public_scripts_ways_to_name_2d_models(words, model):
    assert parse_evaluation_options(words).model == model


def test_options_without_effect_are_named():
    config = parse_evaluation_options(["--crop_size", "128", "--threshold", "0", "--save_name", "out.py"])
    assert [note.partition(" ")[0] for note in config.notes] == ["--crop_size", "--threshold", "--save_name"]
    assert parse_evaluation_options([]).notes == ()


@pytest.mark.parametrize("words", [["-dt", "Test"], ["--model", "unet"], ["-nc", "many"], ["-pm", "center"]])
def test_unknown_choices_end_with_code_2(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_evaluation_options(words)
    assert stopped.value.code == 2 and words[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_clicks": 0}, "one click"),
        ({"first_clicks": -1}, "first_clicks"),
        ({"split_num": 3, "split_idx": 3}, "from 0 to 2"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"window_hu": (400.0, -1000.0)}, "lower value first"),
        ({"prompt": "box"}, "2D models"),
        ({"model": "threshold", "checkpoint": "x.pth"}, "no weights"),
        ({"model": "sam"}, "-cp"),
    ],
)
def test_impossible_values(changes, message):
    with pytest.raises(EvaluationError, match=message):
        EvaluationConfig(**changes).check()


def test_a_negative_seed_is_refused():
    with pytest.raises(EvaluationError, match="--seed"):
        EvaluationConfig(seed=-1).check()


def test_help_needs_no_pytorch():
    code = (
        "import sys; from SAMMed3DTrainingLib.evaluate.evaluation_config import evaluation_parser; "
        "evaluation_parser().format_help(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
