"""The scene as the session uses it: cases to write, volumes to rank."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
import slicer.util

from SAMMed3DLib.scene.volume_geometry import VolumeGeometry

from ..store.dataset_writer import DatasetWriter
from ..store.stepwise_export import StepwiseExport
from .export_table import ExportTable
from .scene_export import sceneExport


class TrainingSource:
    """Reads the scene; what it hands out for a thread holds arrays and matrices, no nodes.

    Args:
        scene: default the application's.
    """

    def __init__(self, scene: Any = None) -> None:
        self._scene = slicer.mrmlScene if scene is None else scene
        self._table = ExportTable(self._scene)

    def rows(self, folder: Path | None, acceptedOnly: bool, names: Mapping[str, str]) -> Sequence[Any]:
        """The table of cases, with every problem in words; nothing is written.

        Args:
            names: of cases, by the ID of their volume node, as the user typed them.
        """
        return self._table.rows(None if folder is None else DatasetWriter(folder), acceptedOnly, names)

    @staticmethod
    def key(row: Any) -> Hashable:
        """What stays the same of a row while the scene changes."""
        return tuple(None if node is None else node.GetID() for node in (row.volumeNode, row.segmentationNode))

    @staticmethod
    def folderProblem(folder: Path) -> str:
        """Why no case can be written into a folder; "" where one can."""
        return DatasetWriter(folder).problem

    @staticmethod
    def caseCount(folder: Path) -> int:
        """How many cases with nodules a data set has."""
        return len(DatasetWriter(folder).cases())

    @staticmethod
    def export(rows: Sequence[Any], folder: Path, acceptedOnly: bool) -> StepwiseExport:
        """What writes the rows. Raises StoreError where the folder cannot take them."""
        return sceneExport(rows, DatasetWriter(folder), acceptedOnly)

    @staticmethod
    def importFiles(source: Path, folder: Path) -> StepwiseExport:
        """What writes pairs of image and label files of a folder. Raises ValueError where there is none."""
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
        """A NIfTI file for a child process; takes a second and is safe on a thread."""
        from ..store.nifti_file import write_nifti

        write_nifti(path, *data)


def readCase(files: Any) -> dict[str, Any]:
    """Image, truth, old and new masks of a compared case; for a thread (seconds).

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


ReadCase = Callable[[Any], dict[str, Any]]
