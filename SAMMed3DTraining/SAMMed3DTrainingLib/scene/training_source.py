"""The scene as the session uses it: cases to write, volumes to rank.

Rows of the table become cases of a data set: the scene is read here, on the main thread, files are written on another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
from numpy.typing import NDArray

from SAMMed3DLib.scene.volume_geometry import Affine, SceneError, VolumeGeometry
from SAMMed3DLib.translation import tr as _

from ..store.dataset_writer import DatasetWriter
from ..store.export_case import ExportCase, image_source
from ..store.stepwise_export import MakeCase, PlannedCase, StepwiseExport
from .export_table import PROBLEM, ExportRow, ExportTable, fingerprintOf
from .nodule_labels import NoduleMask, arrange, nodulesDigest, readNodules

#: Copied in one step: some 10 ms, less than a drawn frame.
_PIECE_BYTES = 24 << 20


class TrainingSource:
    """Reads the scene; what it hands out for a thread holds arrays and matrices, no nodes."""

    def __init__(self) -> None:
        self._scene = slicer.mrmlScene
        self._table = ExportTable(self._scene)

    def rows(self, folder: Path | None, acceptedOnly: bool, names: Mapping[str, str]) -> Sequence[Any]:
        """The table of cases, with every problem in words; nothing is written.

        Args:
            names: of cases, by the ID of their volume node, as the user typed them.
        """
        return self._table.rows(None if folder is None else DatasetWriter(folder), acceptedOnly, names)

    @staticmethod
    def folderProblem(folder: Path) -> str:
        """Returns why no case can be written into a folder; "" where one can."""
        return DatasetWriter(folder).problem

    @staticmethod
    def caseCount(folder: Path) -> int:
        """Counts the cases of a data set."""
        return len(DatasetWriter(folder).cases())

    @staticmethod
    def export(rows: Sequence[Any], folder: Path, acceptedOnly: bool) -> StepwiseExport:
        """Makes the export of the rows. Raises StoreError where the folder cannot take them."""
        return sceneExport(rows, DatasetWriter(folder), acceptedOnly)

    @staticmethod
    def importFiles(source: Path, folder: Path) -> StepwiseExport:
        """Makes the export of a folder's pairs of image and label files. Raises ValueError where there is none."""
        from ..store.folder_import import find_pairs, folder_import

        pairs = find_pairs(source)
        if not pairs:
            raise ValueError(
                f"{source} holds no pair of image and label files: name both alike, or put them into "
                "folders imagesTr and labelsTr."
            )
        return folder_import(pairs, DatasetWriter(folder))

    def unlabelled(self) -> list[Any]:
        """Volumes of the scene without a single nodule."""
        rows = self._table.rows(None, False)
        labelled = {row.volumeNode.GetID() for row in rows if row.volumeNode is not None and row.nodules}
        found = {row.volumeNode.GetID(): row.volumeNode for row in rows if row.volumeNode is not None}
        return [node for nodeId, node in found.items() if nodeId not in labelled and node.GetImageData() is not None]

    @staticmethod
    def volumeData(volumeNode: Any) -> tuple[Any, Any]:
        """Voxels (a view that keeps them alive) and matrix to world RAS. Raises SceneError."""
        geometry = VolumeGeometry(volumeNode)
        return geometry.array(), geometry.ijkToWorld

    @staticmethod
    def writeVolume(data: tuple[Any, Any], path: Path) -> None:
        """Writes a NIfTI file for a child process; takes a second and is safe on a thread."""
        from ..store.nifti_file import write_nifti

        write_nifti(path, *data)


def readCase(files: Any) -> dict[str, Any]:
    """Reads image, truth, old and new masks of a compared case; for a thread (seconds).

    Returns:
        "image", "truth", "old", "new": arrays [k, j, i]; "ijkToRas": (4, 4) of the image.

    Raises:
        InputError: a file cannot be read.
    """
    from SAMMed3DLib.files.volume_io import read_labels, read_volume

    image = read_volume(files.image)
    result = {"image": image.array_kji, "ijkToRas": image.ijk_to_ras}
    for name in ("truth", "old", "new"):
        result[name] = read_labels(getattr(files, name)).array_kji
    return result


def sceneExport(rows: Sequence[ExportRow], writer: DatasetWriter, acceptedOnly: bool = False) -> StepwiseExport:
    """Makes the export of the included rows; its steps run on the main thread, what they yield on the worker thread.

    The scene may change meanwhile: a volume is copied, in a few steps, before its case is written and then let go.

    Args:
        rows: of the table; those not included, and those with problems, are left out.
        writer: the data set.
        acceptedOnly: whether nodules that nobody has reviewed stay out.
    """
    chosen = [row for row in rows if row.included and row.state != PROBLEM]
    return StepwiseExport([PlannedCase(row.caseName, _reader(row, acceptedOnly)) for row in chosen], writer)


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
