"""``nodule_classifier``: tells nodules from what a blob filter takes for them, in one small crop each.

Five convolutions and one hidden layer, the usual shape of the networks of LUNA16's false positive reduction track
(Setio et al. 2017). It judges thousands of places in seconds, where a look of the promptable network costs more.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .checkpoint import check_layout, read_weights

EDGE = 32
"""Edge of the crop in voxels."""
VOXELS_PER_DIAMETER = 12.5
"""Every nodule is shown at this size, but for the smallest and largest."""
SPACING_RANGE_MM = (0.5, 1.5)
GFLOP = 0.43
"""10^9 floating point operations for one crop."""
_WINDOWS_HU = ((-1000.0, 400.0), (-160.0, 240.0))


class NoduleClassifier(nn.Module):
    """Log odds that the middle of a crop is a nodule of about the size that the crop was made for."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _layer(2, 32, 2), _layer(32, 32, 1), _layer(32, 64, 2), _layer(64, 64, 1), _layer(64, 96, 2)
        )
        self.head = nn.Sequential(nn.Linear(3 * 96 + 1, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 1))

    def forward(self, hu: Tensor, spacing_mm: Tensor) -> Tensor:
        """(B,) log odds.

        Args:
            hu: (B, X, Y, Z) float, ``EDGE`` voxels long, in HU.
            spacing_mm: (B,) of the crops.
        """
        windows = [(hu.clamp(low, high) - (low + high) / 2) * (2.0 / (high - low)) for low, high in _WINDOWS_HU]
        x = torch.stack(windows, dim=1).contiguous(memory_format=torch.channels_last_3d)
        maps = self.features(x).float()
        middle = maps[:, :, 1:3, 1:3, 1:3].mean(dim=(2, 3, 4))
        pooled = [maps.mean(dim=(2, 3, 4)), maps.amax(dim=(2, 3, 4)), middle, spacing_mm.log()[:, None]]
        return self.head(torch.cat(pooled, dim=1))[:, 0]


def load_classifier(path: str | os.PathLike[str]) -> NoduleClassifier:
    """A classifier on the CPU, ready to judge.

    Raises:
        CheckpointError: the file is none of its weights; the message names what to do.
    """
    classifier = NoduleClassifier()
    weights = read_weights(path)
    check_layout(classifier, "nodule_classifier", weights, Path(path))
    classifier.load_state_dict(weights)
    classifier.eval().requires_grad_(False)
    for layer in classifier.features:
        assert isinstance(layer, nn.Sequential)
        convolution, normalization = layer[0], layer[1]
        assert isinstance(convolution, nn.Conv3d) and isinstance(normalization, nn.BatchNorm3d)
        # what a normalization does to a judge is fixed: the convolution does it too
        layer[0], layer[1] = fuse_conv_bn_eval(convolution, normalization), nn.Identity()
    # torch's stubs know no memory format of five axes here
    return classifier.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU()
    )
