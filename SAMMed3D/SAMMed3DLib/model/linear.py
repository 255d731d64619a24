"""Linear layers through the faster matrix library of the machine.

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
