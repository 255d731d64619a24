"""Keeps a volume's segmentation and point list under the volume's parent transform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import vtk

from .matrices import Affine, toArray, toWorld


class SharedTransform:
    """When the volume is put under another transform, the nodes that were under its old one follow.

    Nodes that the user put elsewhere stay there. Hardening the transform leaves the volume where it is in the world, so
    that nothing has to follow.
    """

    def __init__(self, volumeNode: Any, followers: Sequence[Any]) -> None:
        self._volume = volumeNode
        self._followers = list(followers)
        self._transformId = volumeNode.GetTransformNodeID()
        self._place = _place(volumeNode)
        self._tag = volumeNode.AddObserver(volumeNode.TransformModifiedEvent, self._onTransformModified)

    def close(self) -> None:
        """Stop following."""
        self._volume.RemoveObserver(self._tag)
        self._followers = []

    def _onTransformModified(self, _caller: Any, _event: str) -> None:
        before, beforePlace = self._transformId, self._place
        self._transformId, self._place = self._volume.GetTransformNodeID(), _place(self._volume)
        if self._transformId == before:
            return
        if beforePlace is not None and self._place is not None and np.allclose(beforePlace, self._place, atol=1e-6):
            return
        for node in self._followers:
            if node.GetScene() is not None and node.GetTransformNodeID() == before:
                node.SetAndObserveTransformNodeID(self._transformId)


def _place(volumeNode: Any) -> Affine | None:
    """Voxel index to world; None under a non-linear transform."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    rasToWorld = toWorld(volumeNode)
    return None if rasToWorld is None else rasToWorld @ toArray(matrix)
