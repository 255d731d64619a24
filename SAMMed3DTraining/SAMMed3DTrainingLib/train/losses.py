"""Losses of promptable segmentation: what a mask lacks, and what the IoU head misjudges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mask_loss(logits: Tensor, truth: Tensor, cross_entropy_weight: float = 4.0) -> Tensor:
    """Soft Dice loss plus weighted binary cross-entropy, per mask.

    Args:
        logits: (B, M, X, Y, Z).
        truth: (B, 1, X, Y, Z), 0 to 1 (the share of a cell that is inside).

    Returns:
        (B, M).
    """
    truth = truth.to(logits.dtype).expand_as(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=(2, 3, 4))
    probability = logits.sigmoid()
    overlap = (probability * truth).sum(dim=(2, 3, 4))
    total = probability.square().sum(dim=(2, 3, 4)) + truth.sum(dim=(2, 3, 4))
    return 1 - (2 * overlap + 1) / (total + 1) + cross_entropy_weight * cross_entropy


@torch.no_grad()
def true_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of ``logits > 0`` with the truth, (B, M); 0 where both are empty.

    Args:
        logits: (B, M, X, Y, Z).
        truth: (B, 1, X, Y, Z), bool.
    """
    mask = logits > 0
    both = (mask & truth).sum(dim=(2, 3, 4)).float()
    either = (mask | truth).sum(dim=(2, 3, 4)).float()
    return both / either.clamp(min=1)
