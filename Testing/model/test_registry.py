"""The sizes of the public registry, from one code."""

from __future__ import annotations

import csv
import dataclasses
import os
import platform
import subprocess
import sys

import pytest
import torch

from SAMMed3DLib.model import PROFILES, build_model
from SAMMed3DLib.model.registry import skeleton
from SAMMed3DLib.model.sizes import VIT_SIZES, model_names
from shared_data import shared_dir


@pytest.mark.parametrize(
    ("name", "encoder", "total", "edge"),
    [
        ("vit_b_ori", 92_924_928, 100_509_232, 128),
        ("vit_b", 28_602_624, 36_186_928, 256),
        ("vit_l", 315_202_560, 322_786_864, 256),
        ("vit_h", 644_850_688, 652_434_992, 256),
        ("default", 644_850_688, 652_434_992, 256),
    ],
)
def test_sizes(name, encoder, total, edge) -> None:
    model = skeleton(name)
    assert sum(parameter.numel() for parameter in model.image_encoder.parameters()) == encoder
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    assert model.profile.crop_size == (edge, edge, edge)
    assert model.low_res_size == (edge // 4, edge // 4, edge // 4)


def test_keys_are_those_of_the_public_checkpoints() -> None:
    model = skeleton("vit_b_ori")
    with_boxes = skeleton("vit_b_ori", dataclasses.replace(PROFILES["sam_med3d"], boxes=True))
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert len(state) == 324
    assert {name for name in with_boxes.state_dict() if name not in state} == {
        "prompt_encoder.point_embeddings.2.weight",
        "prompt_encoder.point_embeddings.3.weight",
    }
    shared = shared_dir()
    if shared is not None:
        with (shared / "parity" / "state_dict_keys.tsv").open(newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        assert state == {
            row["name"]: tuple(int(n) for n in row["shape"].strip("()").split(",") if n.strip()) for row in rows
        }


def test_partly_padded_windows_of_vit_b() -> None:
    """Its 16^3 grid has windows of 14 and of 2 tokens: one block of full size runs and is finite."""
    block = skeleton("vit_b").image_encoder.blocks[0].to_empty(device="cpu")
    torch.manual_seed(0)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    with torch.no_grad():
        assert block(torch.randn(1, 16, 16, 16, 384)).isfinite().all()


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match="vit_b_ori"):
        build_model("vit_x")
    assert set(model_names()) >= {*VIT_SIZES, "default", "nodule"}


def test_a_profile_for_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="choose another profile"):
        build_model("vit_b_ori", profile=PROFILES["nodule"])


def test_built_models_evaluate() -> None:
    model = build_model("nodule")
    assert not model.training
    assert model.name == "nodule"
    assert model.profile == PROFILES["nodule"]
    embedding = model.encode(torch.zeros(1, model.profile.channels, *model.profile.crop_size))
    logits, iou = model.decode(embedding, torch.zeros(1, 1, 3), torch.ones(1, 1), multimask_output=True)
    assert logits.shape == (1, 3, *model.low_res_size)
    assert iou.shape == (1, 3)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such settings")
def test_memory_of_a_layer_is_kept_for_the_next_whatever_the_environment_says() -> None:
    """Dask starts its workers with this setting, and the system had to hand out 110 MB anew for each encoding."""
    code = (
        "import resource, sys, torch\n"
        "from SAMMed3DLib.model import build_model\n"
        "model = build_model('nodule_light')\n"
        "crop = torch.zeros(1, model.profile.channels, *model.profile.crop_size)\n"
        "with torch.inference_mode():\n"
        "    model.image_encoder(crop), model.image_encoder(crop)\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    model.image_encoder(crop)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    words = [sys.executable, "-c", code]
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert int(run.stdout) < 2000
