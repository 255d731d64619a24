"""A ViT of the public code's shape that is small enough to train in a test."""

from __future__ import annotations

import dataclasses

import torch

from SAMMed3DLib.model.profile import PROFILES, PreprocessingProfile
from SAMMed3DLib.model.registry import build_vit
from SAMMed3DLib.model.sam import Sam3D
from SAMMed3DLib.model.sizes import ViTSize

SIZE = ViTSize(image_size=32, dim=48, depth=2, heads=4, global_blocks=(1,))
PROFILE: PreprocessingProfile = dataclasses.replace(PROFILES["sam_med3d"], crop_size=(32, 32, 32))


def small_vit(seed: int = 0) -> Sam3D:
    """32^3 voxels in, 8^3 logits out, prompted with the newest click only."""
    torch.manual_seed(seed)
    return Sam3D("vit_b_ori", PROFILE, *build_vit(SIZE, boxes=False), low_res_size=(8, 8, 8))
