"""The networks' names and sizes, for those who do not need PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

ALIASES = {"default": "vit_h"}
NODULE_NETS = ("nodule", "nodule_light")
"""A compact net, and one with the same encoder whose clicks cost half. Without a checkpoint either name asks for the
bundled weights."""
BUNDLED_NETWORK = "nodule_light"

GFLOP = {"nodule": (16.8, 8.27), "nodule_light": (16.8, 4.07), "vit_b_ori": (104.6, 1.44)}
"""10^9 floating point operations of one encoding and of one decoding, a multiplication and an addition being two."""


@dataclass(frozen=True)
class ViTSize:
    """The figures in which the public variants differ."""

    image_size: int
    dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]


VIT_SIZES: dict[str, ViTSize] = {
    "vit_b_ori": ViTSize(128, 768, 12, 12, (2, 5, 8, 11)),
    "vit_b": ViTSize(256, 384, 12, 12, (2, 5, 8, 11)),
    "vit_l": ViTSize(256, 1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": ViTSize(256, 1280, 32, 16, (7, 15, 23, 31)),
    # Not of the public registry: the same code, small enough to train from scratch on a CPU.
    "vit_tiny": ViTSize(64, 192, 4, 3, (1, 3)),
}


def model_names() -> list[str]:
    """Every name that :func:`build_model` knows."""
    return sorted([*VIT_SIZES, *ALIASES, *NODULE_NETS])
