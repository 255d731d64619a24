"""Judges what the network answered to a click: whether to believe it, and which of several answers to keep.

Rules without a network, so that they can be tested and tuned: an answer should agree with every click, hold the object
whole, and change what the newest click asked for rather than what it did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .field import Part, prior_logits, sample_parts
from .postprocessing import Clicks
from .zoom import ObjectView

#: Predicted IoU below which an answer is not to be trusted.
SURE = 0.4
#: After this many clicks an answer should be believed to be better than that.
_CORRECTED, _CORRECTED_SURE = 3, 0.6
#: Share of the old mask that an answer to a positive click should keep.
_KEPT_SHARE = 0.7
#: Growth, relative to the old mask, from which an answer to a negative click is doubted.
_GROWTH = 0.3
#: Share of the old mask that may go on one negative click without doubt.
_LOST_SHARE = 0.6


@dataclass(frozen=True, eq=False)
class Answer:
    """One answer and what speaks for it.

    Attributes:
        parts: the field of logits.
        clicks: all clicks so far.
        view: the object in the newest part, None where nothing is seen at the positive clicks.
        score: predicted IoU, None where that was never trained.
    """

    parts: tuple[Part, ...]
    clicks: Clicks
    view: ObjectView | None
    score: float | None

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """(n,) which clicks lie on the wrong side of the field."""
        return (values_at(self.parts, self.clicks.ras) > 0.0) != self.clicks.positive

    @property
    def is_sure(self) -> bool:
        """Whether something is seen and, where the network tells, believed to be right."""
        return self.view is not None and (self.score is None or self.score >= SURE)

    @property
    def rank(self) -> tuple[bool, int, bool, float]:
        """The larger, the better: something seen, few clicks ignored, the object whole, a high predicted IoU."""
        seen = self.view is not None
        whole = self.view is not None and not self.view.touches_border
        return seen, -int(self.ignored.sum()), whole, self.score or 0.0

    def replaces(self, carried: Answer) -> bool:
        """Whether it should take the place of the answer that carried the old mask on.

        A replay forgets what corrections have built up: it must not be believed less, however many clicks it obeys.
        """
        return self.rank > carried.rank and (carried.view is None or (self.score or 0.0) >= (carried.score or 0.0))


def values_at(parts: Sequence[Part], points_ras: NDArray) -> NDArray[np.float32]:
    """The field at single points (n, 3)."""
    values = []
    for point in points_ras:
        affine = np.eye(4)
        affine[:3, 3] = point
        values.append(sample_parts(parts, affine, (1, 1, 1))[0, 0, 0])
    return np.array(values, dtype=np.float32)


@dataclass(frozen=True)
class Change:
    """What a click changed, counted in the cells of the newest crop.

    Attributes:
        before, after: cells inside.
        common: cells inside both.
    """

    before: int
    after: int
    common: int

    @classmethod
    def between(cls, old: Sequence[Part], new: Sequence[Part]) -> Change:
        """From one field to another one, where the newest crop of the latter reaches."""
        part = new[-1]
        was, now = prior_logits(old, part.crop, part.logits.shape) > 0.0, part.logits > 0.0
        return cls(int(was.sum()), int(now.sum()), int((was & now).sum()))

    def is_odd(self, positive: bool) -> bool:
        """Whether a click of this sign cannot have meant it."""
        if not self.before:
            return False
        if positive:
            return self.common < _KEPT_SHARE * self.before
        grown = self.after - self.common > _GROWTH * self.before
        return grown or self.common < (1.0 - _LOST_SHARE) * self.before


def confirms(old: Sequence[Part], clicks: Clicks) -> bool:
    """Whether all clicks, the newest too, agree with the field as it was: nothing is asked for."""
    return not np.any((values_at(old, clicks.ras) > 0.0) != clicks.positive)


def warnings_about(answer: Answer, trained_mm: float) -> tuple[str, ...]:
    """Why a mask is not to be trusted, one sentence each; empty where nothing speaks against it.

    Args:
        answer: the mask's field and clicks.
        trained_mm: the largest spacing of a crop that the network was trained on.
    """
    told, count = [], len(answer.clicks)
    if answer.view is not None and answer.view.touches_border:
        told.append("The object is larger than the network can see at once: its ends may be missing.")
    elif answer.parts[-1].crop.spacing_mm > 1.01 * trained_mm:
        told.append("The object is larger than those the network was trained on.")
    if answer.score is not None:
        least = _CORRECTED_SURE if count >= _CORRECTED else SURE
        if answer.score < least:
            clicks = "one click" if count == 1 else f"{count} clicks"
            told.append(f"The network doubts its mask (predicted IoU {answer.score:.2f} after {clicks}).")
    return tuple(told)
