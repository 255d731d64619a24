"""Every --model is loaded by its name, or refused with a message that says what to do."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.inference import InputError
from SAMMed3DLib.model import CheckpointError
from SAMMed3DLib.model.sizes import BUNDLED_NETWORK, NODULE_NETS
from SAMMed3DLib.weights import default_checkpoint
from SAMMed3DTrainingLib.data.clicks import ClickSimulator
from SAMMed3DTrainingLib.data.instances import split_instances
from SAMMed3DTrainingLib.evaluate.evaluated_models import ClickedSlices, ClickedVolume, load_evaluated
from SAMMed3DTrainingLib.evaluate.evaluation_config import CLASSICS, EvaluationConfig, EvaluationError

from .dataset_files import balls, ct, matrix
from .peer_weights import SMALL_ADAPTED, need_segment_anything, written

LABELS = balls((12, 20, 20), radius_mm=4.0)


def evaluated_dice(config: EvaluationConfig, clicks: int = 2, first: ClickSimulator | None = None):
    model = load_evaluated(config)
    model.set_image(ct(LABELS), matrix())
    (nodule,) = split_instances(LABELS, matrix())
    return model, model.evaluate(nodule, clicks, ClickSimulator("challenge"), first)


@pytest.mark.parametrize("name", [None, *NODULE_NETS])
def test_the_bundled_model(name):
    model, result = evaluated_dice(EvaluationConfig(device="cpu", model_type=name))
    assert isinstance(model, ClickedVolume) and model.description["model"] == BUNDLED_NETWORK
    assert model.description["checkpoint"] == "bundled" and len(result.dice) == 2
    _, other = evaluated_dice(EvaluationConfig(device="cpu"), 1, ClickSimulator("random", 4))
    assert not np.array_equal(other.points_ras[0], result.points_ras[0])


@pytest.mark.parametrize("name", CLASSICS)
def test_classic_tools_take_one_click(name):
    model, result = evaluated_dice(EvaluationConfig(model=name), 3)
    assert result.dice[0] > 0.8 and len(set(result.dice)) == 1 and model.description["model"] == name


@pytest.mark.parametrize(
    ("name", "prompt"), [("sam", "point"), ("medsam", "box"), ("sam", "box"), ("sam_med2d", "point")]
)
def test_2d_models(tmp_path, name, prompt):
    need_segment_anything()
    layout = {"layout": SMALL_ADAPTED} if name == "sam_med2d" else {}
    path = written(tmp_path / "weights.pth", key="model" if name == "sam_med2d" else None, **layout)
    model, result = evaluated_dice(EvaluationConfig(model=name, prompt=prompt, checkpoint=str(path), device="cpu"), 3)
    assert isinstance(model, ClickedSlices) and len(result.dice) == 3
    slices = int(LABELS.any(axis=(1, 2)).sum())
    assert len(result.predictions[0].answers) == slices
    if name == "medsam":
        assert len(set(result.dice)) == 1 and len(result.labels) == 0
    else:
        assert len(result.labels) > (slices if prompt == "point" else 0)
    assert model.description["image_size"] == 64 and "every slice" in model.description["rounds"]


def test_the_network_asked_for_must_be_the_checkpoints():
    path = str(default_checkpoint())
    with pytest.raises(EvaluationError, match=f"{BUNDLED_NETWORK}, not vit_b_ori"):
        load_evaluated(EvaluationConfig(checkpoint=path, model_type="vit_b_ori", device="cpu"))
    with pytest.raises(EvaluationError, match="there are"):
        load_evaluated(EvaluationConfig(checkpoint=path, model_type="unet", device="cpu"))
    with pytest.raises(EvaluationError, match="-cp"):
        load_evaluated(EvaluationConfig(model_type="vit_b_ori", device="cpu"))


def test_weights_that_are_not_there_name_their_source(tmp_path):
    need_segment_anything()
    with pytest.raises(InputError, match="github.com/bowang-lab/MedSAM"):
        load_evaluated(EvaluationConfig(model="medsam", checkpoint=str(tmp_path / "medsam_vit_b.pth"), device="cpu"))


def test_a_peer_of_another_size_or_kind(tmp_path):
    need_segment_anything()
    path = str(written(tmp_path / "weights.pth"))
    with pytest.raises(CheckpointError, match="not vit_h"):
        load_evaluated(EvaluationConfig(model="sam", checkpoint=path, model_type="vit_h", device="cpu"))
    with pytest.raises(CheckpointError, match="not of SAM-Med2D"):
        load_evaluated(EvaluationConfig(model="sam_med2d", checkpoint=path, device="cpu"))
    with pytest.raises(CheckpointError):
        load_evaluated(EvaluationConfig(checkpoint=path, device="cpu"))
    with pytest.raises(CheckpointError, match="no checkpoint of SAM"):
        load_evaluated(EvaluationConfig(model="sam", checkpoint=str(default_checkpoint()), device="cpu"))
