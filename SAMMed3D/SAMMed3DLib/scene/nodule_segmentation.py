"""The segmentation of a volume's nodules: made beside the volume, with one segment and one layer a nodule."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import slicer
import slicer.util
import vtk

from ..files.image_file import TRACKING_TAG
from ..report.findings import is_uid
from ..translation import tr as _
from .beside_volume import createBeside, findBeside
from .volume_geometry import SceneError

#: Marks the segmentations that this module made.
OWN_ATTRIBUTE = "SAMMed3D.Nodules"
#: Marks the segmentations that hold the lungs, and in any segmentation the segment that is none of the nodules.
LUNGS_ATTRIBUTE = "SAMMed3D.Lungs"
_FOUND_ATTRIBUTE = "SAMMed3D.Found"
_CLASS = "vtkMRMLSegmentationNode"
RECORD_TAG = "SAMMed3D.Record"
SCORE_TAG = "SAMMed3D.Score"
_APART_TAG = "SAMMed3D.Apart"

#: Both codes exist in the lists that Slicer brings along.
TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^27925004^Nodule~^^"
    "~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^"
)

_LUNGS_TERMINOLOGY = (
    "Segmentation category and type - DICOM master list~SCT^123037004^Anatomical Structure~SCT^39607008^Lung~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
_LUNGS_COLOR = (0.77, 0.64, 0.58)

#: How nodules are drawn unless the user says otherwise: pixels, and 0 to 1.
OUTLINE_WIDTH, FILL_OPACITY = 1.0, 0.25
#: Colors that differ on gray CT and from the prompts' pure green and red; then they repeat.
COLORS: tuple[tuple[float, float, float], ...] = (
    (1.00, 0.78, 0.20),
    (0.20, 0.75, 1.00),
    (0.95, 0.45, 0.85),
    (0.55, 0.85, 0.45),
    (1.00, 0.55, 0.25),
    (0.62, 0.55, 1.00),
    (0.25, 0.88, 0.80),
    (0.98, 0.60, 0.62),
    (0.80, 0.85, 0.25),
    (0.45, 0.65, 0.95),
    (0.85, 0.65, 0.45),
    (0.75, 0.45, 0.80),
)

#: The names of new nodules: {number} counts them, {scan} is the CT's name.
NAME_TEMPLATE = "Nodule {number}"
_LONGEST_NAME = 80
#: Stands for the number where a template is taken apart.
_PLACE = 7654321987


@dataclass(frozen=True)
class Naming:
    """How new nodules are called.

    Attributes:
        template: see :data:`NAME_TEMPLATE`.
        scan: the CT's name.
    """

    template: str = NAME_TEMPLATE
    scan: str = ""

    @classmethod
    def checked(cls, template: str, scan: str = "") -> Naming:
        """Raises SceneError, which says what a template may hold."""
        try:
            parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
            plain = all(name == "scan" and not spec for _text, name, spec, _kind in parts if name != "number")
            counts = [spec for _text, name, spec, _kind in parts if name == "number"]
            isGood = plain and len(counts) == 1 and re.fullmatch(r"(0?[1-9])?", counts[0] or "") is not None
            isGood = isGood and not any(kind for *_rest, kind in parts) and template.isprintable()
            isGood = isGood and len(template.format(number=1, scan="")) <= _LONGEST_NAME
        except (ValueError, KeyError, IndexError):
            isGood = False
        if not isGood:
            raise SceneError(
                _(
                    "{template} is no template for names: it needs {number} once ({number:02} gives 01, 02), may hold "
                    "{scan}, the CT's name, and no other braces."
                ).replace("{template}", repr(template))
            )
        return cls(template, scan)

    def nameOf(self, number: int) -> str:
        """Returns the name of the nodule with this number."""
        return self.template.format(number=number, scan=self.scan).strip()

    def numberOf(self, name: str) -> int | None:
        """Returns the number in a name that was made so, or by the usual template; None in others."""
        for template in (self.template, NAME_TEMPLATE):
            before, _place, after = template.format(number=_PLACE, scan=self.scan).strip().partition(str(_PLACE))
            found = re.fullmatch(rf"{re.escape(before)}(\d+){re.escape(after)}", name)
            if found:
                return int(found[1])
        return None


Status = Literal["AI", "reviewed", "flagged"]
AI: Status
REVIEWED: Status
FLAGGED: Status
AI, REVIEWED, FLAGGED = "AI", "reviewed", "flagged"
#: Below this predicted IoU a mask is not to be trusted: inference.judgement.SURE, whose file would load SciPy.
LOW_IOU = 0.4
#: From this predicted IoU on the model counts as sure; masks of three and more clicks must reach it.
HIGH_IOU = 0.6


def isDoubtful(measurements: Mapping[str, Any], predictedIou: float | None) -> bool:
    """Whether a mask is not to be trusted: it has a warning, or its predicted IoU is low."""
    return bool(measurements.get("note")) or (predictedIou is not None and predictedIou < LOW_IOU)


def findSegmentation(volumeNode: Any) -> Any | None:
    """Finds the segmentation that :func:`createSegmentation` made for a volume or a reopened scene; None without."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return findBeside(volumeNode, _CLASS, OWN_ATTRIBUTE, role)


