"""Makes and finds nodes that belong to a volume, beside it in the scene's tree and under its transform."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

from .volume_geometry import Affine, VolumeGeometry, toArray, toWorld


def findBeside(volumeNode: Any, className: str, mark: str, role: str) -> Any | None:
    """Finds the node of a class that has the attribute ``mark`` and refers to a volume by ``role``; None without."""
    if volumeNode is None or volumeNode.GetScene() is None:
        return None
    for node in slicer.util.getNodesByClass(className, volumeNode.GetScene()):
        if node.GetAttribute(mark) and node.GetNodeReference(role) is volumeNode:
            return node
    return None


def ownerOf(segmentationNode: Any) -> Any | None:
    """Returns the volume that a segmentation was made for, None where that is not known."""
    return segmentationNode.GetNodeReference(segmentationNode.GetReferenceImageGeometryReferenceRole())


def createBeside(volumeNode: Any, className: str, mark: str, purpose: str) -> Any:
    """Makes a displayable node under the volume's parent transform, named "<volume> <purpose>" and marked.

    Raises:
        SceneError: as VolumeGeometry.
    """
    VolumeGeometry(volumeNode)
    scene = volumeNode.GetScene()
    node = scene.AddNewNodeByClass(className, scene.GenerateUniqueName(f"{volumeNode.GetName()} {purpose}"))
    node.SetAttribute(mark, "1")
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    _putBeside(node, volumeNode)
    return node


@contextmanager
def placingStays(scene: Any, fillsNone: bool = False) -> Iterator[None]:
    """Keeps the target of Slicer's toolbar for placing points, which switches to each new list.

    Args:
        scene: the scene.
        fillsNone: a list that is made within the block becomes the target where there was none.
    """
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    before = None if selection is None else selection.GetActivePlaceNodeID()
    className = None if selection is None else selection.GetActivePlaceNodeClassName()
    yield
    if selection is None or (before and scene.GetNodeByID(before) is None) or (fillsNone and not before):
        return
    selection.SetReferenceActivePlaceNodeClassName(className or None)
    selection.SetActivePlaceNodeID(before or None)


def _putBeside(node: Any, volumeNode: Any) -> None:
    """Put a node where its volume is in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    volumeItem = hierarchy.GetItemByDataNode(volumeNode) if hierarchy is not None else 0
    if volumeItem:
        parent = hierarchy.GetItemParent(volumeItem)
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node)
        hierarchy.SetItemParent(item, parent)


class SharedTransform:
    """Moves the nodes that were under a volume's transform along when the volume is put under another one.

    Nodes that the user put elsewhere stay there. Hardening the transform leaves the volume where it is in the world, so
    that nothing has to follow.
    """

    def __init__(self, volumeNode: Any, followers: Sequence[Any]) -> None:
        self._volume = volumeNode
        self._followers = list(followers)
        self._transformId = volumeNode.GetTransformNodeID()
        self._local, self._place = _matrices(volumeNode)
        self._tag = volumeNode.AddObserver(volumeNode.TransformModifiedEvent, self._onTransformModified)

    def close(self) -> None:
        """Stop following."""
        self._volume.RemoveObserver(self._tag)
        self._followers = []

    def _onTransformModified(self, _caller: Any, _event: str) -> None:
        before, local, place = self._transformId, self._local, self._place
        self._transformId = self._volume.GetTransformNodeID()
        self._local, self._place = _matrices(self._volume)
        if self._transformId == before:
            return
        hardened = not _same(local, self._local) and _same(place, self._place)
        if hardened:
            return
        for node in self._followers:
            if node.GetScene() is not None and node.GetTransformNodeID() == before:
                node.SetAndObserveTransformNodeID(self._transformId)


def _matrices(volumeNode: Any) -> tuple[Affine, Affine | None]:
    """Returns the matrices from voxel index to the volume's RAS and to the world (None if that is not linear)."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    local, rasToWorld = toArray(matrix), toWorld(volumeNode)
    return local, None if rasToWorld is None else rasToWorld @ local


def _same(first: Affine | None, second: Affine | None) -> bool:
    return first is not None and second is not None and np.allclose(first, second, atol=1e-6)
