"""The nodules that one run of *Segment all* found, and which of them are shown.

All of them stay in memory with their masks; the sensitivity decides which are segments. Whatever the user touched is a
nodule like any other and no longer follows the sensitivity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..worker.requests import FoundNodule, Start
from .nodule_state import NoduleSnapshot

#: Of a found nodule that shares more of its voxels than this with another nodule, only the other one is shown.
_SHARED = 0.3


@dataclass(eq=False)
class Candidate:
    """One found nodule.

    Attributes:
        found: what the engine said.
        segmentId: of its segment, None before it was first shown.
        hidden: the segment as it was when the sensitivity took it off, None while it is shown (or was never shown).
    """

    found: FoundNodule
    segmentId: str | None = None
    hidden: NoduleSnapshot | None = None

    @property
    def start(self) -> Start:
        """The mask as a start for clicks; the origin spares the first click an encoding."""
        return Start(self.found.mask, self.found.offset_kji, self.found.origin)

    @property
    def size(self) -> float:
        """Volume in mm3."""
        return float(self.found.measurements.get("volume_mm3") or 0.0)


class CandidateRun:
    """The candidates of a run, the largest first.

    Args:
        found: what the engine found.
        previous: the run before, which counts again when this one is undone.

    Attributes:
        change: its step in the history.
    """

    def __init__(self, found: Iterable[FoundNodule], previous: CandidateRun | None = None) -> None:
        self.candidates = sorted((Candidate(nodule) for nodule in found), key=lambda one: -one.size)
        self.previous = previous
        self.change: Any = None

    def wanted(self, sensitivity: float) -> list[Candidate]:
        """Those that this sensitivity shows."""
        return [one for one in self.candidates if one.found.is_shown_at(sensitivity)]

    def plan(
        self, sensitivity: float, exists: Callable[[str], bool], isTouched: Callable[[str], bool]
    ) -> tuple[list[Candidate], list[Candidate]]:
        """What to show and what to hide.

        Args:
            sensitivity: 0 to 1.
            exists: whether a segment is there.
            isTouched: whether the user has done something with it.

        Returns:
            (to show, to hide), each the largest first. Candidates whose segment the user deleted stay away.
        """
        wanted = {id(one) for one in self.wanted(sensitivity)}
        show, hide = [], []
        for one in self.candidates:
            isShown = one.segmentId is not None and exists(one.segmentId)
            if id(one) in wanted and not isShown and (one.segmentId is None or one.hidden is not None):
                show.append(one)
            elif id(one) not in wanted and isShown and not isTouched(one.segmentId):
                hide.append(one)
        return show, hide

    def positionOf(self, candidate: Candidate, exists: Callable[[str], bool]) -> str | None:
        """The segment of the next smaller candidate that is shown: before it belongs this one."""
        after = self.candidates[self.candidates.index(candidate) + 1 :]
        return next((one.segmentId for one in after if one.segmentId is not None and exists(one.segmentId)), None)


def overlapsAny(block: Any, others: Sequence[Any]) -> bool:
    """Whether a block shares much of its voxels, or of theirs, with one of the others."""
    low = np.asarray(block.offset_kji)
    high = low + block.mask.shape
    voxels = int(np.count_nonzero(block.mask))
    for other in others:
        start = np.maximum(low, other.offset_kji)
        end = np.minimum(high, np.asarray(other.offset_kji) + other.mask.shape)
        if np.any(end <= start):
            continue
        windows = (
            one.mask[tuple(slice(int(a), int(b)) for a, b in zip(start - o, end - o, strict=True))] != 0
            for one, o in ((block, low), (other, np.asarray(other.offset_kji)))
        )
        common = int(np.count_nonzero(np.logical_and(*windows)))
        if common > _SHARED * min(voxels, int(np.count_nonzero(other.mask))):
            return True
    return False
