"""Nodes that this module makes for a volume: beside it in the scene's tree, and found again in a reopened scene."""

from __future__ import annotations

from typing import Any

import slicer
import slicer.util

from .volume_geometry import VolumeGeometry


def findBeside(volumeNode: Any, className: str, mark: str, role: str) -> Any | None:
    """The node of a class that carries the attribute ``mark`` and refers to a volume by ``role``; None without."""
    if volumeNode is None or volumeNode.GetScene() is None:
        return None
    for node in slicer.util.getNodesByClass(className, volumeNode.GetScene()):
        if node.GetAttribute(mark) and node.GetNodeReference(role) is volumeNode:
            return node
    return None


def createBeside(volumeNode: Any, className: str, mark: str, purpose: str) -> Any:
    """A new displayable node under the volume's parent transform, named "<volume> <purpose>" and marked.

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


def _putBeside(node: Any, volumeNode: Any) -> None:
    """Put a node where its volume is in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    volumeItem = hierarchy.GetItemByDataNode(volumeNode) if hierarchy is not None else 0
    if volumeItem:
        parent = hierarchy.GetItemParent(volumeItem)
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node)
        hierarchy.SetItemParent(item, parent)
