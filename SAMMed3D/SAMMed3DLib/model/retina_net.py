"""``retina_net``: MONAI's public detector of lung nodules in plain PyTorch, its weights' names and layout the same.

A RetinaNet (Lin et al., ICCV 2017) in three dimensions: the first half of a ResNet-50, a feature pyramid of two levels
and a third one that is every other cell of the second, and two heads of four convolutions each. The weights are those
of the bundle ``lung_nodule_ct_detection`` of the MONAI model zoo (Apache-2.0), trained on LUNA16.

Long convolutions run in slabs, so that memory stays bounded and a caller hears how far they are.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoint import CheckpointError, check_layout, read_weights

NAME = "lung_nodule_ct_detection"
DIVISIBLE = (16, 16, 8)
"""An image's edges must be multiples of these."""
ANCHORS = 3
"""Boxes of each cell of a level."""
GFLOP_PER_MEGAVOXEL = 1208.0
"""10^9 floating point operations for each million voxels of an image."""
_CHANNELS, _GROUPS = 256, 8
#: Cells of a map that a convolution computes at once.
_SLAB_CELLS = 100_000

Tick = Callable[[], object]


def _slab_rows(plane: Sequence[int]) -> int:
    """How many planes of a map are computed at once."""
    return max(1, _SLAB_CELLS // math.prod(plane))


class SlabConv(nn.Conv3d):
    """A 3^3 convolution of stride 1 that computes large maps slab by slab; ``tick`` is called after each."""

    tick: Tick | None = None

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        rows, step = x.shape[2], _slab_rows(x.shape[3:])
        out = x.new_empty(x.shape[0], self.out_channels, *x.shape[2:])
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            slab = x[:, :, max(start - 1, 0) : stop + 1]
            slab = F.pad(slab, (1, 1, 1, 1, int(start == 0), int(stop == rows)))
            out[:, :, start:stop] = F.conv3d(slab, self.weight, self.bias)
            if self.tick is not None:
                self.tick()
        return out


class Bottleneck(nn.Module):
    """ResNet's residual block of three convolutions, (B, C, X, Y, Z) -> (B, 4 * planes, X, Y, Z) / stride."""

    def __init__(self, inputs: int, planes: int, stride: int = 1, project: bool = False) -> None:
        super().__init__()
        outputs = 4 * planes
        self.conv1 = nn.Conv3d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = nn.Conv3d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride), nn.BatchNorm3d(outputs)) if project else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y.add_(x if self.downsample is None else self.downsample(x)))


class Body(nn.Module):
    """The first half of a ResNet-50: (B, 1, X, Y, Z) -> maps at 1/4, 1/4, 1/2 and at 1/8, 1/8, 1/4 of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, 64, 7, (2, 2, 1), padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.layer1 = nn.Sequential(Bottleneck(64, 64, project=True), *(Bottleneck(256, 64) for _ in range(2)))
        self.layer2 = nn.Sequential(Bottleneck(256, 128, 2, project=True), *(Bottleneck(512, 128) for _ in range(3)))

    def forward(self, x: Tensor, tick: Tick = lambda: None) -> list[Tensor]:
        x = self._stem(x, tick)
        maps = []
        for layer in (self.layer1, self.layer2):
            for block in layer:
                x = block(x)
                tick()
            maps.append(x)
        return maps

    def _stem(self, x: Tensor, tick: Tick) -> Tensor:
        """First convolution and max pooling, slab by slab: in one go its map is the largest of all by far."""
        rows = x.shape[2] // 4
        padded = F.pad(x, (0, 0, 0, 0, 3, 3))
        step = _slab_rows((x.shape[3] // 4, x.shape[4]))
        slabs = []
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            first = max(2 * start - 1, 0)
            slab = padded[:, :, 2 * first : 2 * (2 * stop - 1) + 7]
            slab = F.conv3d(slab, self.conv1.weight, None, self.conv1.stride, (0, 3, 3))
            slab = F.relu(self.bn1(slab))
            if start == 0:
                slab = F.pad(slab, (0, 0, 0, 0, 1, 0))  # nothing is below 0 here: as good as no neighbor
            slabs.append(F.max_pool3d(slab, 3, 2, (0, 1, 1)))
            tick()
        return torch.cat(slabs, dim=2)


class Pyramid(nn.Module):
    """Feature pyramid (Lin et al. 2017) of two maps; the third level is every other cell of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList([nn.Conv3d(inputs, _CHANNELS, 1) for inputs in (256, 512)])
        self.layer_blocks = nn.ModuleList([SlabConv(_CHANNELS, _CHANNELS) for _ in range(2)])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        coarse = self.inner_blocks[1](maps[1])
        fine = self.inner_blocks[0](maps[0])
        fine += F.interpolate(coarse, size=fine.shape[2:], mode="nearest")
        levels = [self.layer_blocks[0](fine), self.layer_blocks[1](coarse)]
        return [*levels, levels[1][:, :, ::2, ::2, ::2]]


