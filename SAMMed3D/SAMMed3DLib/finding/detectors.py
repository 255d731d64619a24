"""Detectors name the places of a volume that may be nodules: ours is the blob filter (:mod:`.candidates`), the other is
MONAI's public RetinaNet (:mod:`..model.retina_net`), whose boxes become places where a user brings its weights.

Preprocessing, anchors, box codes, windows and suppression are those of the bundle ``lung_nodule_ct_detection``: axes R,
A, S, 0.703125 x 0.703125 x 1.25 mm, -1024..300 HU to 0..1, windows of 512 x 512 x 192 voxels with an overlap of 0.25,
boxes above 0.02, the best 1000 of a level, IoU at most 0.22, 300 a scan. What differs: only the box around the lungs is
looked at, since the rest of the body costs twice as much, and oblique volumes are set upright.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..inference.geometry import as_affine, transform_points
from ..inference.sampling import sample_grid
from ..model.retina_net import ANCHORS, DIVISIBLE, GFLOP_PER_MEGAVOXEL, RetinaNet
from .candidates import LIMIT, Candidate
from .coarse_grid import Progress, report
from .lungs import LungMask, extent_around

SPACING_MM = (0.703125, 0.703125, 1.25)
WINDOW = (512, 512, 192)
OVERLAP = 0.25
LOWEST = 0.02
"""Boxes with a lower probability are not named."""
_ANCHORS = ((6.0, 8.0, 4.0), (8.0, 6.0, 5.0), (10.0, 10.0, 6.0))
_SCALES = (1.0, 2.0, 4.0)
_HU = (-1024.0, 300.0)
_BEST_OF_LEVEL, _LARGEST_IOU, _MOST = 1000, 0.22, 300
#: Natural logarithm of the largest factor by which a box may be larger than its anchor.
_LARGEST_CODE = math.log(1000.0 / 16.0)
_MARGIN_MM = 15.0


class Detector(Protocol):
    """Names places that may be nodules, the likeliest first; arguments as of :func:`.candidates.find_candidates`."""

    def __call__(
        self,
        array_kji: NDArray,
        ijk_to_ras: ArrayLike,
        lungs: LungMask | None,
        *,
        min_diameter_mm: float,
        max_diameter_mm: float,
        limit: int,
        progress: Progress | None,
    ) -> list[Candidate]: ...


@dataclass(frozen=True)
class Boxes:
    """Boxes in an image.

    Attributes:
        corners: (n, 6) lowest and highest x, y, z in voxel indices.
        scores: (n,) probabilities, falling.
    """

    corners: Tensor
    scores: Tensor


class RetinaNetDetector:
    """MONAI's detector as a :class:`Detector`.

    Args:
        network: with its weights.
        window: largest part of the image that the network sees at once, voxels; multiples of ``DIVISIBLE``.

    Attributes:
        tflop: operations of the last search, in 10^12.
    """

    def __init__(self, network: RetinaNet, window: Sequence[int] = WINDOW) -> None:
        self._network = network
        self._window = tuple(window)
        self.tflop = 0.0

    def __call__(
        self,
        array_kji: NDArray,
        ijk_to_ras: ArrayLike,
        lungs: LungMask | None = None,
        *,
        min_diameter_mm: float = 3.0,
        max_diameter_mm: float = 60.0,
        limit: int = LIMIT,
        progress: Progress | None = None,
    ) -> list[Candidate]:
        """Finds candidates; their ``detection`` is the detector's probability, the likeliest first.

        Raises:
            InputError: the matrix is none.
            PredictionCancelled: ``progress`` returned False.
        """
        affine = as_affine(ijk_to_ras)
        image, to_ras = _upright(array_kji, affine, lungs)
        boxes = self.detect(image, progress)
        low, high = boxes.corners[:, :3].double().numpy(), boxes.corners[:, 3:].double().numpy()
        centers = transform_points(to_ras, (low + high) / 2.0)
        diameters = ((high - low) * SPACING_MM).mean(axis=1)
        return [
            Candidate(
                (float(center[0]), float(center[1]), float(center[2])),
                float(diameter),
                math.nan,
                "solid",
                detection=float(score),
            )
            for center, diameter, score in zip(centers, diameters, boxes.scores.numpy(), strict=True)
            if min_diameter_mm / 1.5 <= diameter <= 1.5 * max_diameter_mm
        ][: max(limit, 0)]

    @torch.inference_mode()
    def detect(self, image: Tensor, progress: Progress | None = None) -> Boxes:
        """Detects boxes in an image (X, Y, Z) of intensities 0..1."""
        size = image.shape
        edges = [-(-n // step) * step for n, step in zip(size, DIVISIBLE, strict=True)]
        padded = F.pad(image, [each for n, edge in zip(size[::-1], edges[::-1], strict=True) for each in (0, edge - n)])
        window = [min(n, edge) for n, edge in zip(self._window, edges, strict=True)]
        starts = list(itertools.product(*(_starts(edge, n) for edge, n in zip(edges, window, strict=True))))
        self.tflop = len(starts) * math.prod(window) * GFLOP_PER_MEGAVOXEL / 1e9
        done, pieces = 0, self._network.ticks(window) * len(starts)

        def tick() -> None:
            nonlocal done
            done += 1
            report(progress, done, pieces)

        sums: list[tuple[Tensor, Tensor, Tensor]] = []
        for start in starts:
            part = padded[tuple(slice(a, a + n) for a, n in zip(start, window, strict=True))]
            logits, codes = self._network(part[None, None].to(next(self._network.parameters()).device), tick)
            for level, (odds, code) in enumerate(zip(logits, codes, strict=True)):
                odds, code = odds[0].float().cpu(), code[0].float().cpu()
                steps = [n // cells for n, cells in zip(window, odds.shape[1:], strict=True)]
                if level == len(sums):
                    cells = [edge // step for edge, step in zip(edges, steps, strict=True)]
                    sums.append(
                        (torch.zeros(ANCHORS, *cells), torch.zeros(6 * ANCHORS, *cells), torch.zeros(1, *cells))
                    )
                inside = [
                    slice(a // step, a // step + n) for a, step, n in zip(start, steps, odds.shape[1:], strict=True)
                ]
                where = (slice(None), *inside)
                for total, value in zip(sums[level], (odds, code, torch.ones(1)), strict=True):
                    total[where] += value
        report(progress, pieces, pieces)
        means = [(odds / count, code / count) for odds, code, count in sums]
        return _selected(means, edges, size)


def _upright(array_kji: NDArray, affine: NDArray, lungs: LungMask | None) -> tuple[Tensor, NDArray[np.float64]]:
    """The image (X, Y, Z) around the lungs that the network sees, axes R, A, S, and its matrix to RAS mm."""
    low, high = extent_around(array_kji.shape, affine, lungs, _MARGIN_MM)
    spacing = np.array(SPACING_MM)
    size = np.maximum(np.round((high - low) / spacing), 1).astype(int)
    to_ras = np.diag([*SPACING_MM, 1.0])
    to_ras[:3, 3] = (low + high) / 2.0 - spacing * (size - 1) / 2.0
    shape = (int(size[0]), int(size[1]), int(size[2]))
    hu = sample_grid(array_kji.transpose(2, 1, 0), np.linalg.inv(affine) @ to_ras, shape, _HU[0])
    np.clip(hu, *_HU, out=hu)
    hu -= np.float32(_HU[0])
    hu /= np.float32(_HU[1] - _HU[0])
    return torch.from_numpy(np.ascontiguousarray(hu, dtype=np.float32)), to_ras


def _starts(edge: int, window: int) -> list[int]:
    """First voxels of the windows along an axis; the last one ends with the image."""
    step = max(1, int(window * (1.0 - OVERLAP)))
    count = 1 if edge <= window else -(-(edge - window) // step) + 1
    return [min(number * step, edge - window) for number in range(count)]


def anchors_of(cells: Sequence[int], steps: Sequence[int], scale: float) -> Tensor:
    """(cells * 3, 6) boxes of a level: around the middle of each cell, x slowest, then y, z and the three shapes."""
    centers = torch.meshgrid(
        *(torch.arange(n) * step + step // 2 for n, step in zip(cells, steps, strict=True)), indexing="ij"
    )
    middle = torch.stack(centers, dim=-1).reshape(-1, 1, 3).float()
    half = torch.round(torch.tensor(_ANCHORS) * scale / 2.0)
    return torch.cat([middle - half, middle + half], dim=-1).reshape(-1, 6)


def decoded(codes: Tensor, anchors: Tensor) -> Tensor:
    """(n, 6) boxes from codes (n, 6) of anchors: centers moved by shares of the edges, edges by their logarithms."""
    edges = anchors[:, 3:] - anchors[:, :3]
    centers = anchors[:, :3] + 0.5 * edges + codes[:, :3] * edges
    half = 0.5 * torch.exp(codes[:, 3:].clamp(max=_LARGEST_CODE)) * edges
    return torch.cat([centers - half, centers + half], dim=1)


def not_suppressed(corners: Tensor, scores: Tensor) -> Tensor:
    """Indices of the boxes that no better one covers, the best first."""
    order = torch.argsort(scores, descending=True, stable=True)
    volumes = (corners[:, 3:] - corners[:, :3]).prod(dim=1)
    kept: list[int] = []
    while len(order) and len(kept) < _MOST:
        best, others = order[0], order[1:]
        kept.append(int(best))
        low = torch.maximum(corners[others, :3], corners[best, :3])
        high = torch.minimum(corners[others, 3:], corners[best, 3:])
        common = (high - low).clamp(min=0.0).prod(dim=1)
        union = volumes[others] + volumes[best] - common
        order = others[common / (union + torch.finfo(torch.float32).eps) <= _LARGEST_IOU]
    return torch.tensor(kept, dtype=torch.long)


def _selected(levels: Sequence[tuple[Tensor, Tensor]], edges: Sequence[int], size: Sequence[int]) -> Boxes:
    """The boxes of log odds (3, ...) and codes (18, ...) of all levels, within an image of ``size`` voxels."""
    corners, scores = [], []
    for (odds, codes), scale in zip(levels, _SCALES, strict=True):
        cells = odds.shape[1:]
        steps = [edge // n for edge, n in zip(edges, cells, strict=True)]
        probability = torch.sigmoid(odds).permute(1, 2, 3, 0).reshape(-1)
        above = torch.where(probability > LOWEST)[0]
        values, best = probability[above].topk(min(_BEST_OF_LEVEL, len(above)))
        chosen = above[best]
        code = codes.unflatten(0, (ANCHORS, 6)).permute(2, 3, 4, 0, 1).reshape(-1, 6)[chosen]
        boxes = decoded(code, anchors_of(cells, steps, scale)[chosen])
        limits = torch.tensor([*size, *size], dtype=torch.float32)
        boxes = torch.minimum(boxes.clamp(min=0.0), limits)
        whole = (boxes[:, 3:] >= boxes[:, :3] + 1.0).all(dim=1)
        corners.append(boxes[whole])
        scores.append(values[whole])
    all_corners, all_scores = torch.cat(corners), torch.cat(scores)
    kept = not_suppressed(all_corners, all_scores)
    return Boxes(all_corners[kept], all_scores[kept])
