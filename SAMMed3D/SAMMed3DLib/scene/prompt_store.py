"""The one owner of prompts: control points of a markups node, seen as prompts of nodules.

All nodules of a volume share one vtkMRMLMarkupsFiducialNode. Points placed with the Markups toolbar, by a script or
loaded from a .mrk.json file are prompts like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..signal import Signal
from .beside_volume import createBeside, findBeside, placingStays
from .volume_geometry import SceneError

#: Marks the point lists that this module made: only their labels are changed.
OWN_ATTRIBUTE = "SAMMed3D.Prompts"
VOLUME_ROLE = "SAMMed3D.Volume"
#: From the point list to the segmentation whose nodules its points belong to.
SEGMENTATION_ROLE = "SAMMed3D.Segmentation"
_CLASS = "vtkMRMLMarkupsFiducialNode"
#: Points that add are "selected" ones.
POSITIVE_COLOR, NEGATIVE_COLOR = (0.15, 0.95, 0.25), (1.0, 0.15, 0.15)
#: What a control point says about itself stands in its description, which .mrk.json files and scenes keep; text that
#: the user wrote before it stays.
_PATTERN = re.compile(r"(?:^|(?<=\s))segment=(?P<segment>.*);label=(?P<label>[01])\s*$", re.DOTALL)

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Prompt:
    """One click.

    Attributes:
        id: the control point's ID; it stays when points before it are removed.
        ras: world RAS in mm.
        positive: whether the place belongs to the nodule (or is to be taken off).
        segmentId: the nodule, None for a point that belongs to none yet.
    """

    id: str
    ras: Point
    positive: bool
    segmentId: str | None


@dataclass(frozen=True)
class _Seen:
    """The last known state of a defined point; its position is local, so that moving the list is no change."""

    prompt: Prompt
    local: Point
    description: str
    selected: bool


class PromptStore:
    """Reads and changes the prompts in a point list, and signals what others change in it.

    Only points whose position is defined count: the preview under the mouse pointer in Place mode is no prompt.

    Attributes:
        placed: Signal(pointId): a point was placed by somebody else.
        moved: Signal(pointId, final): a point was moved; ``final`` is False while it is being dragged.
        dragging: Signal(bool): the user takes hold of a point, or lets go of it.
        removed: Signal(pointId, Prompt): a point was removed, or its position unset; one for each point.
        relabelled: Signal(pointId): polarity or nodule of a point were changed by somebody else.
        node: the vtkMRMLMarkupsFiducialNode.
    """

    def __init__(self, fiducialNode: Any) -> None:
        if fiducialNode is None or not fiducialNode.IsA("vtkMRMLMarkupsFiducialNode"):
            raise SceneError("No point list is selected. Select one or create a new one.")
        self.node = fiducialNode
        self.placed, self.moved, self.dragging = Signal(), Signal(), Signal()
        self.removed, self.relabelled = Signal(), Signal()
        self._quiet = 0
        self._dragging = False
        self._movedInDrag: set[str] = set()
        self._seen: dict[str, _Seen] = self._look()
        for prompt in self._seen.values():
            self._mirror(prompt.prompt)
        self._seen = self._look()
        self._tags = [
            fiducialNode.AddObserver(event, handler)
            for event, handler in (
                (fiducialNode.PointPositionDefinedEvent, self._onDefined),
                (fiducialNode.PointModifiedEvent, self._onModified),
                (fiducialNode.PointPositionUndefinedEvent, self._onUndefined),
                (fiducialNode.PointRemovedEvent, self._onRemoved),
                (fiducialNode.PointStartInteractionEvent, self._onDragStarted),
                (fiducialNode.PointEndInteractionEvent, self._onDragEnded),
            )
        ]

    def close(self) -> None:
        """Stop watching the node. The points stay."""
        for tag in self._tags:
            self.node.RemoveObserver(tag)
        self._tags = []

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Suppresses signals for changes within the block."""
        self._quiet += 1
        before = self._look()
        try:
            yield
        finally:
            self._quiet -= 1
            # Only this is known now; what others changed before is still to be signaled.
            now = self._look()
            for pointId in before.keys() - now.keys():
                self._seen.pop(pointId, None)
            self._seen.update({pointId: seen for pointId, seen in now.items() if before.get(pointId) != seen})

    # Reading

    def prompts(self, segmentId: str) -> list[Prompt]:
        """The prompts of a nodule in the order of placement."""
        return [prompt for prompt in self._all() if prompt.segmentId == segmentId]

    def untagged(self) -> list[Prompt]:
        """Points that belong to no nodule yet."""
        return [prompt for prompt in self._all() if prompt.segmentId is None]

    def prompt(self, pointId: str) -> Prompt:
        """Returns one point as a prompt. Raises SceneError where it does not exist or its position is not defined."""
        index = self._index(pointId)
        if not self._isDefined(index):
            raise SceneError("The point has no position. Place it again.")
        return self._promptAt(index)

    def segmentIds(self) -> list[str]:
        """The nodules that have prompts, in the order of their first one."""
        return list(dict.fromkeys(prompt.segmentId for prompt in self._all() if prompt.segmentId is not None))

    # Changing

    def add(self, ras: Sequence[float], positive: bool, segmentId: str | None) -> str:
        """Add a point at a world position; returns its ID.

        Raises:
            SceneError: the list takes no more points.
        """
        most = self.node.GetMaximumNumberOfControlPoints()
        if self.node.GetFixedNumberOfControlPoints() or 0 <= most <= self.node.GetNumberOfControlPoints():
            raise SceneError(
                f"Point list '{self.node.GetName()}' takes no more points: its number of points is locked. "
                "Unlock it (Markups module) or select another one."
            )
        with self.quiet():
            index = self.node.AddControlPointWorld(*(float(x) for x in ras))
            pointId = self.node.GetNthControlPointID(index)
            self._mirror(Prompt(pointId, self._worldOf(index), positive, segmentId))
        return pointId

    def assign(self, pointId: str, segmentId: str | None, positive: bool) -> None:
        """Make a point a prompt of a nodule. Raises SceneError where it does not exist."""
        with self.quiet():
            index = self._index(pointId)
            self._mirror(Prompt(pointId, self._worldOf(index), positive, segmentId))

    def move(self, pointId: str, ras: Sequence[float]) -> None:
        """Put a point elsewhere (world). Raises SceneError where it does not exist."""
        with self.quiet():
            self.node.SetNthControlPointPositionWorld(self._index(pointId), *(float(x) for x in ras))

    def lock(self, segmentId: str, on: bool) -> None:
        """Keep the points of a nodule from being dragged in the views, or let them go."""
        with self.quiet():
            for prompt in self.prompts(segmentId):
                self.node.SetNthControlPointLocked(self._index(prompt.id), on)

    def remove(self, pointId: str) -> None:
        """Remove a point; unknown ones are ignored."""
        with self.quiet():
            index = self.node.GetNthControlPointIndexByID(pointId)
            if index >= 0:
                self.node.RemoveNthControlPoint(index)

    def replaceAll(self, segmentId: str, prompts: Sequence[Prompt]) -> list[str]:
        """Make these the prompts of a nodule, in this order; returns their IDs, which stay where possible."""
        with self.quiet():
            current = [prompt.id for prompt in self.prompts(segmentId)]
            kept = [prompt.id for prompt in prompts if prompt.id in current]
            if kept != [pointId for pointId in current if pointId in kept] or kept != [
                prompt.id for prompt in prompts[: len(kept)]
            ]:
                kept = []
            for pointId in current:
                if pointId not in kept:
                    self.remove(pointId)
            ids = []
            for number, prompt in enumerate(prompts):
                if number < len(kept):
                    self.move(prompt.id, prompt.ras)
                    self.assign(prompt.id, segmentId, prompt.positive)
                    ids.append(prompt.id)
                else:
                    ids.append(self.add(prompt.ras, prompt.positive, segmentId))
        return ids

    def showOnly(self, segmentId: str | None) -> None:
        """Show the prompts of one nodule and hide those of the others; None shows all."""
        with self.quiet():
            for index in range(self.node.GetNumberOfControlPoints()):
                tag = readTag(self.node.GetNthControlPointDescription(index))
                visible = segmentId is None or tag is None or tag.segmentId == segmentId
                if bool(self.node.GetNthControlPointVisibility(index)) != visible:
                    self.node.SetNthControlPointVisibility(index, visible)

    # The node's points

    def _all(self) -> list[Prompt]:
        count = self.node.GetNumberOfControlPoints()
        return [self._promptAt(index) for index in range(count) if self._isDefined(index)]

    def _isDefined(self, index: int) -> bool:
        return self.node.GetNthControlPointPositionStatus(index) == self.node.PositionDefined

    def _worldOf(self, index: int) -> Point:
        x, y, z = self.node.GetNthControlPointPositionWorld(index)
        return x, y, z

    def _promptAt(self, index: int) -> Prompt:
        tag = readTag(self.node.GetNthControlPointDescription(index))
        positive = bool(self.node.GetNthControlPointSelected(index)) if tag is None else tag.positive
        segmentId = None if tag is None else tag.segmentId
        return Prompt(self.node.GetNthControlPointID(index), self._worldOf(index), positive, segmentId)

    def _index(self, pointId: str) -> int:
        index = self.node.GetNthControlPointIndexByID(pointId)
        if index < 0:
            raise SceneError("The point is not there any more. Place a new one.")
        return index

    def _mirror(self, prompt: Prompt) -> None:
        """Write a prompt's nodule and polarity into its point's description, color and label."""
        node, index = self.node, self._index(prompt.id)
        tag = None if prompt.segmentId is None else PromptTag(prompt.segmentId, prompt.positive)
        node.SetNthControlPointDescription(index, withTag(node.GetNthControlPointDescription(index), tag))
        if bool(node.GetNthControlPointSelected(index)) != prompt.positive:
            node.SetNthControlPointSelected(index, prompt.positive)
        if node.GetAttribute(OWN_ATTRIBUTE):
            node.SetNthControlPointLabel(index, "+" if prompt.positive else "-")

    def _look(self) -> dict[str, _Seen]:
        node, seen = self.node, {}
        for index in range(node.GetNumberOfControlPoints()):
            if self._isDefined(index):
                x, y, z = node.GetNthControlPointPosition(index)
                prompt = self._promptAt(index)
                selected = bool(node.GetNthControlPointSelected(index))
                seen[prompt.id] = _Seen(prompt, (x, y, z), node.GetNthControlPointDescription(index), selected)
        return seen

    # What others do

    def _onDefined(self, _caller: Any, _event: str) -> None:
        if self._quiet:
            return
        now = self._look()
        new = [pointId for pointId in now if pointId not in self._seen]
        self._seen.update({pointId: now[pointId] for pointId in new})
        for pointId in new:
            with self.quiet():
                self._mirror(now[pointId].prompt)
        for pointId in new:
            self.placed(pointId)

    def _onModified(self, _caller: Any, _event: str) -> None:
        if self._quiet:
            return
        before, now = dict(self._seen), self._look()
        both = [pointId for pointId in now if pointId in before]
        moved = [pointId for pointId in both if now[pointId].local != before[pointId].local]
        relabelled = [pointId for pointId in both if self._followChange(before[pointId], now[pointId])]
        self._seen.update({pointId: now[pointId] for pointId in both if pointId not in relabelled})
        for pointId in moved:
            if self._dragging:
                self._movedInDrag.add(pointId)
            self.moved(pointId, not self._dragging)
        for pointId in relabelled:
            self.relabelled(pointId)

    def _followChange(self, before: _Seen, now: _Seen) -> bool:
        """Whether polarity or nodule were changed, by description or by selection; the other one is adapted."""
        positive, segmentId = now.prompt.positive, now.prompt.segmentId
        if now.selected != before.selected and now.description == before.description:
            positive = now.selected
        if (positive, segmentId) == (before.prompt.positive, before.prompt.segmentId):
            return False
        with self.quiet():
            self._mirror(Prompt(now.prompt.id, now.prompt.ras, positive, segmentId))
            self._seen[now.prompt.id] = now
        return True

    def _onUndefined(self, _caller: Any, _event: str) -> None:
        # A point on its way out of the list is dealt with when it is gone.
        self._drop([pointId for pointId in self._gone() if self.node.GetNthControlPointIndexByID(pointId) >= 0])

    def _onRemoved(self, _caller: Any, _event: str) -> None:
        self._drop(self._gone())

    def _gone(self) -> list[str]:
        if self._quiet:
            return []
        now = self._look()
        return [pointId for pointId in self._seen if pointId not in now]

    def _drop(self, pointIds: Sequence[str]) -> None:
        gone = [(pointId, self._seen.pop(pointId).prompt) for pointId in pointIds]
        for pointId, prompt in gone:
            self._movedInDrag.discard(pointId)
            self.removed(pointId, prompt)

    def _onDragStarted(self, _caller: Any, _event: str) -> None:
        self._dragging = True
        self._movedInDrag.clear()
        self.dragging(True)

    def _onDragEnded(self, _caller: Any, _event: str) -> None:
        self._dragging = False
        moved, self._movedInDrag = self._movedInDrag, set()
        for pointId in sorted(moved):
            self.moved(pointId, True)
        self.dragging(False)


