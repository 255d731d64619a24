"""Keeps the answers for each nodule, click by click, so that a request computes only its new clicks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Click = tuple[tuple[float, float, float], int]


def clicks_in_order(points: Sequence[Sequence[float]], labels: Sequence[int], first_positive: bool) -> list[Click]:
    """Clicks (point, label) as they are fed: as placed, but the first positive one leads where there is no mask yet."""
    clicks = [
        ((float(point[0]), float(point[1]), float(point[2])), int(label))
        for point, label in zip(points, labels, strict=True)
    ]
    if first_positive and clicks:
        lead = next((index for index, click in enumerate(clicks) if click[1]), 0)
        clicks.insert(0, clicks.pop(lead))
    return clicks


@dataclass(frozen=True, eq=False)
class ClickStep:
    """The nodule after a click.

    Attributes:
        prediction: the network's answer, for the next click.
        mask, offset_kji: the nodule; differs from the network's where a person has drawn.
    """

    prediction: Any
    mask: NDArray[np.uint8]
    offset_kji: tuple[int, int, int]

    @property
    def nbytes(self) -> int:
        """About the memory it holds."""
        own = self.prediction.mask.nbytes + self.prediction.logits.nbytes * (1 + len(self.prediction.parts))
        return own + (0 if self.mask is self.prediction.mask else self.mask.nbytes)


@dataclass(eq=False)
class ClickTrail:
    """One nodule's clicks and the step after each of them.

    Attributes:
        start: the request's start mask, or None.
        origin: the network's answer to the start mask alone, or None.
    """

    start: Any = None
    origin: ClickStep | None = None
    clicks: list[Click] = field(default_factory=list)
    steps: list[ClickStep] = field(default_factory=list)

    def keep(self, clicks: Sequence[Click]) -> int:
        """Forget the steps that these clicks do not begin with, unless all of them are known; returns how many are."""
        known = self.known(clicks)
        if known < len(clicks):
            del self.clicks[known:], self.steps[known:]
        return known

    def known(self, clicks: Sequence[Click]) -> int:
        """How many of these clicks, from the first on, were answered already."""
        known = 0
        while known < min(len(clicks), len(self.clicks)) and clicks[known] == self.clicks[known]:
            known += 1
        return known

    def add(self, click: Click, step: ClickStep) -> None:
        """The step after the next click."""
        self.clicks.append(click)
        self.steps.append(step)

    @property
    def nbytes(self) -> int:
        """About the memory it holds."""
        return sum(step.nbytes for step in self.steps) + (self.origin.nbytes if self.origin else 0)


class ClickTrails:
    """The trails of the nodules worked on most recently.

    Args:
        max_bytes: the least recently used trails are forgotten above this, never the newest.
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self.max_bytes = max_bytes
        self._trails: OrderedDict[Hashable, ClickTrail] = OrderedDict()

    def __len__(self) -> int:
        return len(self._trails)

    def of(self, nodule: Hashable, start: Any) -> ClickTrail:
        """The nodule's trail; a new one if it began with another start mask."""
        trail = self._trails.pop(nodule, None)
        if trail is None or trail.start is not start:
            trail = ClickTrail(start)
        self._trails[nodule] = trail
        return trail

    def trim(self) -> None:
        """Forget old trails until the bound holds."""
        total = sum(trail.nbytes for trail in self._trails.values())
        while total > self.max_bytes and len(self._trails) > 1:
            _nodule, oldest = self._trails.popitem(last=False)
            total -= oldest.nbytes

    def clear(self) -> None:
        """Forget everything."""
        self._trails.clear()
