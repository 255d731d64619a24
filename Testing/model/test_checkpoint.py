"""Loading is strict, safe and lean; saving is all or nothing."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.public_layout import public_layout
from SAMMed3DLib.model import PROFILES, CheckpointError, Sam3D, build_model, load_model, save_checkpoint
from SAMMed3DLib.model import checkpoint as checkpoint_module

CROP = (32, 32, 32)
BOX_KEYS = ("prompt_encoder.point_embeddings.2.weight", "prompt_encoder.point_embeddings.3.weight")


@pytest.fixture
def weights(tiny: Sam3D) -> dict[str, Tensor]:
    return dict(tiny.state_dict())


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def save(content: Any, name: str = "model.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def same(model: Sam3D, weights: dict[str, Tensor]) -> bool:
    state = model.state_dict()
    return state.keys() == weights.keys() and all(torch.equal(state[name], weights[name].float()) for name in weights)


@pytest.mark.parametrize(
    "layout",
    [
        lambda weights: public_layout(weights),
        lambda weights: weights,
        lambda weights: {"model_state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}},
        lambda weights: public_layout(weights, losses=[np.float64(1.5), np.float32(2)], best_dice=np.float64(0.5)),
        lambda weights: public_layout(weights, optimizer_state_dict={"state": {0: {"exp_avg": torch.zeros(3)}}}),
        lambda weights: {name: tensor.bfloat16() for name, tensor in weights.items()},
    ],
)
def test_layouts(write, weights, layout) -> None:
    content = layout(weights)
    model = load_model(write(content))
    expected = (
        {name: tensor.bfloat16() for name, tensor in weights.items()}
        if len(content) > 20 and (next(iter(content.values())).dtype == torch.bfloat16)
        else weights
    )
    assert same(model, expected)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert (model.name, model.profile.name, model.profile.crop_size) == ("vit_tiny", "sam_med3d", CROP)


def test_numpy_numbers_of_either_numpy_are_harmless(write, weights, monkeypatch) -> None:
    """numpy 1 wrote ``numpy.core``, numpy 2 writes ``numpy._core``."""
    path = write(public_layout(weights, losses=[np.float64(1.5)]))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for old, new in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)
        try:
            payload = torch.load(path, weights_only=False)
        except ModuleNotFoundError:
            continue  # this numpy has only one of the two
        assert payload["losses"] == [1.5]
        assert same(load_model(path), weights)


def test_four_point_embeddings_enable_boxes(write, weights) -> None:
    for name in BOX_KEYS:
        weights[name] = torch.randn(1, 384)
    model = load_model(write(public_layout(weights)))
    assert model.profile.boxes
    assert model.prompt_encoder.has_boxes
    assert same(model, weights)
    logits, _ = model.decode(model.encode(torch.zeros(1, 1, *CROP)), boxes=torch.tensor([[1.0, 2, 3, 9, 9, 9]]))
    assert logits.shape == (1, 1, 8, 8, 8)
    assert load_model(write(public_layout(weights)), profile="lidc_fork_native").profile.boxes
    taken_literally = dataclasses.replace(PROFILES["sam_med3d"], crop_size=CROP)
    explicit = load_model(write(public_layout(weights)), profile=taken_literally)
    assert explicit.prompt_encoder.has_boxes
    assert not explicit.profile.boxes


def test_profile_argument_then_file_then_origin(write, weights, tiny, tmp_path) -> None:
    tiny.profile = dataclasses.replace(tiny.profile, name="mine", spacing_mm=0.7)
    save_checkpoint(tiny, tmp_path / "own.pth")
    assert load_model(tmp_path / "own.pth").profile == tiny.profile
    assert load_model(tmp_path / "own.pth", profile="lidc_fork").profile.name == "lidc_fork"
    given = dataclasses.replace(tiny.profile, name="given")
    assert load_model(tmp_path / "own.pth", profile=given).profile == given
    assert load_model(write(public_layout(weights))).profile.name == "sam_med3d"
    fork = public_layout(weights, args=argparse.Namespace(task_name="lidc_finetune"))
    assert load_model(write(fork)).profile.name == "lidc_fork"
    assert load_model(write(weights, "lidc_best.pth")).profile.name == "lidc_fork"
    with pytest.raises(ValueError, match="no preprocessing profile named"):
        load_model(tmp_path / "own.pth", profile="nonsense")
    with pytest.raises(CheckpointError, match="choose another profile"):
        load_model(tmp_path / "own.pth", profile=PROFILES["nodule"])


def test_own_layout_of_the_compact_net(tmp_path) -> None:
    model = build_model("nodule")
    save_checkpoint(model, tmp_path / "nodule.pth")
    loaded = load_model(tmp_path / "nodule.pth")
    assert same(loaded, model.state_dict())
    assert (loaded.name, loaded.profile) == ("nodule", PROFILES["nodule"])
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    assert load_model(tmp_path / "bare.pth").name == "nodule"


class Hostile:
    """Unpickled in full, it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo bad > {self.target}",)


