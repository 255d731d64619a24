"""Lists the volumes of the scene with their segmentations as rows to export, with the problems of each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import slicer
import slicer.util

from SAMMed3DLib.scene.nodule_segmentation import LUNGS_ATTRIBUTE, OWN_ATTRIBUTE, NoduleSegmentation
from SAMMed3DLib.scene.segment_writer import BINARY_LABELMAP, segmentationToWorld
from SAMMed3DLib.scene.volume_geometry import SceneError, VolumeGeometry, toWorld, transformPoints
from SAMMed3DLib.translation import tr as _

from ..data.case_names import safe_case_name, same_name
from ..store.dataset_writer import DatasetWriter, name_for
from ..store.export_case import StoredCase, image_source
from ..store.nifti_file import is_sheared, value_problem
from .nodule_labels import NoduleReading, nodulesDigest, readNodules

_THICKEST_MM = 5.0
_PATIENT_ID_TAG = "0010,0020"
_UIDS_ATTRIBUTE = "DICOM.instanceUIDs"
_ID_ATTRIBUTE = "DICOM.PatientID"
#: What de-identified studies have instead of an ID: the same for everybody.
_NOBODY = re.compile(r"(?i)^\W*(anon\w*|unknown|no[_ ]?name|none|n/?a|patient|test|x+|0*|-)\W*$")
NEW, CHANGED, UNCHANGED, PROBLEM = "new", "changed", "unchanged", "problem"


@dataclass(frozen=True)
class ExportRow:
    """One volume with one segmentation of it.

    Attributes:
        volumeNode: None for a segmentation without a volume.
        segmentationNode: None for a volume without nodules.
        title: the node's name.
        caseName: name under which it is, or will be, stored.
        patient: patient ID, "" where it is not known.
        nodules: number that can be exported.
        accepted: how many of them somebody has reviewed.
        state: "new", "changed" (since it was written), "unchanged", or "problem": cannot be written.
        problem: why it cannot be written and what to do, "" otherwise.
        notes: remarks for the user; nothing is left out in silence.
        included: whether it is to be written.
        source, fingerprint: see :class:`~..store.export_case.ExportCase`.
    """

    volumeNode: Any | None
    segmentationNode: Any | None
    title: str
    caseName: str = ""
    patient: str = ""
    nodules: int = 0
    accepted: int = 0
    state: str = PROBLEM
    problem: str = ""
    notes: tuple[str, ...] = ()
    included: bool = False
    source: str = ""
    fingerprint: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Key of a row that stays the same while the scene changes: the nodes' IDs, "" for none."""
        volume, segmentation = self.volumeNode, self.segmentationNode
        return volume.GetID() if volume else "", segmentation.GetID() if segmentation else ""


def fingerprintOf(source: str, ijkToWorld: np.ndarray, patient: str, digest: str) -> str:
    """Makes a hash that changes with anything that is written of a case."""
    text = f"{source} {np.round(ijkToWorld, 5).tolist()} {patient} {digest}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class ExportTable:
    """Makes the rows of a scene. What was read of a node is cached until the node changes."""

    def __init__(self, scene: Any = None) -> None:
        self._scene = scene
        self._facts: dict[str, tuple[Hashable, tuple[str, str]]] = {}
        self._readings: dict[str, tuple[Hashable, NoduleReading]] = {}

    def rows(
        self, writer: DatasetWriter | None = None, acceptedOnly: bool = False, names: Mapping[str, str] | None = None
    ) -> list[ExportRow]:
        """All volumes of the scene with their segmentations; nothing is written.

        Args:
            writer: the data set that the rows are compared with.
            acceptedOnly: whether nodules that nobody has reviewed stay out.
            names: case names that the user has chosen, by the volume node's ID.

        Raises:
            StoreError: the data set cannot be read.
        """
        stored = writer.cases() if writer is not None else ()
        rows = [self._row(*pair, acceptedOnly) for pair in volumePairs(self._scene or slicer.mrmlScene)]
        return _chosenOnce(list(_named(rows, stored, names or {})))

    def _row(self, volume: Any | None, segmentation: Any | None, acceptedOnly: bool) -> ExportRow:
        named = volume or segmentation
        assert named is not None  # a pair has one of them
        title = named.GetName() or ""
        row = ExportRow(volume, segmentation, title)
        if volume is None:
            return replace(
                row,
                problem=_(
                    "the volume of this segmentation is not known: choose it as source geometry (Segment Editor)"
                ),
            )
        if volume.IsA("vtkMRMLLabelMapVolumeNode"):
            return replace(row, problem=_("a label map, not a CT: import it as segmentation (Segmentations module)"))
        try:
            geometry = VolumeGeometry(volume)
            source, problem = self._factsOf(geometry)
            row = replace(row, patient=patientOf(volume), source=source, notes=tuple(placeNotes(geometry)))
            if problem or segmentation is None:
                return replace(row, problem=problem or _("no nodules: segment them in the SAMMed3D module first"))
            reading = self._readingOf(segmentation, geometry)
        except SceneError as error:
            return replace(row, problem=str(error))
        return _withNodules(row, reading, geometry, acceptedOnly)

    def _factsOf(self, geometry: VolumeGeometry) -> tuple[str, str]:
        """The image's key, and why it is no CT ("" for one), from some of its slices: some 20 ms for a large CT."""

        def look() -> tuple[str, str]:
            array = geometry.array()
            return image_source(array), value_problem(array)

        return _kept(self._facts, geometry.volumeNode.GetID(), geometry.identity(), look)

    def _readingOf(self, segmentation: Any, geometry: VolumeGeometry) -> NoduleReading:
        key = (
            geometry.shapeKji,
            np.linalg.solve(segmentationToWorld(segmentation), geometry.ijkToWorld).tobytes(),
            tuple(_segmentKeys(segmentation)),
        )
        where = f"{segmentation.GetID()} {geometry.volumeNode.GetID()}"
        return _kept(self._readings, where, key, lambda: readNodules(segmentation, geometry.volumeNode))


