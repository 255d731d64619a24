"""Linear layers through the faster matrix library of the machine, and the small layers made of them.

PyTorch sends fp32 products to MKL, which takes its AVX2 path on AMD processors, while oneDNN (also inside PyTorch)
uses AVX-512 there: 1.5 to 2.5 times as fast. Which one wins depends on the machine, so it is measured, once per
process, and by so wide a margin that processes of one busy machine choose alike: their results are the same to the bit.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["none", "gelu", "relu"]
# Below this many rows a product is too short for the choice of the library to matter.
MIN_ROWS = 64
LIBRARIES = ("auto", "torch", "onednn")
# PyTorch's own choice has to be so much faster than oneDNN to be taken: less is noise where others compute too.
_CLEARLY_FASTER = 1.3
_fixed: dict[torch.dtype, bool] = {}


class Linear(nn.Linear):
    """``torch.nn.Linear`` computed in the dtype of its weight, with an optional fused activation.

    The input (..., in_features) may have another floating dtype; the output (..., out_features) has the weight's.
    """

    def forward(self, input: Tensor, activation: Activation = "none") -> Tensor:
        return linear(input, self.weight, self.bias, activation)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation = "none") -> Tensor:
    """``activation(x @ weight.T + bias)`` for x (..., K) and weight (N, K), in the dtype of the weight.

    With gradients or autocast this is plain PyTorch; otherwise the faster library for the weight's dtype.
    """
    if torch.is_autocast_enabled(x.device.type):
        return _activate(F.linear(x, weight, bias), activation)
    x = x.to(weight.dtype)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _activate(F.linear(x, weight, bias), activation)
    if x.device.type == "cpu" and x.numel() >= MIN_ROWS * x.shape[-1] and _takes_onednn(weight.dtype):
        return _onednn_linear(x, weight, bias, activation)
    return _activate(F.linear(x, weight, bias), activation)


def resolve_library(name: str) -> str:
    """ "onednn" or "torch" for fp32 on the CPU: "auto" takes the faster one; where there is no oneDNN, it is "torch".

    Raises ValueError for an unknown name.
    """
    if name not in LIBRARIES:
        raise ValueError(f"unknown matrix library {name!r}: use {', '.join(LIBRARIES)}")
    takes = _has_onednn_linear() if name == "onednn" else name == "auto" and onednn_is_faster(torch.float32)
    return "onednn" if takes else "torch"


@contextmanager
def fixed_library(name: str) -> Iterator[None]:
    """Products in fp32 on the CPU are of this library within, "onednn" or "torch", whatever would be measured here.

    What is computed twice, here or on another machine, is then the same to the last bit where processors are alike.
    """
    before = dict(_fixed)
    _fixed[torch.float32] = name == "onednn"
    try:
        yield
    finally:
        _fixed.clear()
        _fixed.update(before)


def _takes_onednn(dtype: torch.dtype) -> bool:
    """What was fixed, else what is faster."""
    return _fixed[dtype] if dtype in _fixed else onednn_is_faster(dtype)


@functools.cache
def onednn_is_faster(dtype: torch.dtype) -> bool:
    """Whether oneDNN's linear with its fused GELU is to be taken on this CPU in this dtype.

    In fp32 PyTorch's own choice, MKL, is taken where it is clearly faster: measured once per process on 256 x 768 by
    768 x 768, some 0.2 s. In bf16 PyTorch takes oneDNN too, so nothing is measured.
    """
    if dtype not in (torch.float32, torch.bfloat16) or not _has_onednn_linear():
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 768, generator=generator).to(dtype) for n in (256, 768))
    bias = torch.zeros(768, dtype=dtype)
    with torch.no_grad():
        try:
            _onednn_linear(x, weight, bias, "gelu")
        except RuntimeError:  # built in, but not for this processor or dtype
            return False
        if dtype == torch.bfloat16:
            return True
        fused, plain = best_seconds(
            lambda: _onednn_linear(x, weight, bias, "gelu"), lambda: F.gelu(F.linear(x, weight, bias)), repeats=20
        )
    return fused < plain * _CLEARLY_FASTER


def best_seconds(*functions: Callable[[], object], repeats: int = 8) -> list[float]:
    """Shortest run of each function on one thread, taken in turns after a warm-up.

    The shortest is the one that other processes disturbed least; several threads would wait for each other when the
    machine is busy.
    """
    times: list[list[float]] = [[] for _ in functions]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(repeats + 1):
            for function, taken in zip(functions, times, strict=True):
                start = time.perf_counter()
                function()
                taken.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return [min(taken[1:]) for taken in times]


def _has_onednn_linear() -> bool:
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    return hasattr(torch.ops, "mkldnn") and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    # "none" as the algorithm of gelu is the exact one (erf).
    algorithm = "none" if activation == "gelu" else ""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], algorithm)


def _activate(x: Tensor, activation: Activation) -> Tensor:
    if activation == "gelu":
        return F.gelu(x)
    return F.relu(x) if activation == "relu" else x


# -- layers that encoder and decoder share -----------------------------------------------------------------------------


class LayerNorm3d(nn.Module):
    """LayerNorm over the channels of (B, C, D, H, W): biased variance, eps 1e-6, affine."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.channels_last(x.movedim(1, -1)).movedim(-1, 1)

    def channels_last(self, x: Tensor) -> Tensor:
        """The same for (..., C)."""
        return F.layer_norm(x.to(self.weight.dtype), self.weight.shape, self.weight, self.bias, self.eps)


class MLPBlock(nn.Module):
    """Linear, activation, linear: (..., C) -> (..., C)."""

    def __init__(self, dim: int, hidden: int, activation: Activation = "gelu") -> None:
        super().__init__()
        self.lin1 = Linear(dim, hidden)
        self.lin2 = Linear(hidden, dim)
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.lin1(x, self.activation))


class MLP(nn.Module):
    """``depth`` linear layers with ReLU between them: (..., input_dim) -> (..., output_dim)."""

    def __init__(self, input_dim: int, hidden: int, output_dim: int, depth: int) -> None:
        super().__init__()
        sizes = [input_dim, *[hidden] * (depth - 1), output_dim]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x, "relu")
        return self.layers[-1](x)


class PatchConv3d(nn.Conv3d):
    """A convolution whose stride is its kernel, evaluated as one matrix product (bf16 conv3d is 10 times slower)."""

    def __init__(self, in_channels: int, out_channels: int, patch: int) -> None:
        super().__init__(in_channels, out_channels, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> channels last (B, D/p, H/p, W/p, out_channels)."""
        batch, channels = x.shape[:2]
        p = self.kernel_size[0]
        grid = [size // p for size in x.shape[2:]]
        x = x.to(self.weight.dtype).reshape(batch, channels, grid[0], p, grid[1], p, grid[2], p)
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, *grid, -1)
        return linear(x, self.weight.flatten(1), self.bias)


class UpConv3d(nn.ConvTranspose3d):
    """ConvTranspose3d with kernel and stride 2 as one matrix product per voxel; the eight children stay apart."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, 2)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # no output_size: it is always twice
        """(..., in_channels) -> (..., 8, out_channels), the children in the order (d, h, w) = 000, 001, ... 111."""
        weight = self.weight.flatten(2).permute(2, 1, 0).flatten(0, 1)
        bias = None if self.bias is None else self.bias.repeat(8)
        return linear(x, weight, bias).unflatten(-1, (8, -1))