def test_a_hostile_pickle_is_refused_and_not_run(write, weights, tmp_path) -> None:
    target = tmp_path / "was_run"
    path = write(public_layout(weights, surprise=Hostile(target)))
    with pytest.raises(CheckpointError, match="could run code; nothing of it was run"):
        load_model(path)
    assert not target.exists()
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert "weights_only" not in str(caught.value), "nobody is told to run it after all"
    assert "system" in str(caught.value)
    torch.load(path, weights_only=False)
    assert target.exists(), "the file was not hostile: this test shows nothing"


@pytest.mark.parametrize("name", ["nodule", "nodule_light"])
def test_both_nodule_networks_are_told_apart(name, tmp_path) -> None:
    """By what the file says, and bare weights by their tensors; a fine-tuned profile is kept."""
    torch.manual_seed(3)
    model = build_model(name)
    model.profile = dataclasses.replace(model.profile, target_voxels=18.0)
    save_checkpoint(model, tmp_path / "own.pth")
    loaded = load_model(tmp_path / "own.pth")
    assert (loaded.name, loaded.profile) == (name, model.profile)
    draw = torch.Generator().manual_seed(4)
    crop, point = torch.rand(1, 3, 64, 64, 64, generator=draw), 64 * torch.rand(1, 1, 3, generator=draw)
    expected = model.decode(model.encode(crop), point, torch.ones(1, 1))[0]
    assert torch.equal(loaded.decode(loaded.encode(crop), point, torch.ones(1, 1))[0], expected)
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    bare = load_model(tmp_path / "bare.pth")
    assert (bare.name, bare.profile) == (name, PROFILES[name])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"  <html>\n", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (pickle.dumps({"model_state_dict": {}}), "bare pickle"),
        (b"\x00\x01 something else", "not a PyTorch checkpoint"),
    ],
)
def test_other_files(tmp_path, content, message) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_model(path)


def test_folders_and_missing_files(tmp_path) -> None:
    for path in (tmp_path, tmp_path / "absent.pth"):
        with pytest.raises(CheckpointError, match="is not a file"):
            load_model(path)


def test_a_truncated_file(write, weights) -> None:
    path = write(weights)
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)
    with pytest.raises(CheckpointError, match=r"is incomplete \(\d+ bytes\): download it again"):
        load_model(path)


def test_an_archive_of_something_else(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("sam_med3d.pth", b"inside")
    with pytest.raises(CheckpointError, match="unpack it"):
        load_model(tmp_path / "model.zip")


def test_a_damaged_archive(write, weights) -> None:
    path = write(weights)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content[:50] if name.endswith("data.pkl") else content)
    with pytest.raises(CheckpointError, match="model.pth"):
        load_model(path)


def without(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in weights.items() if key != name}


