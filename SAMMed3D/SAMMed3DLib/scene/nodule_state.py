"""The session's knowledge of one nodule beside its segment: state, snapshot, stored record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..worker.requests import AXES, SCALE, Start
from .mask_block import MaskBlock
from .prompt_store import Prompt
from .segment_writer import SegmentSnapshot
from .undo_stack import NoduleChange

#: The measurements that stay what a person drew while the voxels stay what they were.
DRAWN = ("long_axis_mm", "short_axis_mm", "mean_diameter_mm", "slice_index", "diameters", AXES)


@dataclass(frozen=True, eq=False)
class NoduleSnapshot:
    """A nodule at one moment, from which it can be restored.

    Attributes:
        segment: the segment with its voxels.
        prompts: in the volume's local RAS, in the order in which they were given.
        start: the mask that the clicks change, or None.
        absorbed: IDs of the prompts whose effect is part of ``start``.
        isForeign: the voxels are not explained by these; see :class:`NoduleState`.
        isSettled: the mask shows the effect of all prompts; otherwise it must be asked for again.
    """

    segment: SegmentSnapshot
    prompts: tuple[Prompt, ...] = ()
    start: Start | None = None
    absorbed: frozenset[str] = frozenset()
    isForeign: bool = False
    isSettled: bool = True

    @property
    def nbytes(self) -> int:
        """Approximate memory it holds, in bytes."""
        return self.segment.block.mask.nbytes + (0 if self.start is None else self.start.mask.nbytes)


@dataclass(eq=False)
class OpenStep:
    """A step of the history whose answer is still awaited.

    Attributes:
        change: the step.
        awaited: generation of the answer that was awaited when the step was made; it belongs to earlier steps.
    """

    change: NoduleChange
    awaited: int | None


@dataclass(eq=False)
class NoduleState:
    """A nodule while it is worked on.

    Attributes:
        segmentId: of its segment.
        segment: the vtkSegment, which outlives its removal by others.
        prompts: what the point list holds, in the volume's local RAS, in the order in which the clicks were given.
        start, absorbed: as in :class:`NoduleSnapshot`.
        block: the voxels as far as they are known here, None where they were never read or written.
        isForeign: the voxels are not explained by ``start`` and prompts (a reopened scene, an edit by hand): with the
            next request they become the start.
        awaited: generation of the answer that is awaited, None if there is none.
        open: steps of the history without an answer, the oldest first.
        dragged: ID of the point that is being dragged.
    """

    segmentId: str
    segment: Any
    prompts: list[Prompt] = field(default_factory=list)
    start: Start | None = None
    absorbed: set[str] = field(default_factory=set)
    block: MaskBlock | None = None
    isForeign: bool = False
    isSettled: bool = True
    awaited: int | None = None
    open: list[OpenStep] = field(default_factory=list)
    dragged: str | None = None

    @property
    def active(self) -> list[Prompt]:
        """The prompts that the engine is asked about."""
        return [prompt for prompt in self.prompts if prompt.id not in self.absorbed]

    @property
    def hasEffect(self) -> bool:
        """Whether there is anything to request: without a start mask a click must be positive."""
        active = self.active
        return bool(active) if self.start is not None else any(prompt.positive for prompt in active)

    def index(self, pointId: str) -> int:
        """Place of a point among the prompts, -1 if it is not one of them."""
        return next((number for number, prompt in enumerate(self.prompts) if prompt.id == pointId), -1)

    def update(self, prompt: Prompt) -> None:
        """Takes a point that moved or changed its sign; if its old effect is part of the start mask, as a new click."""
        number = self.index(prompt.id)
        if prompt.id in self.absorbed:
            self.absorbed.discard(prompt.id)
            del self.prompts[number]
            self.prompts.append(prompt)
        else:
            self.prompts[number] = prompt


def digest(block: MaskBlock | None) -> str:
    """Makes a short hash of the voxels of a tight block: equal for equal masks; "" for none."""
    if block is None or block.isEmpty:
        return ""
    content = hashlib.blake2b(np.packbits(block.mask != 0).tobytes(), digest_size=8)
    content.update(np.array([*block.mask.shape, *block.offset_kji], dtype="<i8").tobytes())
    return content.hexdigest()


def isOfScale(measurements: Mapping[str, Any], scale: str) -> bool:
    """Whether measurements are of a VolumeGeometry.scale; those of older versions do not tell and are taken to be."""
    return measurements.get(SCALE, scale) == scale


@dataclass(frozen=True)
class SegmentRecord:
    """The record that is stored with a segment, so that a reopened scene goes on where it was.

    Attributes:
        measurements: :class:`SAMMed3DLib.inference.NoduleRecord` as a dict; empty where unknown.
        measured: :func:`digest` of the measured voxels; for other voxels the measurements must not be shown.
        mask: :func:`digest` of the voxels that this module wrote last.
        clicks: number of prompts that alone gave these voxels; None where something else had a part in them.
        isPending: an answer was awaited.
        probability: that it is a nodule, where *Segment all* found it, or None.
        isTouched: the user named it, so that it stays when *Segment all* runs again.
    """

    measurements: Mapping[str, Any] = field(default_factory=dict)
    measured: str = ""
    mask: str = ""
    clicks: int | None = None
    isPending: bool = False
    probability: float | None = None
    isTouched: bool = False

    def isOf(self, block: MaskBlock | None, scale: str) -> bool:
        """Whether the measurements are of these voxels in this scale."""
        return self.measured == digest(block) and isOfScale(self.measurements, scale)

    def toDict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "measurements": dict(self.measurements),
            "measured": self.measured,
            "mask": self.mask,
            "clicks": self.clicks,
            "isPending": self.isPending,
            "probability": self.probability,
            "isTouched": self.isTouched,
        }

    @classmethod
    def fromDict(cls, values: Mapping[str, Any] | None) -> SegmentRecord:
        """Makes it from JSON values, as far as they can be read."""
        values = values or {}
        measurements, probability = values.get("measurements"), values.get("probability")
        clicks, mask = values.get("clicks"), str(values.get("mask", ""))
        return cls(
            measurements if isinstance(measurements, dict) else {},
            str(values.get("measured", mask if measurements else "")),  # scenes of older versions do not say it
            mask,
            int(clicks) if isinstance(clicks, int | float) else None,
            bool(values.get("isPending", False)),
            float(probability) if isinstance(probability, int | float) else None,
            bool(values.get("isTouched", False)),
        )