def _kept(cache: dict, where: str, key: Hashable, make: Any) -> Any:
    known = cache.get(where)
    if known is None or known[0] != key:
        cache[where] = known = (key, make())
    return known[1]


def _segmentKeys(segmentation: Any) -> Iterator[tuple]:
    nodules = NoduleSegmentation(segmentation)
    for segmentId in nodules.ids:
        segment = nodules.segment(segmentId)
        image = segment.GetRepresentation(BINARY_LABELMAP)
        time = -1 if image is None else image.GetMTime()
        yield segmentId, segment.GetName(), segment.GetLabelValue(), time, nodules.status(segmentId)


def _withNodules(row: ExportRow, reading: NoduleReading, geometry: VolumeGeometry, acceptedOnly: bool) -> ExportRow:
    chosen = reading.chosen(acceptedOnly)
    accepted = sum(nodule.isAccepted for nodule in reading.nodules)
    row = replace(row, nodules=len(reading.nodules), accepted=accepted)
    notes = [*row.notes, *reading.notes]
    if not reading.nodules:
        return replace(row, notes=tuple(notes), problem=_("no nodules: its segments are empty or too large"))
    if not chosen:
        return replace(
            row,
            notes=tuple(notes),
            problem=_("no nodule is accepted: review them in the SAMMed3D module, or export all"),
        )
    if len(chosen) < len(reading.nodules):
        notes.append(
            _("not accepted, background in the label map: {count}").format(count=len(reading.nodules) - len(chosen))
        )
    elif accepted < len(chosen):
        notes.append(_("not reviewed by anybody: {count}").format(count=len(chosen) - accepted))
    notes += reading.notesOf(chosen)
    fingerprint = fingerprintOf(row.source, geometry.ijkToWorld, row.patient, nodulesDigest(chosen))
    return replace(row, notes=tuple(notes), state=NEW, included=True, fingerprint=fingerprint)


def _named(rows: Sequence[ExportRow], stored: Sequence[StoredCase], names: Mapping[str, str]) -> Iterator[ExportRow]:
    """Yields the rows with case names, one for each image, and with their state in the data set."""
    bySource: dict[str, str] = {}
    for row in rows:
        if row.volumeNode is None or not row.source:
            yield row
            continue
        chosen = names.get(row.volumeNode.GetID(), "")
        name = bySource.get(row.source)
        if name is None and chosen:
            name = safe_case_name(chosen)
        elif name is None:
            name = name_for(stored, row.title, row.source, list(bySource.values()))
        if row.state != PROBLEM:
            bySource[row.source] = name
        yield _compared(replace(row, caseName=name), stored)


def _compared(row: ExportRow, stored: Sequence[StoredCase]) -> ExportRow:
    case = next((case for case in stored if same_name(case.name, row.caseName)), None)
    if row.state == PROBLEM or case is None:
        return row
    if not case.source or case.source != row.source or case.name != row.caseName:
        return _refused(row, _("the data set has another case of this name: choose another name"))
    if not case.is_own:
        return _refused(row, _("in the data set it was {problem}: choose another name").format(problem=case.problem))
    if case.fingerprint == row.fingerprint and not case.problem:
        return replace(row, state=UNCHANGED, included=False)
    return replace(row, state=CHANGED)


def _refused(row: ExportRow, problem: str) -> ExportRow:
    return replace(row, state=PROBLEM, problem=problem, included=False)


def _chosenOnce(rows: list[ExportRow]) -> list[ExportRow]:
    """Chooses one of the rows of each image: the one that the data set holds already, else the first."""
    first = {row.caseName: row for row in rows if row.state == UNCHANGED}
    for index, row in enumerate(rows):
        if row.state in (PROBLEM, UNCHANGED):
            continue
        before = next((other for name, other in first.items() if same_name(name, row.caseName)), None)
        if before is None:
            first[row.caseName] = row
        elif before.source != row.source:
            rows[index] = _refused(
                row, _("'{name}' is the name of another row: choose another").format(name=row.caseName)
            )
        elif before.volumeNode is not row.volumeNode:
            note = _("the same image as '{title}': one of them is enough").format(title=before.title)
            rows[index] = replace(row, included=False, notes=(*row.notes, note))
        else:
            other = before.segmentationNode
            assert other is not None  # a row that can be chosen has both nodes
            note = _("the nodules are taken from '{name}': choose one of the two").format(name=other.GetName())
            rows[index] = replace(row, included=False, notes=(*row.notes, note))
    return rows


