"""The result of a click: a mask block in the volume's voxels, and the state that the next click goes on from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .field import Part
from .geometry import block_slices
from .preprocessing import Crop


@dataclass(frozen=True, eq=False)
class Prediction:
    """A segmented object.

    Attributes:
        mask: (nk, nj, ni) uint8, 1 inside; the smallest block that holds the object. Where nothing was found it is
            one voxel of value 0.
        offset_kji: volume index (k, j, i) of the block's first voxel.
        score: predicted IoU in [0, 1], None where the checkpoint's IoU head was never trained.
        logits: (32, 32, 32) float32, the decoder's newest low-resolution mask on ``crop``.
        crop: the crop those logits belong to.
        parts: every crop's logits that make up the mask, the newest last.
        alternatives: with multimask output, the other answers, the best first.
        points_ras, labels: (n, 3) mm and (n,) bool, the clicks it answers.
        warnings: reasons why it is not to be trusted, one sentence each; may be empty.
        volume_range: smallest and largest volume, relative to its own, that clicks elsewhere in the object give; None
            until :meth:`.predictor.SamPredictor3D.with_volume_range` has asked for them.
    """

    mask: NDArray[np.uint8]
    offset_kji: tuple[int, int, int]
    score: float | None
    logits: NDArray[np.float32]
    crop: Crop
    parts: tuple[Part, ...] = ()
    alternatives: tuple[Prediction, ...] = field(default=(), repr=False)
    points_ras: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)), repr=False)
    labels: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool), repr=False)
    warnings: tuple[str, ...] = ()
    volume_range: tuple[float, float] | None = None

    @property
    def voxels(self) -> int:
        """Number of voxels inside."""
        return int(np.count_nonzero(self.mask))

    @property
    def slices_kji(self) -> tuple[slice, slice, slice]:
        """The block's place: ``volume[p.slices_kji]`` has the shape of ``p.mask``."""
        return block_slices(self)

    def full_mask(self, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """The mask in a volume of ``shape`` [k, j, i], uint8."""
        volume = np.zeros(shape, dtype=np.uint8)
        volume[self.slices_kji] = self.mask
        return volume
