"""Tabulates what of the scene can be exported and the problems of each row, before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import slicer

from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation
from SAMMed3DLib.scene.segment_writer import BINARY_LABELMAP, segmentationToWorld
from SAMMed3DLib.scene.volume_geometry import SceneError, VolumeGeometry
from SAMMed3DLib.translation import tr as _

from ..store.case_names import safe_case_name, same_name
from ..store.dataset_writer import DatasetWriter, name_for
from ..store.export_case import StoredCase
from .nodule_labels import NoduleReading, nodulesDigest, readNodules
from .volume_facts import VolumeFacts, VolumePair, patientOf, placeNotes, volumeFacts, volumePairs

NEW, CHANGED, UNCHANGED, PROBLEM = "new", "changed", "unchanged", "problem"


@dataclass(frozen=True)
class ExportRow:
    """One volume with one segmentation of it.

    Attributes:
        volumeNode: None for a segmentation without a volume.
        segmentationNode: None for a volume without nodules.
        title: what the user calls it.
        caseName: under which it is, or is to be, stored.
        patient: "" where nobody says.
        nodules: number that can be exported.
        accepted: how many of them somebody has reviewed.
        state: "new", "changed" (since it was written), "unchanged", or "problem": cannot be written.
        problem: what stands in the way and what to do, "" otherwise.
        notes: what the user should know; nothing is left out in silence.
        included: whether it is to be written.
        sizeBytes: disk space it takes at most, roughly.
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
    sizeBytes: int = 0
    source: str = ""
    fingerprint: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What stays the same of a row while the scene changes: the nodes' IDs, "" for none."""
        volume, segmentation = self.volumeNode, self.segmentationNode
        return volume.GetID() if volume else "", segmentation.GetID() if segmentation else ""


def exportRows(writer: DatasetWriter | None = None, acceptedOnly: bool = False, scene: Any = None) -> list[ExportRow]:
    """The table once; see :meth:`ExportTable.rows`."""
    return ExportTable(scene).rows(writer, acceptedOnly)


def fingerprintOf(source: str, ijkToWorld: np.ndarray, patient: str, digest: str) -> str:
    """Changes with anything that is written of a case."""
    text = f"{source} {np.round(ijkToWorld, 5).tolist()} {patient} {digest}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class ExportTable:
    """The rows of a scene. What was read of a node is kept until the node changes: asking again is cheap.

    Args:
        scene: default the application's.
    """

    def __init__(self, scene: Any = None) -> None:
        self._scene = scene
        self._facts: dict[str, tuple[Hashable, VolumeFacts]] = {}
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
        rows: list[ExportRow] = []
        for pair in volumePairs(self._scene or slicer.mrmlScene):
            rows.append(self._row(pair, acceptedOnly))
        return _chosenOnce(list(_named(rows, stored, names or {})))

    def _row(self, pair: VolumePair, acceptedOnly: bool) -> ExportRow:
        volume, segmentation = pair.volumeNode, pair.segmentationNode
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
            facts = self._factsOf(geometry)
            row = replace(
                row,
                patient=patientOf(volume),
                source=facts.source,
                notes=tuple(placeNotes(geometry)),
                sizeBytes=int(np.prod(geometry.shapeKji)) * 2,
            )
            if facts.problem or segmentation is None:
                return replace(row, problem=facts.problem or _("no nodules: segment them in the SAMMed3D module first"))
            reading = self._readingOf(segmentation, geometry)
        except SceneError as error:
            return replace(row, problem=str(error))
        return _withNodules(row, reading, geometry, acceptedOnly)

    def _factsOf(self, geometry: VolumeGeometry) -> VolumeFacts:
        node = geometry.volumeNode
        return _kept(self._facts, node.GetID(), geometry.identity(), lambda: volumeFacts(geometry.array()))

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
    """The rows with case names, each image with one, and what they are to the data set."""
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
    """Of the rows of one image one is chosen: what the data set holds already, else the first."""
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
