"""Devices and number formats: what was asked for, checked against what the machine really has."""

from __future__ import annotations

import functools

import torch

from .linear import best_seconds, linear

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class DeviceError(ValueError):
    """A device that this machine or this PyTorch does not have, or a number format that the device lacks."""


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device. Raises DeviceError with the cure when it is not there."""
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {device!r}: use 'cpu', 'cuda', 'cuda:1' or 'mps'") from error
    if resolved.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise DeviceError(
                "no CUDA GPU is usable here: use the device cpu, or install an NVIDIA driver and a CUDA "
                "build of PyTorch"
            )
        if (resolved.index or 0) >= count:
            raise DeviceError(f"there is no {resolved}: this machine has cuda:0 to cuda:{count - 1}")
    elif resolved.type == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError("no Apple GPU is usable here: use the device cpu")
    elif resolved.type != "cpu":
        raise DeviceError(f"device {resolved.type!r} is not supported: use 'cpu', 'cuda' or 'mps'")
    return resolved


def resolve_precision(precision: str, device: torch.device) -> str:
    """One of "fp32", "bf16", "fp16"; "auto" takes the fastest that the device really has.

    Raises DeviceError when the device cannot compute in the precision asked for, ValueError for an unknown name.
    """
    if precision == "auto":
        if device.type == "cuda":
            return "bf16" if _cuda_has_bf16(device) else "fp16"
        if device.type == "cpu" and cpu_bf16_is_fast():
            return "bf16"
        return "fp32"
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: use 'auto', 'fp32', 'bf16' or 'fp16'")
    if precision == "fp16" and device.type != "cuda":
        raise DeviceError(f"fp16 needs a CUDA GPU, not {device.type}: use the precision auto, fp32 or bf16")
    if precision == "bf16" and device.type == "cuda" and not _cuda_has_bf16(device):
        raise DeviceError("this GPU has no bf16: use the precision auto, fp16 or fp32")
    if precision == "bf16" and device.type == "mps":
        raise DeviceError("bf16 is not supported on mps: use the precision auto or fp32")
    return precision


def _cuda_has_bf16(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device)[0] >= 8


@functools.cache
def cpu_bf16_is_fast() -> bool:
    """Whether this CPU gains by bf16: it has the instructions, or a measured matrix product says so (some 30 ms, once).

    What has the instructions is not measured, because a busy machine would let one of two processes choose otherwise,
    and their results would not be the same.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    # oneDNN's own answer comes first: it may have been told to use fewer instructions (DNNL_MAX_CPU_ISA)
    if not getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)():
        return False
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if any(probe is not None and probe() for probe in probes):
        return True
    x, weight = torch.ones(256, 768), torch.ones(768, 768)
    x16, weight16 = x.bfloat16(), weight.bfloat16()
    with torch.no_grad():
        full, half = best_seconds(lambda: linear(x, weight, None), lambda: linear(x16, weight16, None))
    return half < full / 1.2
