"""Rows of the table into a data set: the scene is read here, on the main thread; files are written on another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.scene.errors import SceneError
from SAMMed3DLib.scene.matrices import Affine
from SAMMed3DLib.scene.translation import tr as _
from SAMMed3DLib.scene.volume_geometry import VolumeGeometry

from ..store.dataset_writer import DatasetWriter
from ..store.export_case import ExportCase, image_source
from ..store.stepwise_export import ExportJob, StepwiseExport
from .export_table import PROBLEM, ExportRow, fingerprintOf
from .nodule_labels import labelMap, nodulesDigest, readNodules


class SceneExport(StepwiseExport):
    """Writes the included rows; :meth:`step` belongs on the main thread, called by a timer until it returns False.

    The scene may change meanwhile: each volume is read, copied and let go in the step that begins its case.

    Args:
        rows: of the table; those not included, and those with problems, are left out.
        writer: the data set.
        acceptedOnly: whether nodules that nobody has reviewed stay out.
    """

    def __init__(self, rows: Sequence[ExportRow], writer: DatasetWriter, acceptedOnly: bool = False) -> None:
        chosen = [row for row in rows if row.included and row.state != PROBLEM]
        super().__init__([ExportJob(row.caseName, _reader(row, acceptedOnly)) for row in chosen], writer)


def caseData(row: ExportRow, acceptedOnly: bool = False) -> ExportCase:
    """A row as case: voxels as they are, in the world (linear parent transforms applied, oblique axes kept).

    Args:
        row: of the table.
        acceptedOnly: whether nodules that nobody has reviewed stay out.

    Returns:
        Copies; no node is needed any more.

    Raises:
        SceneError: a node was removed, or cannot be used any more.
    """
    for node in (row.volumeNode, row.segmentationNode):
        if node is None or node.GetScene() is None:
            raise SceneError(_("'{title}' is not in the scene any more.").format(title=row.title))
    geometry = VolumeGeometry(row.volumeNode)
    nodules = readNodules(row.segmentationNode, row.volumeNode).chosen(acceptedOnly)
    if not nodules:
        raise SceneError(_("'{title}' has no nodule to export.").format(title=row.title))
    labels = labelMap(nodules, geometry.shapeKji)
    array = geometry.array()
    source = image_source(array)
    fingerprint = fingerprintOf(source, geometry.ijkToWorld, row.patient, nodulesDigest(nodules))
    return ExportCase(
        row.caseName, row.patient, array.copy(), geometry.ijkToWorld, labels.labels, labels.names, source, fingerprint
    )


def volumeImage(volumeNode: Any) -> tuple[NDArray, Affine]:
    """A copy of a volume's voxels [k, j, i] and its matrix to the world, for a thread that writes or reads them.

    Raises:
        SceneError: as VolumeGeometry.
    """
    geometry = VolumeGeometry(volumeNode)
    return np.array(geometry.array()), geometry.ijkToWorld


def _reader(row: ExportRow, acceptedOnly: bool) -> Callable[[], Callable[[], ExportCase]]:
    def prepare() -> Callable[[], ExportCase]:
        case = caseData(row, acceptedOnly)
        return lambda: case

    return prepare
