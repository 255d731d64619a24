"""The training step of the pretraining: two first clicks must agree, and clicks that correct nothing do no harm."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from SAMMed3DLib.model.sam import Sam3D
from SAMMed3DTrainingLib.data.clicks import Click, bounding_box
from SAMMed3DTrainingLib.data.nodule_samples import Sample
from SAMMed3DTrainingLib.train.click_loop import BOX_SHARE, ROUGH_SHARE, ClickLoop, Goal, Prompts, crop_loss


class PretrainingLoop(ClickLoop):
    """Computes the loss of a batch as :class:`ClickLoop`, on the processor's clicks.

    Args:
        model: the network.
        agreement: weight of the disagreement of two first clicks' masks of the same object; 0 = one first click.
        needless: share of later clicks that correct nothing, where the mask inside or just beside it is right.
    """

    def __init__(self, model: Sam3D, agreement: float = 0.0, needless: float = 0.0) -> None:
        super().__init__(model, on_device=False)
        self.agreement, self.needless = agreement, needless

    def prompts_of(self, samples: Sequence[Sample], rngs: Sequence[np.random.Generator]) -> Prompts:
        return _CheckedPrompts(samples, rngs, self.model, self.needless)

    def further_loss(
        self, embedding: Tensor, prompts: Prompts, masks: Tensor, goal: Goal, figures: dict[str, Tensor]
    ) -> Tensor | float:
        """Loss of the other first clicks' masks, and their disagreement with ``masks``; a scalar."""
        assert isinstance(prompts, _CheckedPrompts)
        if not self.agreement or not prompts.twice.any():
            return 0.0
        chosen = prompts.twice.to(embedding.device)
        points = prompts.second_clicks()
        again, _ = self.answer(embedding[chosen], points, None, torch.zeros_like(prompts.previous[chosen]))
        known = None if goal.known is None else goal.known[chosen]
        lacking = (
            checkpoint(
                crop_loss, again[:, :1], goal.truth[chosen], known, use_reentrant=False, preserve_rng_state=False
            )
            if torch.is_grad_enabled()
            else crop_loss(again[:, :1], goal.truth[chosen], known)
        )
        apart = disagreement(masks[chosen, :1], again[:, :1])
        figures["apart"] = apart.detach().mean()
        return (0.5 * lacking + self.agreement * apart).sum() / len(masks)


class _CheckedPrompts(Prompts):
    """The prompts of a batch, with needless clicks among the later ones, and more into the middle of the error."""

    next_click_shares = (0.3, 0.5, 0.2)

    def __init__(
        self, samples: Sequence[Sample], rngs: Sequence[np.random.Generator], model: Sam3D, needless: float
    ) -> None:
        starts = [copy.deepcopy(rng).random() for rng in rngs]  # what Prompts draws first of all
        super().__init__(samples, rngs, model)
        self._needless = needless
        self.twice = torch.tensor(
            [
                sample.second_click is not None and (start >= BOX_SHARE + ROUGH_SHARE or not sample.truth.any())
                for sample, start in zip(samples, starts, strict=True)
            ]
        )

    def second_clicks(self) -> tuple[Tensor, Tensor]:
        """Coordinates (b, 1, 3) and labels (b, 1) of the other first clicks, of the samples in ``twice``."""
        clicks = [
            sample.second_click
            for sample, twice in zip(self._samples, self.twice, strict=True)
            if twice and sample.second_click is not None
        ]
        coords = torch.from_numpy(np.stack(clicks).astype(np.float32))[:, None]
        return coords.to(self._device), torch.ones(coords.shape[:2], dtype=torch.int64, device=self._device)

    def _next_click(self, n: int, truth: np.ndarray, mask: np.ndarray) -> Click | None:
        # The generator is asked only where there are such clicks, so that others' runs stay as they were.
        if self._needless and self._rngs[n].random() < self._needless:
            click = needless_click(truth, mask, self._rngs[n])
            if click is not None:
                return click
        return super()._next_click(n, truth, mask)


def needless_click(truth: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Click | None:
    """Draws a click that confirms the mask: positive inside, or negative up to three voxels beside it; None where the
    mask is right nowhere. People click to make sure, and the mask must not suffer from it."""
    box = bounding_box(truth)
    assert box is not None
    around = tuple(slice(max(part.start - 4, 0), part.stop + 4) for part in box)
    truth, mask = truth[around], mask[around]
    positive = rng.random() < 0.5
    if positive:
        places = np.argwhere(truth & mask)
    else:
        near = F.max_pool3d(torch.from_numpy(truth)[None, None].float(), 7, stride=1, padding=3)[0, 0].numpy() > 0
        places = np.argwhere(near & ~truth & ~mask)
    if not len(places):
        return None
    place = places[rng.integers(len(places))] + [part.start for part in around]
    return tuple(int(n) for n in place), positive


def disagreement(first: Tensor, second: Tensor) -> Tensor:
    """Computes one minus the soft Dice between two maps of logits (B, 1, X, Y, Z) of the same object: (B,)."""
    a, b = first.float().sigmoid().flatten(1), second.float().sigmoid().flatten(1)
    return 1 - (2 * (a * b).sum(dim=1) + 1) / (a.square().sum(dim=1) + b.square().sum(dim=1) + 1)
