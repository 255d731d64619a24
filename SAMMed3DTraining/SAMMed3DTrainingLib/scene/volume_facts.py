"""Tells which volumes are CTs, which image each is, whose, and which segmentation belongs to it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import slicer.util
from numpy.typing import NDArray

from SAMMed3DLib.scene.nodule_segmentation import OWN_ATTRIBUTE
from SAMMed3DLib.scene.volume_geometry import SceneError, VolumeGeometry, toWorld, transformPoints
from SAMMed3DLib.translation import tr as _

from ..store.export_case import image_source
from ..store.nifti_file import is_sheared, value_problem

_THICKEST_MM = 5.0
_PATIENT_ID_TAG = "0010,0020"
_UIDS_ATTRIBUTE = "DICOM.instanceUIDs"
_ID_ATTRIBUTE = "DICOM.PatientID"
#: What de-identified studies have instead of an ID: the same for everybody.
_NOBODY = re.compile(r"(?i)^\W*(anon\w*|unknown|no[_ ]?name|none|n/?a|patient|test|x+|0*|-)\W*$")


@dataclass(frozen=True)
class VolumeFacts:
    """``source`` tells images apart (:func:`~..store.export_case.image_source`); ``problem`` is "" for a CT."""

    source: str
    problem: str


def volumeFacts(array: NDArray) -> VolumeFacts:
    """Looks at some slices of the voxels [k, j, i]: some 20 ms for a large CT."""
    return VolumeFacts(image_source(array), value_problem(array))


def placeNotes(geometry: VolumeGeometry) -> list[str]:
    """What is unusual about where a volume lies."""
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
    """The patient ID of a volume from DICOM: of the node, its place in the subject hierarchy, or the database.

    "" where nobody says, or where the ID says nothing ("ANONYMOUS").
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


@dataclass(frozen=True)
class VolumePair:
    """A volume and a segmentation of it; one of both is None where it stands alone."""

    volumeNode: Any | None
    segmentationNode: Any | None


def volumePairs(scene: Any) -> list[VolumePair]:
    """All volumes of the scene with their segmentations, in the scene's order; the nodules of SAMMed3D come first.

    A segmentation names its volume as reference. One that names none (loaded from a file) belongs to the only volume
    that it lies in; segmentations that could belong to several, or to none, come last, alone.
    """
    volumes = [node for node in _nodes(scene, "vtkMRMLScalarVolumeNode") if not node.GetHideFromEditors()]
    found: dict[str, list[Any]] = {node.GetID(): [] for node in volumes}
    alone = []
    for segmentation in _nodes(scene, "vtkMRMLSegmentationNode"):
        if segmentation.GetHideFromEditors():
            continue
        volume = _referenced(segmentation) or _surrounding(segmentation, volumes)
        if volume is not None and volume.GetID() in found:
            found[volume.GetID()].append(segmentation)
        elif segmentation.GetSegmentation().GetNumberOfSegments():
            alone.append(segmentation)
    pairs = []
    for volume in volumes:
        segmentations = sorted(found[volume.GetID()], key=lambda node: not node.GetAttribute(OWN_ATTRIBUTE))
        pairs += [VolumePair(volume, segmentation) for segmentation in segmentations or [None]]
    return pairs + [VolumePair(None, segmentation) for segmentation in alone]


def _nodes(scene: Any, className: str) -> list[Any]:
    return list(slicer.util.getNodesByClass(className, scene))


def _referenced(segmentation: Any) -> Any | None:
    return segmentation.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())


def _surrounding(segmentation: Any, volumes: list[Any]) -> Any | None:
    """The only volume that the middle of every segment lies in, None where there are several or none."""
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
    """World RAS (n, 3) of the middles of the segments that are not empty."""
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