# -- volumes of the scene ----------------------------------------------------------------------------------------------


def placeNotes(geometry: VolumeGeometry) -> list[str]:
    """Lists what is unusual about a volume's geometry."""
    matrix = geometry.ijkToWorld
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    notes = []
    if np.allclose(np.abs(matrix), np.eye(4)):
        notes.append(_("the geometry is missing (spacing 1, origin 0)"))
    elif spacing.max() > _THICKEST_MM:
        notes.append(_("voxels of up to {mm:.1f} mm").format(mm=spacing.max()))
    if is_sheared(matrix):
        notes.append(_("its transform makes the voxels oblique-angled: nnU-Net cannot read such files"))
    return notes


def patientOf(volumeNode: Any) -> str:
    """Finds the patient ID of a volume from DICOM: of the node, its place in the subject hierarchy, or the database.

    "" where there is none, or a placeholder such as "ANONYMOUS".
    """
    for read in (_fromNode, _fromHierarchy, _fromDatabase):
        name = " ".join(read(volumeNode).split())
        if name and not _NOBODY.match(name):
            return name
    return ""


def _fromNode(volumeNode: Any) -> str:
    return volumeNode.GetAttribute(_ID_ATTRIBUTE) or ""


def _fromHierarchy(volumeNode: Any) -> str:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    item = hierarchy.GetItemByDataNode(volumeNode) if hierarchy is not None else 0
    if not item:
        return ""
    patient = hierarchy.GetItemAncestorAtLevel(item, "Patient")
    if not patient:
        return ""
    return hierarchy.GetItemAttribute(patient, _ID_ATTRIBUTE) or hierarchy.GetItemName(patient) or ""


def _fromDatabase(volumeNode: Any) -> str:
    uids = (volumeNode.GetAttribute(_UIDS_ATTRIBUTE) or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not uids or database is None:
        return ""
    # A database that is closed or damaged is no reason not to export.
    with suppress(Exception):
        return database.instanceValue(uids[0], _PATIENT_ID_TAG) or ""
    return ""


def volumePairs(scene: Any) -> list[tuple[Any | None, Any | None]]:
    """Lists all volumes of the scene with their segmentations, in the scene's order; SAMMed3D's nodules come first.

    One of both is None where it stands alone.

    A segmentation names its volume as reference. One that names none (loaded from a file) belongs to the only volume
    that it lies in; segmentations that could belong to several, or to none, come last, alone.
    """
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", scene)
    volumes = [node for node in nodes if not node.GetHideFromEditors()]
    reference = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    found: dict[str, list[Any]] = {node.GetID(): [] for node in volumes}
    alone = []
    for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene):
        if segmentation.GetHideFromEditors() or segmentation.GetAttribute(LUNGS_ATTRIBUTE):
            continue
        volume = segmentation.GetNodeReference(reference) or _surrounding(segmentation, volumes)
        if volume is not None and volume.GetID() in found:
            found[volume.GetID()].append(segmentation)
        elif segmentation.GetSegmentation().GetNumberOfSegments():
            alone.append(segmentation)
    pairs = []
    for volume in volumes:
        segmentations = sorted(found[volume.GetID()], key=lambda node: not node.GetAttribute(OWN_ATTRIBUTE))
        pairs += [(volume, segmentation) for segmentation in segmentations or [None]]
    return pairs + [(None, segmentation) for segmentation in alone]


def _surrounding(segmentation: Any, volumes: list[Any]) -> Any | None:
    """Finds the only volume that the middle of every segment lies in, None where there are several or none."""
    centers = _centers(segmentation)
    if not len(centers):
        return None
    holders = []
    for volume in volumes:
        try:
            geometry = VolumeGeometry(volume)
        except SceneError:
            continue
        if all(geometry.contains(center) for center in centers):
            holders.append(volume)
    return holders[0] if len(holders) == 1 else None


def _centers(segmentation: Any) -> np.ndarray:
    """Returns world RAS (n, 3) of the middles of the segments that are not empty."""
    toWorldMatrix = toWorld(segmentation)
    if toWorldMatrix is None:
        return np.empty((0, 3))
    middles = []
    for segmentId in segmentation.GetSegmentation().GetSegmentIDs():
        bounds = [0.0] * 6
        segmentation.GetSegmentation().GetSegment(segmentId).GetBounds(bounds)
        low, high = np.array(bounds[::2]), np.array(bounds[1::2])
        if np.all(low <= high):
            middles.append((low + high) / 2)
    return transformPoints(toWorldMatrix, np.array(middles)) if middles else np.empty((0, 3))