def createSegmentation(volumeNode: Any) -> Any:
    """Makes a segmentation with the volume's voxels and parent transform, beside it in the subject hierarchy.

    Raises:
        SceneError: as VolumeGeometry.
    """
    node = createBeside(volumeNode, _CLASS, OWN_ATTRIBUTE, "nodules")
    useGeometryOf(node, volumeNode)
    node.GetDisplayNode().SetVisibility2DFill(True)
    node.GetDisplayNode().SetVisibility2DOutline(True)
    showWith(node, OUTLINE_WIDTH, FILL_OPACITY)
    return node


def showWith(segmentationNode: Any, outlineWidth: float, fillOpacity: float) -> None:
    """Sets how segments are drawn in slices: width of the outline in pixels, opacity of the fill 0 to 1."""
    display = segmentationNode.GetDisplayNode()
    if display is not None:
        with slicer.util.NodeModify(display):
            display.SetSliceIntersectionThickness(max(1, round(outlineWidth)))
            display.SetOpacity2DFill(float(fillOpacity))


def useGeometryOf(segmentationNode: Any, volumeNode: Any) -> None:
    """Give an *empty* segmentation the voxels and the parent transform of a volume."""
    # The transform comes first: else it becomes part of the reference geometry.
    segmentationNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)


def isLungs(segment: Any) -> bool:
    """Whether a segment is what :func:`createLungs` made, wherever it is now: no nodule."""
    return bool(segment.GetTag(LUNGS_ATTRIBUTE, vtk.reference("")))


def createLungs(volumeNode: Any) -> tuple[Any, str]:
    """Makes a segmentation for a volume's lungs, drawn as an outline; returns it and the ID of its empty segment.

    One that is there already is emptied. Raises SceneError as VolumeGeometry.
    """
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    node = findBeside(volumeNode, _CLASS, LUNGS_ATTRIBUTE, role)
    if node is None:
        node = createBeside(volumeNode, _CLASS, LUNGS_ATTRIBUTE, "lungs")
    node.GetSegmentation().RemoveAllSegments()
    useGeometryOf(node, volumeNode)
    node.GetDisplayNode().SetVisibility2DFill(False)
    node.GetDisplayNode().SetVisibility2DOutline(True)
    segmentId = node.GetSegmentation().AddEmptySegment("", "Lungs")
    segment = node.GetSegmentation().GetSegment(segmentId)
    if segment is None:
        raise SceneError(f"No segment could be added to '{node.GetName()}'. Remove it and try again.")
    segment.SetColor(*_LUNGS_COLOR)
    segment.SetNameAutoGenerated(False)
    segment.SetColorAutoGenerated(False)
    segment.SetTerminology(_LUNGS_TERMINOLOGY)
    segment.SetTag(LUNGS_ATTRIBUTE, "1")
    return node, str(segmentId)


