"""What is asked for is checked against what the machine has."""

from __future__ import annotations

import pytest
import torch

from SAMMed3DLib.model import DeviceError, Sam3D, build_model
from SAMMed3DLib.model import precision as precision_module
from SAMMed3DLib.model.precision import resolve_device, resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


@pytest.mark.parametrize(("fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_cpu_is_what_was_measured(monkeypatch, fast, expected) -> None:
    monkeypatch.setattr(precision_module, "cpu_bf16_is_fast", lambda: fast)
    assert resolve_precision("auto", CPU) == expected


@pytest.mark.parametrize("instructions", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_bf16_is_taken_where_its_instructions_are(monkeypatch, instructions) -> None:
    """Not measured: two processes of one busy machine must not choose otherwise."""
    precision_module.cpu_bf16_is_fast.cache_clear()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, instructions, lambda: True, raising=False)
    monkeypatch.setattr(precision_module, "best_seconds", lambda *functions: pytest.fail("measured in vain"))
    for told_to_use_less in (False, True):  # DNNL_MAX_CPU_ISA=AVX2: bf16 would be far slower
        supported = not told_to_use_less
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda known=supported: known, raising=False)
        precision_module.cpu_bf16_is_fast.cache_clear()
        assert precision_module.cpu_bf16_is_fast() is supported
    precision_module.cpu_bf16_is_fast.cache_clear()


def test_bf16_needs_a_gain_where_it_may_be_emulated(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    for supported, seconds, expected in ((False, None, False), (True, [2.0, 1.0], True), (True, [1.0, 1.0], False)):
        precision_module.cpu_bf16_is_fast.cache_clear()
        monkeypatch.setattr(
            torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda supported=supported: supported, raising=False
        )
        monkeypatch.setattr(
            precision_module,
            "best_seconds",
            lambda *functions, seconds=seconds: seconds or pytest.fail("measured in vain"),
        )
        assert precision_module.cpu_bf16_is_fast() is expected
    precision_module.cpu_bf16_is_fast.cache_clear()


@pytest.mark.parametrize(("major", "auto"), [(7, "fp16"), (8, "bf16")])
def test_auto_on_a_gpu_is_by_its_generation(monkeypatch, major, auto) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (major, 0))
    assert resolve_precision("auto", CUDA) == auto
    assert resolve_precision("fp16", CUDA) == "fp16"
    if major < 8:
        with pytest.raises(DeviceError, match="no bf16"):
            resolve_precision("bf16", CUDA)


@pytest.mark.parametrize(
    ("precision", "device", "error", "message"),
    [
        ("fp16", "cpu", DeviceError, "needs a CUDA GPU"),
        ("bf16", "mps", DeviceError, "not supported on mps"),
        ("double", "cpu", ValueError, "'auto', 'fp32', 'bf16' or 'fp16'"),
    ],
)
def test_what_a_device_lacks_is_named(precision, device, error, message) -> None:
    with pytest.raises(error, match=message):
        resolve_precision(precision, torch.device(device))


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("cuda", 0, "no CUDA GPU"),
        ("cuda:3", 2, "cuda:0 to cuda:1"),
        ("meta", 0, "not supported"),
        ("gpu", 0, "unknown"),
    ],
)
def test_a_device_that_is_not_there_is_named(monkeypatch, device, gpus, message) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(DeviceError, match=message):
        resolve_device(device)


def test_building_checks_the_device_before_anything_is_built(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="use the device cpu"):
        build_model("vit_h", device="cuda")


def test_bf16_halves_the_large_weights_only(tiny: Sam3D) -> None:
    crop = torch.randn(1, 1, 32, 32, 32)
    full = tiny.encode(crop)
    tiny.set_precision("bf16")
    block = tiny.image_encoder.blocks[0]
    assert block.mlp.lin1.weight.dtype == block.attn.qkv.weight.dtype == torch.bfloat16
    assert block.norm1.weight.dtype == block.attn.rel_pos_d.dtype == torch.float32
    assert tiny.mask_decoder.iou_token.weight.dtype == torch.float32
    rounded = tiny.encode(crop)
    assert rounded.dtype == torch.float32
    assert (rounded - full).square().mean() < 1e-3 * full.square().mean()
    logits, iou = tiny.decode(rounded.half(), torch.full((1, 1, 3), 9.0), torch.ones(1, 1))
    assert logits.dtype == iou.dtype == torch.float32


def test_moving_keeps_a_precision_that_the_device_has(tiny: Sam3D) -> None:
    tiny.set_precision("bf16")
    assert tiny.to_device("cpu").precision == "bf16"
    tiny.precision = "fp16"  # as after a GPU that gave out
    tiny.image_encoder.set_compute_dtype(torch.float16)
    assert tiny.to_device("cpu").precision == "fp32"
    assert {parameter.dtype for parameter in tiny.parameters()} == {torch.float32}
    assert tiny.encode(torch.zeros(1, 1, 32, 32, 32)).isfinite().all()
