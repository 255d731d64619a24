"""Rows of the table into a data set: the scene is read here, on the main thread; files are written on another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.scene.volume_geometry import Affine, SceneError, VolumeGeometry
from SAMMed3DLib.translation import tr as _

from ..store.dataset_writer import DatasetWriter
from ..store.export_case import ExportCase, image_source
from ..store.stepwise_export import MakeCase, PlannedCase, StepwiseExport
from .export_table import PROBLEM, ExportRow, fingerprintOf
from .nodule_labels import NoduleMask, arrange, nodulesDigest, readNodules

#: Copied in one step: some 10 ms, less than a drawn frame.
_PIECE_BYTES = 24 << 20


def sceneExport(rows: Sequence[ExportRow], writer: DatasetWriter, acceptedOnly: bool = False) -> StepwiseExport:
    """What writes the included rows; its steps belong on the main thread, what they yield on the worker thread.

    The scene may change meanwhile: a volume is copied, in a few steps, before its case is written and then let go.

    Args:
        rows: of the table; those not included, and those with problems, are left out.
        writer: the data set.
        acceptedOnly: whether nodules that nobody has reviewed stay out.
    """
    chosen = [row for row in rows if row.included and row.state != PROBLEM]
    return StepwiseExport([PlannedCase(row.caseName, _reader(row, acceptedOnly)) for row in chosen], writer)


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
    *_read, make = _pieces(row, acceptedOnly)
    assert make is not None  # the last piece
    return make()


def volumeImage(volumeNode: Any) -> tuple[NDArray, Affine]:
    """A copy of a volume's voxels [k, j, i] and its matrix to the world, for a thread that writes or reads them.

    Raises:
        SceneError: as VolumeGeometry.
    """
    geometry = VolumeGeometry(volumeNode)
    return np.array(geometry.array()), geometry.ijkToWorld


def _reader(row: ExportRow, acceptedOnly: bool) -> Callable[[], Iterator[MakeCase | None]]:
    return lambda: _pieces(row, acceptedOnly)


def _pieces(row: ExportRow, acceptedOnly: bool) -> Iterator[MakeCase | None]:
    """Copies a volume piece by piece; what it gives at last needs no node any more."""
    geometry = _geometry(row)
    nodules = readNodules(row.segmentationNode, row.volumeNode).chosen(acceptedOnly)
    if not nodules:
        raise SceneError(_("'{title}' has no nodule to export.").format(title=row.title))
    array, identity = geometry.array(), geometry.identity()
    copied = np.empty_like(array)
    slices = max(1, _PIECE_BYTES // max(1, array[0].nbytes))
    for start in range(0, len(array), slices):
        if start and _geometry(row).identity() != identity:
            raise SceneError(_("'{title}' was changed while it was read: export it again.").format(title=row.title))
        copied[start : start + slices] = array[start : start + slices]
        yield None
    ijkToWorld = geometry.ijkToWorld
    yield lambda: _case(row, copied, ijkToWorld, nodules)


def _case(row: ExportRow, array: NDArray, ijkToWorld: Affine, nodules: Sequence[NoduleMask]) -> ExportCase:
    """Makes the case from arrays; runs on the worker thread, so it touches no node."""
    arrangement, source = arrange(nodules), image_source(array)
    fingerprint = fingerprintOf(source, ijkToWorld, row.patient, nodulesDigest(nodules))
    labels = arrangement.labels(array.shape)
    return ExportCase(row.caseName, row.patient, array, ijkToWorld, labels, arrangement.names, source, fingerprint)


def _geometry(row: ExportRow) -> VolumeGeometry:
    for node in (row.volumeNode, row.segmentationNode):
        if node is None or node.GetScene() is None:
            raise SceneError(_("'{title}' is not in the scene any more.").format(title=row.title))
    return VolumeGeometry(row.volumeNode)