class FeatureExtractor(nn.Module):
    """Body and pyramid, under the names of the public weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.fpn = Pyramid()

    def forward(self, x: Tensor, tick: Tick = lambda: None) -> list[Tensor]:
        return self.fpn(self.body(x, tick))


class Head(nn.Module):
    """Four convolutions with group normalization, shared by all levels; a subclass adds the last one."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [SlabConv(_CHANNELS, _CHANNELS), nn.GroupNorm(_GROUPS, _CHANNELS), nn.ReLU(inplace=True)]
        self.conv = nn.Sequential(*layers)


class ClassificationHead(Head):
    """Log odds of a nodule for each anchor, (B, 3, ...)."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_logits = SlabConv(_CHANNELS, ANCHORS)

    def forward(self, level: Tensor) -> Tensor:
        return self.cls_logits(self.conv(level))


class RegressionHead(Head):
    """How each anchor is to be moved and scaled, (B, 3 * 6, ...)."""

    def __init__(self) -> None:
        super().__init__()
        self.bbox_reg = SlabConv(_CHANNELS, 6 * ANCHORS)

    def forward(self, level: Tensor) -> Tensor:
        return self.bbox_reg(self.conv(level))


class RetinaNet(nn.Module):
    """(B, 1, X, Y, Z), intensities 0..1, edges multiples of ``DIVISIBLE`` -> log odds and box codes of three levels."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor()
        self.classification_head = ClassificationHead()
        self.regression_head = RegressionHead()

    def forward(self, x: Tensor, tick: Tick = lambda: None) -> tuple[list[Tensor], list[Tensor]]:
        """
        Args:
            x: the image.
            tick: called after each piece of work; what it raises ends the work.

        Returns:
            log odds (B, 3, ...) and codes (B, 18, ...) at 1/4, 1/4, 1/2 of the size, and at half and a quarter of that.
        """
        with self._ticking(tick):
            levels = self.feature_extractor(x, tick)
            logits, codes = [], []
            for number, level in enumerate(levels):
                logits.append(self.classification_head(level))
                codes.append(self.regression_head(level))
                levels[number] = level[:, :0]  # its memory is free
        return logits, codes

    def ticks(self, size: Sequence[int]) -> int:
        """How many pieces of work an image of (X, Y, Z) voxels is, multiples of ``DIVISIBLE``: so often ``tick`` is
        called."""
        x, y, z = size
        fine, coarse = (x // 4, y // 4, z // 2), (x // 8, y // 8, z // 4)
        levels = (fine, coarse, tuple(-(-n // 2) for n in coarse))
        slabs = [-(-rows // _slab_rows(plane)) for rows, *plane in levels]
        stem = -(-(x // 4) // _slab_rows((y // 4, z)))
        body, heads = self.feature_extractor.body, (self.classification_head, self.regression_head)
        each = sum(isinstance(module, SlabConv) for head in heads for module in head.modules())
        return stem + len(body.layer1) + len(body.layer2) + sum(slabs[:2]) + each * sum(slabs)

    @contextmanager
    def _ticking(self, tick: Tick) -> Iterator[None]:
        convolutions = [module for module in self.modules() if isinstance(module, SlabConv)]
        for module in convolutions:
            module.tick = tick
        try:
            yield
        finally:
            for module in convolutions:
                module.tick = None


def load_retina_net(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> RetinaNet:
    """The detector of a file of the public bundle (``models/model.pt``), ready to detect. Nothing in the file is run.

    Raises:
        CheckpointError: the file is none of its weights; the message names what to do.
    """
    try:
        weights = read_weights(path, ("model", "state_dict", "model_state_dict"))
        with torch.device("meta"):
            network = RetinaNet()
        check_layout(network, NAME, weights, Path(path))
    except CheckpointError as error:
        raise CheckpointError(f"{error} (a detector is models/model.pt of MONAI's bundle {NAME})") from error
    network.load_state_dict({name: tensor.clone() for name, tensor in weights.items()}, assign=True)
    return network.to(device).eval().requires_grad_(False)
