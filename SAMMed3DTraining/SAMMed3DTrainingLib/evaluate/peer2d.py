"""Prepares slices and prompts for SAM, MedSAM and SAM-Med2D, as in their own public inference code.

Facts from facebookresearch/segment-anything (``predictor.py``), bowang-lab/MedSAM (``MedSAM_Inference.py``,
``pre_CT_MR.py``, ``extensions/point_prompt``; the lung window is that of Ma et al., Nat Commun 2024;15:654) and
OpenGVLab/SAM-Med2D (``predictor_sammed.py``, ``test.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from SAMMed3DLib.model.checkpoint import CheckpointError

from .sam2d import Sam2D

_MEAN = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
_STD = torch.tensor([58.395, 57.12, 57.375])[:, None, None]


@dataclass(frozen=True)
class PeerKind:
    """The differences between the public models.

    Attributes:
        title: for reports.
        image_size: edge of the input of the public weights, pixels.
        window_hu: HU shown as black and white; None takes each slice's own minimum and maximum.
        keep_aspect: scale the longer side and pad below and to the right, instead of scaling both sides.
        resize: interpolation of the input.
        standardize: grey values 0..255 by Segment Anything's mean and deviation; else 0..1.
        multimask: when three answers are asked for, of which the best by predicted IoU counts.
        mask_prompt: what of the last answer is the next mask prompt.
        corrects_boxes: whether clicks go on after a box.
        keeps_box: whether the box is given again with the clicks.
        probabilities: interpolate probabilities to the slice, instead of logits.
        adapters: whether its weights have adapters.
        download: where its weights are.
    """

    title: str
    image_size: int
    window_hu: tuple[float, float] | None
    keep_aspect: bool
    resize: Literal["bilinear", "bicubic", "nearest"]
    standardize: bool
    multimask: Literal["one_point", "always", "never"]
    mask_prompt: Literal["logits", "probabilities", "none"]
    corrects_boxes: bool
    keeps_box: bool
    probabilities: bool
    adapters: bool
    download: str


PEERS: dict[str, PeerKind] = {
    "sam": PeerKind(
        "Segment Anything",
        1024,
        None,
        True,
        "bilinear",
        True,
        "one_point",
        "logits",
        True,
        True,
        False,
        False,
        "https://github.com/facebookresearch/segment-anything#model-checkpoints",
    ),
    "medsam": PeerKind(
        "MedSAM",
        1024,
        (-910.0, 590.0),
        False,
        "bicubic",
        False,
        "never",
        "none",
        False,
        False,
        True,
        False,
        "https://github.com/bowang-lab/MedSAM",
    ),
    "sam_med2d": PeerKind(
        "SAM-Med2D",
        256,
        None,
        False,
        "nearest",
        True,
        "always",
        "probabilities",
        True,
        False,
        False,
        True,
        "https://github.com/OpenGVLab/SAM-Med2D",
    ),
}


@dataclass(frozen=True)
class SamSliceAnswer:
    """One slice's answer.

    Attributes:
        mask: (H, W) bool.
        logits: (S/4, S/4), for the next click.
        score: predicted IoU.
    """

    mask: NDArray[np.bool_]
    logits: Tensor
    score: float


class Peer2D:
    """A 2D model for slices in HU.

    Raises:
        CheckpointError: the network is of another kind.
    """

    def __init__(self, network: Sam2D, kind: PeerKind, window_hu: tuple[float, float] | None = None) -> None:
        if network.layout.adapters != kind.adapters:
            theirs = "SAM-Med2D (it has adapters)" if network.layout.adapters else "SAM or MedSAM (it has no adapters)"
            raise CheckpointError(f"the checkpoint is one of {theirs}, not of {kind.title}: name the right --model")
        self.network = network
        self.kind = kind
        self._window = window_hu or kind.window_hu

    def encode(self, slice_hu: NDArray) -> Tensor:
        """(H, W) HU to the network's embedding."""
        return self.network.encode(self.prepare(slice_hu))

    def prepare(self, slice_hu: NDArray) -> Tensor:
        """(H, W) HU as the network wants to see it: (1, 3, S, S) float32."""
        values = slice_hu.astype(np.float32)
        low, high = self._window or (float(values.min()), float(values.max()))
        grey = np.round(255.0 * np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0))
        size = self._size(slice_hu.shape)
        image = _resized(torch.from_numpy(grey)[None, None], size, self.kind.resize)[0].round().clamp(0.0, 255.0)
        if self.kind.standardize:
            image = (image - _MEAN) / _STD
        else:
            image = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-8)
        edge = self.network.layout.image_size
        return functional.pad(image.expand(3, -1, -1), (0, edge - size[1], 0, edge - size[0]))[None]

    def decode(
        self,
        embedding: Tensor,
        shape: tuple[int, int],
        points_xy: NDArray,
        positive: NDArray,
        box_xyxy: NDArray | None,
        previous: Tensor | None,
    ) -> SamSliceAnswer:
        """The object in a slice.

        Args:
            embedding: of :meth:`encode`.
            shape: (H, W) of the slice.
            points_xy: (n, 2) all clicks in it, as column and row; whole numbers are pixel centers.
            positive: (n,) bool.
            box_xyxy: (4,) first and last column and row, as continuous pixel coordinates.
            previous: logits of the last answer.
        """
        kind = self.kind
        size = self._size(shape)
        scale = torch.tensor([size[1] / shape[1], size[0] / shape[0]])
        points = torch.from_numpy(np.asarray(points_xy, np.float32).reshape(-1, 2)) * scale
        box = None
        if box_xyxy is not None and (kind.keeps_box or not len(points)):
            box = torch.from_numpy(np.asarray(box_xyxy, np.float32)) * scale.repeat(2)
        multimask = kind.multimask == "always" or (kind.multimask == "one_point" and box is None and len(points) == 1)
        prompt = None
        if previous is not None and kind.mask_prompt != "none":
            prompt = previous.sigmoid() if kind.mask_prompt == "probabilities" else previous
        labels = torch.from_numpy(np.asarray(positive, np.int64).reshape(-1))
        logits, iou = self.network.decode(embedding, points, labels, box, prompt, multimask)
        best = int(iou.argmax())
        return SamSliceAnswer(self._mask(logits[best], size, shape), logits[best], float(iou[best]))

    def _size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the slice in the network's input."""
        edge = self.network.layout.image_size
        if not self.kind.keep_aspect:
            return edge, edge
        scale = edge / max(shape)
        return int(shape[0] * scale + 0.5), int(shape[1] * scale + 0.5)

    def _mask(self, logits: Tensor, size: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
        values = logits[None, None]
        if self.kind.probabilities:
            values, threshold = values.sigmoid(), 0.5
        else:
            threshold = 0.0
            edge = self.network.layout.image_size
            values = _resized(values, (edge, edge), "bilinear", antialias=False)[..., : size[0], : size[1]]
        values = _resized(values, shape, "bilinear", antialias=False)
        return (values[0, 0] > threshold).numpy()


def _resized(image: Tensor, size: tuple[int, ...], mode: str, antialias: bool = True) -> Tensor:
    """(1, C, h, w) to another size. Shrinking is smoothed, as Pillow and scikit-image do it."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    if mode == "nearest":
        return functional.interpolate(image, size, mode="nearest")
    return functional.interpolate(image, size, mode=mode, align_corners=False, antialias=antialias)
