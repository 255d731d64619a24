"""The two ways to a matrix product agree, and gradients take the plain one."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from SAMMed3DLib.model import linear as linear_module
from SAMMed3DLib.model.linear import (
    Linear,
    PatchConv3d,
    UpConv3d,
    best_seconds,
    fixed_library,
    linear,
    onednn_is_faster,
    resolve_library,
)


def tensors(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in ((2, 50, 24), (40, 24), (40,)))


@pytest.mark.parametrize("faster", [False, True])
@pytest.mark.parametrize("activation", ["none", "gelu", "relu"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_both_libraries_agree(monkeypatch, faster, activation, with_bias) -> None:
    if faster and not linear_module._has_onednn_linear():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(linear_module, "onednn_is_faster", lambda dtype: faster)
    x, weight, bias = tensors()
    given = bias if with_bias else None
    plain = {"none": lambda y: y, "gelu": F.gelu, "relu": F.relu}[activation](F.linear(x, weight, given))
    for view in (x, x.transpose(0, 1).contiguous().transpose(0, 1)):
        result = linear(view, weight, given, activation)
        assert result.shape == (2, 50, 40)
        assert torch.allclose(result, plain, atol=1e-5)


def test_a_fixed_library_is_taken_whatever_is_faster(monkeypatch) -> None:
    taken = []
    monkeypatch.setattr(linear_module, "_has_onednn_linear", lambda: True)
    monkeypatch.setattr(
        linear_module, "_onednn_linear", lambda x, weight, *more: taken.append(1) or F.linear(x, weight)
    )
    monkeypatch.setattr(linear_module, "onednn_is_faster", lambda dtype: True)
    x, weight, _ = tensors()
    assert [resolve_library(name) for name in ("auto", "torch", "onednn")] == ["onednn", "torch", "onednn"]
    for name, count in (("torch", 0), ("onednn", 1)):
        with fixed_library(name):
            linear(x, weight, None)
        assert len(taken) == count
    linear(x, weight, None)
    assert len(taken) == 2  # measured again
    monkeypatch.setattr(linear_module, "_has_onednn_linear", lambda: False)
    assert resolve_library("onednn") == "torch"
    with pytest.raises(ValueError, match="blas"):
        resolve_library("blas")


def test_the_weight_decides_the_dtype() -> None:
    x, weight, bias = tensors()
    result = linear(x, weight.bfloat16(), bias.bfloat16())
    assert result.dtype == torch.bfloat16
    assert torch.allclose(result.float(), F.linear(x, weight, bias), atol=0.3)


def test_gradients_flow_whatever_is_faster(monkeypatch) -> None:
    monkeypatch.setattr(linear_module, "onednn_is_faster", lambda dtype: True)
    x, _, _ = tensors()
    layer = Linear(24, 40)
    layer(x, "gelu").sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum() > 0


def test_autocast_is_obeyed() -> None:
    x, weight, bias = tensors()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert linear(x, weight, bias).dtype == torch.bfloat16


def test_a_dtype_that_onednn_lacks_stays_with_pytorch() -> None:
    assert not onednn_is_faster(torch.float64)


def test_without_onednn_nothing_is_measured(monkeypatch) -> None:
    onednn_is_faster.cache_clear()
    monkeypatch.setattr(linear_module, "_has_onednn_linear", lambda: False)
    assert not onednn_is_faster(torch.float32)
    onednn_is_faster.cache_clear()


@pytest.mark.skipif(not linear_module._has_onednn_linear(), reason="there is no oneDNN here")
def test_a_busy_machine_does_not_change_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that chose otherwise would not give the same to the bit."""
    chosen = {}
    for seconds in ([1.0, 1.2], [1.2, 1.0], [1.4, 1.0]):  # of oneDNN and of PyTorch's own choice
        onednn_is_faster.cache_clear()
        monkeypatch.setattr(linear_module, "best_seconds", lambda *functions, repeats, seconds=seconds: seconds)
        chosen[tuple(seconds)] = onednn_is_faster(torch.float32)
    onednn_is_faster.cache_clear()
    assert list(chosen.values()) == [True, True, False]
    monkeypatch.setattr(linear_module, "best_seconds", lambda *functions, repeats: pytest.fail("measured in vain"))
    onednn_is_faster(torch.bfloat16)
    onednn_is_faster.cache_clear()


def test_measuring_restores_the_threads() -> None:
    torch.set_num_threads(2)
    seconds = best_seconds(lambda: None, lambda: sum(range(20000)), repeats=2)
    assert torch.get_num_threads() == 2
    assert seconds[0] < seconds[1]


def test_patches_equal_the_strided_convolution() -> None:
    convolution = PatchConv3d(2, 5, 2)
    x = torch.randn(3, 2, 4, 6, 8)
    expected = F.conv3d(x, convolution.weight, convolution.bias, stride=2)
    assert torch.allclose(convolution(x).movedim(-1, 1), expected, atol=1e-5)


def test_children_equal_the_transposed_convolution() -> None:
    convolution = UpConv3d(6, 4)
    x = torch.randn(2, 6, 3, 4, 5)
    expected = F.conv_transpose3d(x, convolution.weight, convolution.bias, stride=2)
    children = convolution(x.movedim(1, -1)).unflatten(4, (2, 2, 2))
    result = children.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(expected.shape)
    assert torch.allclose(result, expected, atol=1e-5)