IOU_TOKEN = "mask_decoder.iou_token.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: without(w, IOU_TOKEN), f"missing: {IOU_TOKEN}"),
        (lambda w: w | {"extra.weight": torch.zeros(1)}, "unexpected: extra.weight"),
        (lambda w: w | {IOU_TOKEN: torch.zeros(2, 384)}, r"wrong shape: mask_decoder.iou_token.weight \(2, 384\), not"),
        (lambda w: w | {BOX_KEYS[0]: torch.zeros(1, 384)}, "unexpected: prompt_encoder.point_embeddings.2.weight"),
        (
            lambda w: w | {"image_encoder.pos_embed": torch.zeros(1, 6, 6, 6, 768)},
            r"unknown architecture .*6, 6, 6, 768",
        ),
        (lambda w: {"layer.weight": torch.zeros(3)}, "unknown architecture"),
        (lambda w: {"model_state_dict": {}}, "has no weights"),
        (lambda w: [1, 2], "has no weights"),
        (lambda w: w | {"epoch": 3}, "'epoch' where weights are expected"),
        (lambda w: {"format": "sammed3d", "format_version": 2, "model_state_dict": w}, "format version 2"),
        (
            lambda w: {"format": "sammed3d", "format_version": 1, "architecture": "vit_x", "model_state_dict": w},
            "unknown architecture 'vit_x'",
        ),
        (
            lambda w: {
                "format": "sammed3d",
                "format_version": 1,
                "architecture": "vit_tiny",
                "profile": {"bad": 1},
                "model_state_dict": w,
            },
            "not a preprocessing profile",
        ),
    ],
)
def test_foreign_content_is_named(write, weights, change, message) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_model(write(change(weights)))


def test_the_file_may_change_after_loading(write, weights) -> None:
    path = write(weights)
    model = load_model(path)
    path.write_bytes(b"overwritten in place")
    path.unlink()
    assert same(model, weights)
    assert model.encode(torch.zeros(1, 1, *CROP)).isfinite().all()


def test_loading_in_groups_copies_everything(write, weights, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint_module, "GROUP_BYTES", 100_000)
    assert same(load_model(write(weights)), weights)


LEAN = """
import sys
from SAMMed3DLib.model import load_model

def status(name):
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) * 1024 for line in stream if line.startswith(name + ":"))

before = status("VmRSS")
model = load_model(sys.argv[1])
weights = sum(tensor.nbytes for tensor in model.state_dict().values())
print(weights, status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_loading_needs_the_weights_and_little_more(tmp_path) -> None:
    """A file of full size that also holds an optimizer's moments."""
    weights = {name: tensor.clone() for name, tensor in build_model("vit_b_ori").state_dict().items()}
    moments = {"state": {0: {"exp_avg": torch.zeros(25_000_000)}}}
    torch.save(public_layout(weights, optimizer_state_dict=moments), tmp_path / "full.pth")
    root = Path(__file__).resolve().parents[2] / "SAMMed3D"
    run = subprocess.run(
        [sys.executable, "-c", LEAN, str(tmp_path / "full.pth")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    size, peak = map(int, run.stdout.split())
    assert size == sum(tensor.nbytes for tensor in weights.values())
    assert peak <= 1.15 * size


def test_saving_replaces_the_file_and_leaves_nothing_else(tiny, tmp_path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"older")
    save_checkpoint(tiny, path)
    assert same(load_model(path), tiny.state_dict())
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


def test_what_a_killed_run_left_is_removed_and_what_is_being_written_is_not(tiny, tmp_path) -> None:
    old, new = tmp_path / ".model.pth.1a.tmp", tmp_path / ".model.pth.2b.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    save_checkpoint(tiny, tmp_path / "model.pth")
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, "model.pth"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file"),
        KeyboardInterrupt(),
    ],
)
def test_a_failed_save_keeps_the_older_file(tiny, tmp_path, monkeypatch, error) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"older")

    def fail(content: Any, stream: Any) -> None:
        stream.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OSError):
        save_checkpoint(tiny, path)
    assert path.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


