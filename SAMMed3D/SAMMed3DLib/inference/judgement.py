"""Judges the network's answers to a click: whether to believe one, and which of several to keep.

Rules without a network, so that they can be tested and tuned: an answer should agree with every click, hold the object
whole, and change what the newest click asked for rather than what it did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .field import Part, prior_logits, values_at
from .geometry import transform_points
from .postprocessing import Clicks
from .zoom import ObjectView

#: Predicted IoU below which an answer is not to be trusted.
SURE = 0.4
#: After this many clicks an answer needs this higher predicted IoU instead.
_CORRECTED, CORRECTED_SURE = 3, 0.6
#: Share of the old mask that an answer to a positive click should keep.
_KEPT_SHARE = 0.7
#: Growth, relative to the old mask, from which an answer to a negative click is doubted.
_GROWTH = 0.3
#: Share of the old mask that may go on one negative click without doubt.
_LOST_SHARE = 0.6
#: Cells from the mask's border to a click on its wrong side from which more than a correction is asked for.
_FAR_CELLS = 3.0
#: Dice from which two answers are about the same.
_AGREEMENT = 0.7
#: An unsure object of at least the first diameter in mm may be a piece of a mass, which has the second one.
_PIECE_MM, MASS_MM = 15.0, 40.0
#: A mass keeps at least this share of itself when the threshold rises from logit -1 to 1; what has flooded does not.
_STABLE = 0.3


@dataclass(frozen=True, eq=False)
class Answer:
    """One answer of the network, with the evidence for and against it.

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
        """Boolean (n,): which clicks lie on the wrong side of the field."""
        return (values_at(self.parts, self.clicks.ras) > 0.0) != self.clicks.positive

    @property
    def is_sure(self) -> bool:
        """Whether something is seen and its predicted IoU, where there is one, is high enough."""
        return self.view is not None and (self.score is None or self.score >= SURE)

    @property
    def is_whole(self) -> bool:
        """Whether something is seen that does not run out of the crop."""
        return self.view is not None and not self.view.touches_border

    @property
    def diameter_mm(self) -> float:
        """Diameter of what is seen; 0 where nothing is."""
        return 0.0 if self.view is None else self.view.diameter_mm

    @property
    def may_be_a_piece(self) -> bool:
        """Whether it is too large and too unsure to be believed without a look from further away."""
        return self.diameter_mm >= _PIECE_MM and self.score is not None and self.score < CORRECTED_SURE

    @property
    def is_mass(self) -> bool:
        """Whether it shows the whole of something larger than nodules are, the clicks in it."""
        if not self.is_whole or self.diameter_mm < MASS_MM or self.ignored.any():
            return False
        logits = self.parts[-1].logits
        return bool(np.count_nonzero(logits > 1.0) >= _STABLE * np.count_nonzero(logits > -1.0))

    @property
    def rank(self) -> tuple[bool, int, bool, float]:
        """Sort key, larger is better: something seen, few clicks ignored, the object whole, a high predicted IoU."""
        return self.view is not None, -int(self.ignored.sum()), self.is_whole, self.score or 0.0

    def replaces(self, carried: Answer) -> bool:
        """Whether it should take the place of the answer that carried the old mask on.

        A replay forgets what corrections have built up: it must not be believed less, however many clicks it obeys.
        """
        return self.rank > carried.rank and (carried.view is None or (self.score or 0.0) >= (carried.score or 0.0))

    def is_doubtful(self, old: Answer) -> bool:
        """Whether it ignores the newest click or one that the mask before obeyed, or changes what no click meant.

        Args:
            old: the mask before the newest click, judged by all clicks.
        """
        ignored = self.ignored
        return bool(ignored[-1] or np.any(ignored & ~old.ignored)) or self.is_odd(old)

    def is_odd(self, old: Answer) -> bool:
        """Whether the newest click cannot have meant the change from the mask before it."""
        return self.view is None or ClickChange.between(old.parts, self.parts).is_odd(bool(self.clicks.positive[-1]))

    def is_wrong(self, old: Answer) -> bool:
        """Whether the evidence against it justifies another encoding.

        Nothing is seen, the network does not believe it, the object runs out of the crop, the change is odd, or the
        newest click lies far on the wrong side of the mask's border. A click just beyond that border, which networks
        often ignore, is obeyed in its surroundings without any of this.
        """
        was_whole = old.view is None or not old.view.touches_border
        if not self.is_sure or self.view is None or (self.view.touches_border and was_whole) or self.is_odd(old):
            return True
        if not self.ignored[-1]:
            return False
        part = self.parts[-1]
        wrong = (part.logits > 0.0) != self.clicks.positive[-1]
        cell = np.round(transform_points(np.linalg.inv(part.cells_to_ras), self.clicks.ras[-1])).astype(int)
        depth = ndimage.distance_transform_edt(wrong)
        return bool(depth[tuple(np.clip(cell, 0, np.array(wrong.shape) - 1))] > _FAR_CELLS)

    def agrees(self, other: Answer) -> bool:
        """Whether another answer shows about the same mask."""
        return ClickChange.between(self.parts, other.parts).is_small


def choose(old: Answer, tried: Sequence[Answer]) -> int | None:
    """Chooses which answer to the newest click to keep; None keeps the mask before it.

    A good mask is given up only for a change that the click can have meant, or on which two looks agree.

    Args:
        old: the mask before the newest click, judged by all clicks.
        tried: the answer that carried it on, then those to all clicks without it.
    """
    best = 0
    for index in range(1, len(tried)):
        if tried[index].replaces(tried[best]):
            best = index
    chosen = tried[best]
    was_good = old.is_sure and old.is_whole
    if not was_good or not chosen.is_odd(old):
        return best
    return best if any(chosen.agrees(other) for other in tried if other is not chosen) else None


@dataclass(frozen=True)
class ClickChange:
    """The change that a click made, counted in cells of the newest crop.

    Attributes:
        before, after: cells inside.
        common: cells inside both.
    """

    before: int
    after: int
    common: int

    @classmethod
    def between(cls, old: Sequence[Part], new: Sequence[Part]) -> ClickChange:
        """The change from one field of logits to another, within the newest crop of the latter."""
        part = new[-1]
        was, now = prior_logits(old, part.crop, part.logits.shape) > 0.0, part.logits > 0.0
        return cls(int(was.sum()), int(now.sum()), int((was & now).sum()))

    @property
    def is_small(self) -> bool:
        """Whether both are about the same mask."""
        return 2 * self.common > _AGREEMENT * (self.before + self.after)

    def is_odd(self, positive: bool) -> bool:
        """Whether a click of this sign cannot have meant it."""
        if not self.before:
            return False
        if positive:
            return self.common < _KEPT_SHARE * self.before
        grown = self.after - self.common > _GROWTH * self.before
        return grown or self.common < (1.0 - _LOST_SHARE) * self.before


def confirms(old: Sequence[Part], clicks: Clicks) -> bool:
    """Whether all clicks, the newest included, agree with the present field, so that nothing has to change."""
    return not np.any((values_at(old, clicks.ras) > 0.0) != clicks.positive)


def warnings_about(answer: Answer, trained_mm: float) -> tuple[str, ...]:
    """Lists the reasons why a mask is not to be trusted, one sentence each; empty where there are none.

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
        least = CORRECTED_SURE if count >= _CORRECTED else SURE
        if answer.score < least:
            clicks = "one click" if count == 1 else f"{count} clicks"
            told.append(f"The network doubts its mask (predicted IoU {answer.score:.2f} after {clicks}).")
    return tuple(told)
