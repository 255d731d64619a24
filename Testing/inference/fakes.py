"""Small networks that obey the contract of Sam3D and see a bright object on a dark background."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from SAMMed3DLib.model.profile import PROFILES, PreprocessingProfile

#: The default model's profile with one intensity channel and a fixed size for objects.
PROFILE = dataclasses.replace(
    PROFILES["nodule"], windows_hu=((-1000.0, 400.0),), spacing_channel=False, target_voxels=16.0
)


class ThresholdModel:
    """Logits = how bright a cell is, plus the previous logits' half, plus a push at each click.

    Counts its calls and keeps what it was prompted with.
    """

    low_res_size = (32, 32, 32)

    def __init__(self, profile: PreprocessingProfile = PROFILE, gain: float = 20.0, push: float = 0.0) -> None:
        self.profile = profile
        self.gain = gain
        self.push = push
        self.device = torch.device("cpu")
        self.encoded = 0
        self.prompts: list[dict[str, np.ndarray | None]] = []

    def encode(self, crop: Tensor) -> Tensor:
        assert crop.shape == (1, self.profile.channels, *self.profile.crop_size)
        self.encoded += 1
        return torch.nn.functional.adaptive_avg_pool3d(crop[:, :1], self.low_res_size)

    def decode(self, embedding, coords, labels, boxes, mask, multimask_output=False):
        given = {"coords": coords, "labels": labels, "boxes": boxes, "mask": mask}
        self.prompts.append({name: None if value is None else value.numpy().copy() for name, value in given.items()})
        logits = (embedding - 600.0 / 1400.0) * self.gain  # half way between the sphere and its background
        if mask is not None:
            logits = 0.5 * logits + 0.5 * mask.clamp(-self.gain, self.gain)
        if coords is not None:
            logits = torch.cat([self._pushed(logits[:1], *each) for each in zip(coords, labels, strict=True)])
        count = 3 if multimask_output else 1
        shifts = torch.tensor([0.0, 2.0, -2.0])[:count].reshape(1, count, 1, 1, 1)
        return logits + shifts, torch.tensor([[0.8, 0.9, 0.4]])[:, :count].expand(len(logits), -1)

    def _pushed(self, logits: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """Logits (1, 1, ...) after the clicks of one sample."""
        cell = torch.tensor(self.profile.crop_size) / 32.0
        axes = [torch.arange(32.0) for _ in range(3)]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
        for point, label in zip(points, labels, strict=True):
            if self.push:
                distance = ((grid - (point + 0.5) / cell + 0.5) ** 2).sum(-1)
                logits = logits + (1.0 if label else -1.0) * self.push * torch.exp(-distance / 8.0)
        return logits


class RandomModel(ThresholdModel):
    """Smooth random logits, new ones at every decoding, blind to image and clicks."""

    def __init__(self, profile: PreprocessingProfile = PROFILE, seed: int = 0, bias: float = 0.0) -> None:
        super().__init__(profile)
        self.generator = torch.Generator().manual_seed(seed)
        self.bias = bias

    def decode(self, embedding, coords, labels, boxes, mask, multimask_output=False):
        coarse = torch.randn(1, 1, 8, 8, 8, generator=self.generator) * 6.0 + self.bias
        logits = torch.nn.functional.interpolate(coarse, size=(32, 32, 32), mode="trilinear", align_corners=False)
        return logits, torch.zeros(1, 1)


def sphere_volume(
    world: np.ndarray, center: tuple[float, float, float], radius: float, inside: float = 100.0, outside: float = -900.0
) -> np.ndarray:
    """HU of a sphere with a soft rim of 1 mm, int16, on the voxel centers ``world`` (K, J, I, 3)."""
    distance = np.linalg.norm(world - np.array(center), axis=-1)
    share = np.clip(radius - distance + 0.5, 0.0, 1.0)
    return np.round(outside + (inside - outside) * share).astype(np.int16)