class NoduleSegmentation:
    """The nodules of a segmentation node by their segment IDs: name, status, record and score of each.

    Masks are the SegmentWriter's. All methods that name a segment raise SceneError where it is not there any more.

    Attributes:
        node: the vtkMRMLSegmentationNode.
        naming: how new nodules are called.
    """

    def __init__(self, node: Any, naming: Naming | None = None) -> None:
        self.node = node
        self.naming = naming or Naming()

    @property
    def ids(self) -> list[str]:
        """IDs of all segments but the lungs', in the order of the list."""
        segmentation = self.node.GetSegmentation()
        return [each for each in segmentation.GetSegmentIDs() if not isLungs(segmentation.GetSegment(each))]

    def segment(self, segmentId: str) -> Any:
        """The vtkSegment."""
        segment = self.node.GetSegmentation().GetSegment(segmentId)
        if segment is None:
            raise SceneError(f"Segment '{segmentId}' is not there any more. Add a new nodule.")
        return segment

    def addNodule(
        self, name: str | None = None, color: Sequence[float] | None = None, number: int | None = None
    ) -> str:
        """Add an empty segment in a layer of its own, with the nodule terminology and status AI.

        Args:
            name: default as :attr:`naming` says, "Nodule N".
            color: (r, g, b) in 0..1; default the first color that no segment has yet.
            number: N; default, and where it is taken, the next free one.

        Returns:
            The segment's ID.

        Raises:
            SceneError: Slicer refused to add a segment.
        """
        segmentation = self.node.GetSegmentation()
        chosen = self.nextColor() if color is None else tuple(color)
        if number is None or number in self._numbers():
            number = self.nextNumber()
        segmentId = segmentation.AddEmptySegment("", name or self.naming.nameOf(number))
        segment = segmentation.GetSegment(segmentId)
        if segment is None:
            raise SceneError(f"No segment could be added to '{self.node.GetName()}'. Create a new segmentation.")
        segmentation.SeparateSegmentLabelmap(segmentId)
        segment.SetColor(*chosen)
        segment.SetNameAutoGenerated(False)
        segment.SetColorAutoGenerated(False)
        segment.SetTerminology(TERMINOLOGY)
        self.setStatus(segmentId, AI)
        return str(segmentId)

    def remove(self, segmentId: str) -> None:
        """Remove a segment; one that is not there is no error."""
        if segmentId in self.ids:
            self.node.GetSegmentation().RemoveSegment(segmentId)

    def moveBefore(self, segmentId: str, following: str) -> None:
        """Put a segment in front of another one in the list."""
        segmentation = self.node.GetSegmentation()
        segmentation.SetSegmentIndex(segmentId, segmentation.GetSegmentIndex(following))

    def isVisible(self, segmentId: str) -> bool:
        """Whether the segment is shown in the views."""
        display = self.node.GetDisplayNode()
        return display is None or bool(display.GetSegmentVisibility(segmentId))

    def setVisible(self, wanted: Mapping[str, bool]) -> None:
        """Show or hide segments in all views, in one change of the display."""
        display = self.node.GetDisplayNode()
        if display is not None:
            with slicer.util.NodeModify(display):
                for segmentId, on in wanted.items():
                    display.SetSegmentVisibility(segmentId, bool(on))

    def found(self) -> str:
        """Result of a search, as :meth:`setFound` stored it; "" without."""
        return self.node.GetAttribute(_FOUND_ATTRIBUTE) or ""

    def setFound(self, text: str) -> None:
        """Keep what a search has found with the scene; "" forgets it."""
        if text != self.found():
            self.node.SetAttribute(_FOUND_ATTRIBUTE, text or None)

    def status(self, segmentId: str) -> Status:
        """ "AI", "reviewed" or "flagged"; segments that nobody marked count as "AI"."""
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        names: dict[int, Status] = {logic.Completed: REVIEWED, logic.Flagged: FLAGGED}
        return names.get(logic.GetSegmentStatus(self.segment(segmentId)), AI)

    def setStatus(self, segmentId: str, value: str) -> None:
        """Mark a segment as "AI" (In progress), "reviewed" (Completed) or "flagged" (Flagged)."""
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        values: dict[str, Any] = {AI: logic.InProgress, REVIEWED: logic.Completed, FLAGGED: logic.Flagged}
        logic.SetSegmentStatus(self.segment(segmentId), values[value])

    def record(self, segmentId: str) -> dict[str, Any] | None:
        """The measurements stored with a segment; None where there are none or they cannot be read."""
        text = self._tag(segmentId, RECORD_TAG)
        try:
            value = json.loads(text)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def setRecord(self, segmentId: str, values: dict[str, Any] | None) -> None:
        """Store measurements (JSON values) with a segment, saved with the scene; None removes them."""
        # Segmentation files separate tags by "|", which JSON has within strings only.
        text = None if values is None else json.dumps(values, separators=(",", ":")).replace("|", "\\u007c")
        self._setTag(segmentId, RECORD_TAG, text)

    def isDoubtful(self, segmentId: str) -> bool:
        """Whether a segment's mask is not to be trusted, by what is stored with it; see :func:`isDoubtful`."""
        measurements = (self.record(segmentId) or {}).get("measurements")
        return isDoubtful(measurements if isinstance(measurements, dict) else {}, self.score(segmentId))

    def score(self, segmentId: str) -> float | None:
        """The predicted IoU stored with a segment, None without."""
        text = self._tag(segmentId, SCORE_TAG)
        try:
            return float(text)
        except ValueError:
            return None

    def setScore(self, segmentId: str, value: float | None) -> None:
        """Store the predicted IoU with a segment; None removes it."""
        self._setTag(segmentId, SCORE_TAG, None if value is None else f"{value:.4f}")

    def trackingUid(self, segmentId: str) -> str | None:
        """The UID by which a nodule is known over files and dates; None where it has none yet, or an invalid one."""
        text = self._tag(segmentId, TRACKING_TAG)
        return text if is_uid(text) else None

    def setTrackingUid(self, segmentId: str, uid: str) -> None:
        """Store a nodule's UID with its segment, saved with the scene and in .seg.nrrd files."""
        if self.trackingUid(segmentId) != uid:
            self._setTag(segmentId, TRACKING_TAG, uid)

    def apartFrom(self, segmentId: str) -> frozenset[str]:
        """UIDs of the nodules of other scans that are not this one, as a person said."""
        return frozenset(self._tag(segmentId, _APART_TAG).split())

    def setApartFrom(self, segmentId: str, uids: frozenset[str]) -> None:
        """Store what :meth:`apartFrom` returns, saved with the scene and in .seg.nrrd files."""
        if self.apartFrom(segmentId) != uids:
            self._setTag(segmentId, _APART_TAG, " ".join(sorted(uids)) or None)

    def _tag(self, segmentId: str, name: str) -> str:
        value = vtk.reference("")
        return str(value) if self.segment(segmentId).GetTag(name, value) else ""

    def _setTag(self, segmentId: str, name: str, text: str | None) -> None:
        segment = self.segment(segmentId)
        if text is None:
            segment.RemoveTag(name)
        else:
            segment.SetTag(name, text)

    def nextNumber(self, without: Sequence[str] = ()) -> int:
        """The next free number for a name, as if some segments were not there."""
        return max(self._numbers(without), default=0) + 1

    def _numbers(self, without: Sequence[str] = ()) -> list[int]:
        """Numbers of the names that :attr:`naming` made."""
        names = (self.segment(segmentId).GetName() or "" for segmentId in self.ids if segmentId not in without)
        return [number for number in (self.naming.numberOf(name) for name in names) if number is not None]

    def nextColor(self) -> tuple[float, float, float]:
        """The first color that no segment has yet."""
        used = [self.segment(segmentId).GetColor() for segmentId in self.ids]
        for color in COLORS:
            if not any(max(abs(a - b) for a, b in zip(color, other, strict=True)) < 0.02 for other in used):
                return color
        return COLORS[len(used) % len(COLORS)]
