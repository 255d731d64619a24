"""Whose volume it is: cases of one patient must come into the same part of a split."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import slicer

_PATIENT_ID_TAG = "0010,0020"
_UIDS_ATTRIBUTE = "DICOM.instanceUIDs"
_ID_ATTRIBUTE = "DICOM.PatientID"
#: What de-identified studies have instead of an ID: the same for everybody.
_NOBODY = re.compile(r"(?i)^\W*(anon\w*|unknown|no[_ ]?name|none|n/?a|patient|test|x+|0*|-)\W*$")


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