def test_saving_into_a_missing_folder(tiny, tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        save_checkpoint(tiny, tmp_path / "absent" / "model.pth")


def test_rounded_weights_are_not_saved(tiny, tmp_path) -> None:
    tiny.set_precision("bf16")
    with pytest.raises(ValueError, match="load it in fp32"):
        save_checkpoint(tiny, tmp_path / "model.pth")
    assert not list(tmp_path.iterdir())


def test_half_storage_halves_the_file_and_loads_as_float32(tmp_path: Path) -> None:
    model = build_model("nodule")
    save_checkpoint(model, tmp_path / "full.pth")
    save_checkpoint(model, tmp_path / "half.pth", half=True)
    assert (tmp_path / "half.pth").stat().st_size < 0.52 * (tmp_path / "full.pth").stat().st_size
    loaded = load_model(tmp_path / "half.pth").state_dict()
    for name, tensor in model.state_dict().items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.allclose(loaded[name], tensor, rtol=1e-3, atol=1e-6)


def test_half_storage_refuses_what_does_not_fit(tiny: Sam3D, tmp_path: Path) -> None:
    next(tiny.parameters()).data.flatten()[0] = 1e6
    with pytest.raises(ValueError, match="in full"):
        save_checkpoint(tiny, tmp_path / "half.pth", half=True)
    assert not list(tmp_path.iterdir())


def test_a_flipped_byte_in_our_own_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    save_checkpoint(build_model("nodule"), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(path)


def test_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(CheckpointError, match="Permission denied"):
        load_model(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tensor: tensor.to(torch.complex64), "complex64.*plain real numbers"),
        (lambda tensor: tensor.to(torch.int32), "no real numbers: .*int32"),
        (lambda tensor: tensor.bool(), "no real numbers: .*bool"),
        (lambda tensor: tensor.to_sparse(), "sparse.*plain real numbers"),
        (lambda tensor: torch.full_like(tensor, float("nan")), "NaN or infinite numbers in .*damaged"),
        (lambda tensor: torch.full_like(tensor, 1e39, dtype=torch.float64), "NaN or infinite numbers"),
    ],
)
def test_weights_that_are_no_finite_real_numbers_are_refused(write, weights, spoil, message) -> None:
    name = "image_encoder.pos_embed"
    with pytest.raises(CheckpointError, match=message):
        load_model(write({"model_state_dict": {**weights, name: spoil(weights[name])}}))


def test_zeros_are_no_weights(write, weights) -> None:
    with pytest.raises(CheckpointError, match="zeros only"):
        load_model(write({name: torch.zeros_like(tensor) for name, tensor in weights.items()}))


def test_an_archive_packed_again_is_refused(write, weights, tmp_path) -> None:
    """Its members would be taken for weights as they lie there, packed."""
    path = write(weights)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "again.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    with pytest.raises(CheckpointError, match="was packed again"):
        load_model(tmp_path / "again.pth")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_size", [0, 32, 32]),
        ("crop_size", [10**6] * 3),
        ("crop_size", [32.0] * 3),
        ("crop_size", "abc"),
        ("spacing_mm", -1.0),
        ("spacing_mm", float("nan")),
        ("spacing_mm", 1e30),
        ("spacing_range_mm", [3.0, 1.0]),
        ("spacing_range_mm", 7),
        ("target_voxels", float("inf")),
        ("statistics_mm", 0.0),
        ("padding_hu", float("nan")),
        ("windows_hu", [[0.0, float("nan")]]),
        ("windows_hu", [[0.0, 1.0]] * 99),
        ("boxes", "yes"),
        ("name", ["x"]),
        ("padding", "mirror"),
        ("prompt_rule", None),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(tmp_path, field, value) -> None:
    path = tmp_path / "model.pth"
    save_checkpoint(build_model("nodule"), path)
    content = torch.load(path, weights_only=True)
    content["profile"][field] = value
    torch.save(content, path)
    with pytest.raises(CheckpointError):
        load_model(path)
