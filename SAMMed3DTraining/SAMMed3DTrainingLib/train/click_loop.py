"""The training step of a promptable network: encode once, click several times, compute the loss of every answer.

As SAM and SAM-Med3D train (Kirillov et al. 2023; Wang et al. 2023): the first click, then clicks into the error of the
last mask, whose logits are the next prompt. Unlike in the public SAM-Med3D loop, every sample is its own nodule, the
IoU head learns the true IoU, some samples show no nodule at all, and the logits between clicks carry no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from SAMMed3DLib.model.sam import Sam3D

from ..data.clicks import Click, ClickMethod, ClickSimulator, bounding_box
from ..data.nodule_samples import Sample

LOGIT_LIMIT = 12.0
CLICK_COUNTS = (1, 2, 3, 4, 5, 6, 8)
CLICK_COUNT_SHARES = (0.1, 0.2, 0.2, 0.2, 0.12, 0.1, 0.08)
_NEXT_CLICKS: tuple[ClickMethod, ...] = ("random", "challenge", "jitter")
_EROSIONS = 16
BOX_SHARE, _BOX_ALONE_SHARE, ROUGH_SHARE = 0.2, 0.12, 0.1


def draw_click_count(rng: np.random.Generator) -> int:
    """Draws the number of clicks of a step."""
    return int(rng.choice(CLICK_COUNTS, p=CLICK_COUNT_SHARES))


def to_device(arrays: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Stacks arrays of one shape to a tensor (B, ...) on a device; to a GPU through pinned memory, without waiting."""
    tensor = torch.from_numpy(np.stack(arrays))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class ClickLoop(nn.Module):
    """Computes the loss of a batch; a module, so that DistributedDataParallel sees one forward pass per step.

    All randomness of a sample comes from its own generator, and the loss is a mean over the samples: a batch gives the
    same gradient however it is divided among processes.

    Args:
        model: the network; its profile decides which prompts it is shown.
        on_device: place later clicks where the network computes (:func:`device_clicks`), so that no step waits for a
            GPU; None does so on GPUs.
    """

    def __init__(self, model: Sam3D, on_device: bool | None = None) -> None:
        super().__init__()
        self.model = model
        self.on_device = on_device

    def forward(
        self,
        samples: Sequence[Sample],
        clicks: int,
        rngs: Sequence[np.random.Generator],
        embedding: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss to differentiate and figures to log.

        Args:
            samples: of one batch.
            clicks: number of clicks, the first included; the same for all.
            rngs: one generator a sample.
            embedding: (B, ...) of the samples' crops, where it is known (a frozen encoder).

        Returns:
            a scalar, and ``dice_first`` and ``dice_last`` over the nodules (NaN without any), ``iou_error``.
        """
        device = self.model.device
        truth = to_device([sample.truth for sample in samples], device)[:, None]
        goal = Goal(truth, samples)
        is_nodule = truth.flatten(1).any(dim=1)
        prompts = self.prompts_of(samples, rngs)
        if embedding is None:
            embedding = self.model.image_encoder(to_device([sample.crop for sample in samples], device))
        total = embedding.new_zeros((), dtype=torch.float32)
        figures: dict[str, Tensor] = {}
        learned = {0, clicks // 2, clicks - 1}
        for click in range(clicks):
            learn = click in learned
            with torch.set_grad_enabled(learn and torch.is_grad_enabled()):
                image = embedding if learn else embedding.detach()
                masks, iou = self.answer(image, prompts.points(), prompts.boxes(), prompts.previous)
            logits = goal.only_known(_on_crop(masks[:, :1].detach(), truth))
            if learn:
                loss, error = self._loss(masks, logits, iou, goal, is_nodule, alternatives=click == 0)
                total = total + loss / len(learned)
                if click == 0:
                    total = total + self.further_loss(embedding, prompts, masks, goal, figures) / len(learned)
                    figures["dice_first"] = _dice(logits, truth, is_nodule)
                if click == clicks - 1:
                    figures |= {"dice_last": _dice(logits, truth, is_nodule), "iou_error": error}
            if click + 1 < clicks:
                prompts.click_again(masks[:, :1].detach(), (logits > 0)[:, 0], truth[:, 0])
        return total, {name: float(value) for name, value in figures.items()}

    def prompts_of(self, samples: Sequence[Sample], rngs: Sequence[np.random.Generator]) -> Prompts:
        """The prompts of a batch before the first answer."""
        on_device = self.model.device.type == "cuda" if self.on_device is None else self.on_device
        return (_DevicePrompts if on_device else Prompts)(samples, rngs, self.model)

    def further_loss(
        self, embedding: Tensor, prompts: Prompts, masks: Tensor, goal: Goal, figures: dict[str, Tensor]
    ) -> Tensor | float:
        """What else the first answer has to learn: nothing here, more in the laboratory."""
        return 0.0

    def answer(
        self, embedding: Tensor, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, previous: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (B, M, ...) and predicted IoU (B, M); M is 1 without multimask output."""
        encoder: Any = self.model.prompt_encoder
        decoder: Any = self.model.mask_decoder
        sparse, dense = encoder(points=points, boxes=boxes, masks=previous)
        if self.model.profile.multimask:
            return decoder.predict_all(embedding, encoder.get_dense_pe(), sparse, dense)
        return decoder(
            image_embeddings=embedding,
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )

    def _loss(
        self, masks: Tensor, logits: Tensor, iou: Tensor, goal: Goal, is_nodule: Tensor, alternatives: bool
    ) -> tuple[Tensor, Tensor]:
        """Mean loss over the samples and mean error of the predicted IoU. A click on no nodule teaches only the IoU
        head: whatever mask it gives, its IoU is 0. ``logits`` are those of the first mask on the crop."""
        if torch.is_grad_enabled():
            # Maps of the crop's size are a quarter of a step's memory and cheap to compute again.
            loss = checkpoint(
                crop_loss, masks[:, :1], goal.truth, goal.known, use_reentrant=False, preserve_rng_state=False
            )
        else:
            loss = crop_loss(masks[:, :1], goal.truth, goal.known)
        loss = loss * is_nodule
        target = true_iou(logits, goal.truth)
        error = (iou[:, :1].detach().float() - target).abs().mean()
        if alternatives and masks.shape[1] > 1:
            # They are compared at their own resolution, with the share of each cell that is nodule.
            size = masks.shape[2], masks.shape[3], masks.shape[4]
            cover = F.adaptive_avg_pool3d(goal.truth.float(), size)
            known = None if goal.known is None else F.adaptive_avg_pool3d(goal.known.float(), size)
            others = masks[:, 1:].float()
            loss = loss + 0.5 * mask_loss(others, cover, known=known).min(dim=1).values * is_nodule
            seen = others.detach() if known is None else others.detach().where(known > 0.5, -LOGIT_LIMIT)
            target = torch.cat((target, true_iou(seen, cover > 0.5)), dim=1)
        judged_loss = (iou[:, : target.shape[1]].float() - target).square().mean(dim=1)
        return (loss + judged_loss).mean(), error


class Goal:
    """The target of a batch: the truth, and where it is known; (B, 1, X, Y, Z)."""

    def __init__(self, truth: Tensor, samples: Sequence[Sample]) -> None:
        self.truth = truth
        self.known: Tensor | None = None
        if any(sample.known is not None for sample in samples):
            known = [np.ones_like(sample.truth) if sample.known is None else sample.known for sample in samples]
            self.known = to_device(known, truth.device)[:, None]

    def only_known(self, logits: Tensor) -> Tensor:
        """Removes positive logits where nothing is known."""
        return logits if self.known is None else logits.where(self.known, -LOGIT_LIMIT)


def _on_crop(masks: Tensor, truth: Tensor) -> Tensor:
    """Interpolates low-resolution logits to the resolution of the truth."""
    return F.interpolate(masks, truth.shape[2:], mode="trilinear", align_corners=False)


def crop_loss(masks: Tensor, truth: Tensor, known: Tensor | None) -> Tensor:
    """Mask loss (B,) of low-resolution logits (B, 1, ...), compared on the crop."""
    return mask_loss(_on_crop(masks, truth).float(), truth, known=known)[:, 0]


class Prompts:
    """The growing prompts of a batch: clicks, boxes and previous logits.

    Attributes:
        next_click_shares: how often later clicks are a "random", a "challenge" and a "jitter" one.
    """

    next_click_shares = (0.5, 0.25, 0.25)

    def __init__(self, samples: Sequence[Sample], rngs: Sequence[np.random.Generator], model: Sam3D) -> None:
        self._samples, self._rngs = samples, rngs
        self._profile, self._device = model.profile, model.device
        self._simulators = [{method: ClickSimulator(method, seed=rng) for method in _NEXT_CLICKS} for rng in rngs]
        self._points = [[sample.click] for sample in samples]
        self._labels = [[1] for _ in samples]
        self._boxes = torch.full((len(samples), 6), math.nan)
        cells = model.low_res_size
        # Boxes of some samples only need an encoder that takes NaN for "no box".
        mixed_boxes = self._profile.boxes and self._profile.prompt_rule == "all"
        previous = torch.zeros(len(samples), 1, *cells)
        for n, (sample, rng) in enumerate(zip(samples, rngs, strict=True)):
            draw = rng.random()
            if not sample.truth.any():
                continue
            if mixed_boxes and draw < BOX_SHARE:
                self._boxes[n] = _drawn_box(sample.truth, rng)
                if draw < _BOX_ALONE_SHARE:
                    self._points[n], self._labels[n] = [], []
            elif BOX_SHARE <= draw < BOX_SHARE + ROUGH_SHARE:
                previous[n] = self._rough_start(n, sample.truth, rng, cells)
        self.previous = previous.to(self._device)

    def points(self) -> tuple[Tensor, Tensor]:
        """Coordinates (B, N, 3) and labels (B, N), padded with -1; all clicks or the newest, as the profile says."""
        newest = self._profile.prompt_rule == "newest"
        points = [p[-1:] if newest else p for p in self._points]
        labels = [p[-1:] if newest else p for p in self._labels]
        most = max(max(len(p) for p in points), 1)
        coords = torch.zeros(len(points), most, 3)
        signs = torch.full((len(points), most), -1)
        for n, (its_points, its_labels) in enumerate(zip(points, labels, strict=True)):
            for m, (point, label) in enumerate(zip(its_points, its_labels, strict=True)):
                coords[n, m] = torch.from_numpy(np.asarray(point, np.float32))
                signs[n, m] = label
        return coords.to(self._device), signs.to(self._device)

    def boxes(self) -> Tensor | None:
        """(B, 6) with NaN rows, or None without any box."""
        return self._boxes.to(self._device) if torch.isfinite(self._boxes).any() else None

    def click_again(self, low_res: Tensor, found: Tensor, truth: Tensor) -> None:
        """Adds the next click of every nodule, into the error of its mask.

        Args:
            low_res: logits (B, 1, ...) of the last answer, the next prompt.
            found, truth: masks (B, X, Y, Z) on the crop, bool.
        """
        self.previous = low_res.float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        masks = found.cpu().numpy()
        for n, sample in enumerate(self._samples):
            if sample.truth.any():
                self._add(n, self._next_click(n, sample.truth, masks[n]))

    def _next_click(self, n: int, truth: np.ndarray, mask: np.ndarray) -> Click | None:
        """Draws the next click of a sample, into the error of its mask."""
        method = _NEXT_CLICKS[self._rngs[n].choice(3, p=self.next_click_shares)]
        return self._simulators[n][method].next_click(truth, mask)

    def _rough_start(self, n: int, truth: np.ndarray, rng: np.random.Generator, cells: tuple[int, int, int]) -> Tensor:
        """Makes logits of a rough mask to be corrected, and adds its first correcting click."""
        rough = _rough(truth, rng)
        click = self._simulators[n]["random"].next_click(truth, rough)
        if click is not None:
            self._points[n], self._labels[n] = [], []
            self._add(n, click)
        cover = F.adaptive_avg_pool3d(torch.from_numpy(rough)[None, None].float(), cells)
        return (cover[0] * 2 - 1) * rng.uniform(4, 10)

    def _add(self, n: int, click: Click | None) -> None:
        if click is not None:
            self._points[n].append(np.asarray(click[0], np.float32))
            self._labels[n].append(int(click[1]))


class _DevicePrompts(Prompts):
    """Prompts whose later clicks are placed on the device and never leave it."""

    def __init__(self, samples: Sequence[Sample], rngs: Sequence[np.random.Generator], model: Sam3D) -> None:
        super().__init__(samples, rngs, model)
        self._coords, self._signs = super().points()
        self._clicked = torch.tensor([bool(sample.truth.any()) for sample in samples]).to(self._device)

    def points(self) -> tuple[Tensor, Tensor]:
        """As :meth:`Prompts.points`."""
        newest = slice(-1, None) if self._profile.prompt_rule == "newest" else slice(None)
        return self._coords[:, newest], self._signs[:, newest]

    def click_again(self, low_res: Tensor, found: Tensor, truth: Tensor) -> None:
        """As :meth:`Prompts.click_again`, without waiting for the device."""
        self.previous = low_res.float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        draws = to_device([rng.random(2, dtype=np.float32) for rng in self._rngs], self._device)
        coords, signs = device_clicks(truth, found, draws)
        given = self._clicked & (signs >= 0)
        # A network that sees the newest click only is shown the last one again where there is no new one.
        again = self._profile.prompt_rule == "newest"
        last_coords, last_signs = self._coords[:, -1], self._signs[:, -1]
        coords = coords.where(given[:, None], last_coords if again else torch.zeros_like(coords))
        signs = signs.where(given, last_signs if again else torch.full_like(signs, -1))
        self._coords = torch.cat((self._coords, coords[:, None]), dim=1)
        self._signs = torch.cat((self._signs, signs[:, None]), dim=1)


@torch.no_grad()
def device_clicks(truth: Tensor, found: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Places the next clicks, on the masks' device and without waiting for it.

    They go into the missed or the wrongly marked voxels, whichever lie deeper: half of them anywhere in the inner half
    of them (the "random" of data/clicks.py), a quarter on their deepest voxel, a quarter anywhere on them.
    Depth is counted in erosions, up to 16 voxels, and without components: that needs no decision of the processor's.

    Args:
        truth, found: masks (B, X, Y, Z), bool.
        draws: (B, 2) uniform in [0, 1): which kind of click, and which of its voxels.

    Returns:
        crop indices (B, 3) float32, and signs (B,): 1 where the nodule was missed, 0 where there is none, -1 where
        nothing is wrong.
    """
    depths = torch.stack((_depth(truth & ~found), _depth(found & ~truth)), dim=1)
    deepest = depths.flatten(2).amax(dim=2)
    side = deepest.argmax(dim=1)
    own = depths[torch.arange(len(side), device=side.device), side].flatten(1)
    most = deepest.amax(dim=1)
    least = torch.where(draws[:, 0] < 0.5, most / 2, torch.where(draws[:, 0] < 0.75, most - 0.5, 0.0)).clamp(min=0)
    number = (own > least[:, None]).cumsum(dim=1, dtype=torch.int32)
    count = number[:, -1]
    wanted = torch.minimum((draws[:, 1] * count).to(torch.int32) + 1, count)
    place = torch.searchsorted(number, wanted[:, None])[:, 0].clamp(max=own.shape[1] - 1)
    _, y, z = truth.shape[1:]
    coords = torch.stack((place // (y * z), place // z % y, place % z), dim=1).float()
    return coords, torch.where(count > 0, (side == 0).long(), -1)


def _depth(mask: Tensor) -> Tensor:
    """Counts the erosions that each voxel of masks (B, X, Y, Z) survives, 1 to 17; 0 outside. The border erodes too."""
    left = mask[:, None].float()
    depth = left.clone()
    for step in range(_EROSIONS):
        outside = F.pad(1 - left, (1,) * 6, value=1.0)
        if step % 2:  # cubes and octahedra in turns are nearly round
            reached = F.max_pool3d(outside, 3, stride=1)
        else:
            middle = outside[:, :, 1:-1, 1:-1, 1:-1]
            lines = (
                F.max_pool3d(outside[:, :, :, 1:-1, 1:-1], (3, 1, 1), stride=1),
                F.max_pool3d(outside[:, :, 1:-1, :, 1:-1], (1, 3, 1), stride=1),
                F.max_pool3d(outside[:, :, 1:-1, 1:-1, :], (1, 1, 3), stride=1),
            )
            reached = torch.stack((middle, *lines)).amax(dim=0)
        left = 1 - reached
        depth += left
    return depth[:, 0]


def _drawn_box(truth: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Draws a bounding box as a hand would, (6,): lowest and highest corner as crop indices."""
    box = bounding_box(truth)
    assert box is not None
    low = np.array([part.start for part in box], dtype=np.float64)
    high = np.array([part.stop - 1 for part in box], dtype=np.float64)
    slack = 0.5 + 0.08 * (high - low)
    low, high = low + rng.normal(0, slack), high + rng.normal(0, slack)
    return torch.from_numpy(np.concatenate((np.minimum(low, high), np.maximum(low, high)))).float()


def _rough(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Displaces, grows or shrinks the truth to a mask to be corrected."""
    shift = np.round(rng.normal(0, 1.2, 3)).astype(int)
    rough = np.roll(truth, shift, axis=(0, 1, 2))
    blurred = F.avg_pool3d(torch.from_numpy(rough)[None, None].float(), 5, stride=1, padding=2)[0, 0].numpy()
    return blurred > rng.uniform(0.15, 0.85)


@torch.no_grad()
def _dice(logits: Tensor, truth: Tensor, is_nodule: Tensor) -> Tensor:
    """Mean Dice over the nodules, a scalar; NaN without any."""
    mask = logits > 0
    both = (mask & truth).flatten(1).sum(dim=1)
    dice = 2 * both / (mask.flatten(1).sum(dim=1) + truth.flatten(1).sum(dim=1)).clamp(min=1)
    return (dice * is_nodule).sum() / is_nodule.sum()


def mask_loss(logits: Tensor, truth: Tensor, known: Tensor | None = None) -> Tensor:
    """Computes soft Dice loss plus weighted binary cross-entropy, per mask.

    Args:
        logits: (B, M, X, Y, Z).
        truth: (B, 1, X, Y, Z), 0 to 1 (the share of a cell that is inside).
        known: (B, 1, X, Y, Z), 0 to 1, how much a place counts; None = everything counts.

    Returns:
        (B, M).
    """
    truth = truth.to(logits.dtype).expand_as(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = logits.sigmoid()
    if known is not None:
        known = known.to(logits.dtype)
        cross_entropy, probability, truth = cross_entropy * known, probability * known, truth * known
    cross_entropy = cross_entropy.mean(dim=(2, 3, 4))
    overlap = (probability * truth).sum(dim=(2, 3, 4))
    total = probability.square().sum(dim=(2, 3, 4)) + truth.sum(dim=(2, 3, 4))
    return 1 - (2 * overlap + 1) / (total + 1) + 4 * cross_entropy


@torch.no_grad()
def true_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """Computes the intersection over union of ``logits > 0`` with the truth, (B, M); 0 where both are empty.

    Args:
        logits: (B, M, X, Y, Z).
        truth: (B, 1, X, Y, Z), bool.
    """
    mask = logits > 0
    both = (mask & truth).sum(dim=(2, 3, 4)).float()
    either = (mask | truth).sum(dim=(2, 3, 4)).float()
    return both / either.clamp(min=1)
