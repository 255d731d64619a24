"""Checks a volume, as soon as it is chosen, for oddities that matter when nodules are measured."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer

from ..translation import tr as _
from .volume_geometry import SceneError, VolumeGeometry

_UIDS_ATTRIBUTE = "DICOM.instanceUIDs"


@dataclass(frozen=True)
class Oddities:
    """The oddities of a volume.

    Attributes:
        grave: those that make volumes or diameters doubtful, one sentence each.
        others: those that are only worth knowing.
    """

    grave: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def details(self) -> str:
        """All oddities, one a line."""
        return "\n".join((*self.grave, *self.others))


def odditiesOf(volumeNode: Any) -> Oddities:
    """Checks the geometry, a sample of the voxels, and the DICOM header where Slicer's database has it."""
    from ..inference.validation import hounsfield_doubt
    from ..report.scan_facts import DIAMETER, VOLUME, scan_of

    try:
        geometry = VolumeGeometry(volumeNode)
    except SceneError:
        return Oddities()  # it cannot be opened, which others say
    array = geometry.array()
    scan = scan_of(array, geometry.ijkToWorld, volumeNode.GetName() or "", dicomFile(volumeNode))
    grave: list[str] = []
    others: list[str] = []
    if scan.modality not in (None, "CT"):
        grave.append(_("it is of modality {modality}, not a CT").format(modality=scan.modality))
    doubt = hounsfield_doubt(array)
    if doubt:
        grave.append(str(doubt))
    for caveat in scan.caveats:
        (grave if {VOLUME, DIAMETER} & set(caveat.spoils) else others).append(caveat.text)
    return Oddities(tuple(grave), tuple(others))


def seriesUid(volumeNode: Any) -> str:
    """The DICOM series that a volume was loaded from; "" where Slicer's DICOM database does not have it."""
    from ..report.scan_facts import series_header

    file = dicomFile(volumeNode)
    header = None if file is None else series_header(file, VolumeGeometry(volumeNode).shapeKji)
    return "" if header is None else str(header.get("SeriesInstanceUID") or "")


def dicomFile(volumeNode: Any) -> Path | None:
    """One file of the series that a volume was loaded from, None where Slicer's DICOM database does not have it."""
    uids = (volumeNode.GetAttribute(_UIDS_ATTRIBUTE) or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not uids or database is None:
        return None
    with suppress(Exception):  # a database that is closed or damaged is no reason not to click
        path = Path(str(database.fileForInstance(uids[0]) or ""))
        return path if path.is_file() else None
    return None