def findPrompts(volumeNode: Any) -> Any | None:
    """Finds the point list that :func:`createPrompts` made for a volume, also in a reopened scene; None without."""
    return findBeside(volumeNode, _CLASS, OWN_ATTRIBUTE, VOLUME_ROLE)


def createPrompts(volumeNode: Any) -> Any:
    """Makes a point list with the volume's parent transform, beside it in the subject hierarchy, saved with the scene.

    Raises:
        SceneError: as VolumeGeometry.
    """
    with placingStays(volumeNode.GetScene(), fillsNone=True):
        node = createBeside(volumeNode, _CLASS, OWN_ATTRIBUTE, "prompts")
    node.SetNodeReferenceID(VOLUME_ROLE, volumeNode.GetID())
    display = node.GetDisplayNode()
    display.SetSelectedColor(*POSITIVE_COLOR)
    display.SetColor(*NEGATIVE_COLOR)
    display.SetPropertiesLabelVisibility(False)
    # Small nodules are not to vanish behind their prompts (default 3).
    display.SetGlyphScale(2.0)
    return node


@dataclass(frozen=True)
class PromptTag:
    """The nodule (segment ID) and the polarity of a point."""

    segmentId: str
    positive: bool


def readTag(description: str) -> PromptTag | None:
    """Reads the tag in a point's description, None without."""
    found = _PATTERN.search(description or "")
    return PromptTag(found["segment"], found["label"] == "1") if found and found["segment"] else None


def withTag(description: str, tag: PromptTag | None) -> str:
    """Returns the description with its tag replaced (None: removed)."""
    text = _PATTERN.sub("", description or "").rstrip()
    if tag is None:
        return text
    own = f"segment={tag.segmentId};label={int(tag.positive)}"
    return f"{text} {own}" if text else own
