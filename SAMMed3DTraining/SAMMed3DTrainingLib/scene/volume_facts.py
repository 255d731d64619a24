"""Tells of a volume, without looking at every voxel, which image it is, whose, and whether it is a CT."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from SAMMed3DLib.scene.volume_geometry import VolumeGeometry
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
