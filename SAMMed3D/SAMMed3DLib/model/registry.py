"""The networks by name, in the sizes of the public registry, and the compact ``nodule`` net."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .image_encoder import ImageEncoderViT3D
from .mask_decoder import MaskDecoder3D
from .precision import resolve_device, resolve_precision
from .profile import PROFILES, PreprocessingProfile
from .prompt_encoder import PromptEncoder3D
from .sam import Sam3D
from .sizes import ALIASES, NODULE_NETS, VIT_SIZES, ViTSize, model_names

EMBED_DIM = 384
PATCH = 16
NODULE_LOW_RES = (32, 32, 32)
# mallopt's numbers of options, and the largest block that glibc takes from memory that it keeps (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _LARGEST_KEPT = -1, -3, 32 << 20


def build_model(
    name: str, device: str | torch.device = "cpu", precision: str = "fp32", profile: PreprocessingProfile | None = None
) -> Sam3D:
    """An untrained network in evaluation mode.

    Args:
        name: "vit_b_ori" (the public weights), "vit_b", "vit_l", "vit_h" (= "default"), "nodule" or
            "nodule_light".
        device: "cpu", "cuda", "cuda:1" or "mps".
        precision: "fp32", "bf16", "fp16" or "auto".
        profile: what its input looks like; by default that of the name. ``profile.boxes`` gives a ViT box embeddings.

    Raises:
        ValueError: unknown name or precision, or a profile for another input size; DeviceError: no such device.
    """
    resolved = resolve_device(device)
    precision = resolve_precision(precision, resolved)
    model = assemble(name, profile).to(resolved).eval()
    model.set_precision(precision)
    return model


def assemble(name: str, profile: PreprocessingProfile | None = None, boxes: bool | None = None) -> Sam3D:
    """The bare network on the current default device.

    ``boxes`` says whether a ViT has box embeddings, by default as the profile has it; without them the profile's
    ``boxes`` becomes False. Raises ValueError as :func:`build_model`.
    """
    _keep_freed_memory()
    name = ALIASES.get(name, name)
    if name not in model_names():
        raise ValueError(f"unknown architecture {name!r}: use one of {', '.join(model_names())}")
    expected = default_profile(name)
    profile = profile or expected
    if (profile.crop_size, profile.channels) != (expected.crop_size, expected.channels):
        raise ValueError(
            f"profile {profile.name!r} makes crops of {profile.channels} x {profile.crop_size}, but {name} takes "
            f"{expected.channels} x {expected.crop_size}: choose another profile"
        )
    if name in NODULE_NETS:
        return Sam3D(name, profile, *build_nodule(light=name == "nodule_light"), low_res_size=NODULE_LOW_RES)
    boxes = profile.boxes if boxes is None else boxes
    size = VIT_SIZES[name]
    low_res = 4 * size.image_size // PATCH
    profile = dataclasses.replace(profile, boxes=profile.boxes and boxes)
    return Sam3D(name, profile, *build_vit(size, boxes), low_res_size=(low_res, low_res, low_res))


def skeleton(name: str, profile: PreprocessingProfile | None = None, boxes: bool | None = None) -> Sam3D:
    """As :func:`assemble`, without memory for the weights: a state dict must be assigned to it."""
    with torch.device("meta"), _NoInitialization():
        return assemble(name, profile, boxes)


class _NoInitialization(TorchFunctionMode):
    """Random numbers for weights without memory would only import PyTorch's compiler: 80 MB and a second."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)


@functools.cache
def _keep_freed_memory() -> None:
    """Makes glibc keep up to 64 MiB of freed memory for the next layer; does nothing with another C library.

    It would return each layer's results to the system and fault them in again: a fifth of an encoding's time. Said
    outright, because glibc no longer adapts by itself where the environment has settings of its own, as Dask's workers
    do (mallopt(3)).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_KEPT)


def default_profile(name: str) -> PreprocessingProfile:
    """What a network of this name expects unless its checkpoint says otherwise."""
    if name in NODULE_NETS:
        return PROFILES[name]
    size = VIT_SIZES[ALIASES.get(name, name)].image_size
    return dataclasses.replace(PROFILES["sam_med3d"], crop_size=(size, size, size))


def build_vit(size: ViTSize, boxes: bool) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Image encoder, prompt encoder and mask decoder of a public variant."""
    return (
        ImageEncoderViT3D(
            size.image_size, size.dim, size.depth, size.heads, size.global_blocks, patch=PATCH, out_channels=EMBED_DIM
        ),
        PromptEncoder3D(EMBED_DIM, size.image_size // PATCH, size.image_size, boxes=boxes),
        MaskDecoder3D(EMBED_DIM),
    )


def build_nodule(light: bool) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Image encoder, prompt encoder and mask decoder of the compact net."""
    from .nodule_net import build_nodule_net  # imported here: the ViT sizes do not need it

    return build_nodule_net(light)
