"""The point list that holds the prompts of a volume's nodules."""

from __future__ import annotations

from typing import Any

import slicer
import slicer.util

from .nodule_segmentation import putBeside
from .prompt_store import OWN_ATTRIBUTE
from .volume_geometry import VolumeGeometry

VOLUME_ROLE = "SAMMed3D.Volume"
#: Points that add are "selected" ones.
POSITIVE_COLOR, NEGATIVE_COLOR = (0.15, 0.95, 0.25), (1.0, 0.15, 0.15)


def findPrompts(volumeNode: Any) -> Any | None:
    """The point list that :func:`createPrompts` made for a volume, also in a reopened scene; None without."""
    if volumeNode is None or volumeNode.GetScene() is None:
        return None
    for node in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode", volumeNode.GetScene()):
        if node.GetAttribute(OWN_ATTRIBUTE) and node.GetNodeReference(VOLUME_ROLE) is volumeNode:
            return node
    return None


def createPrompts(volumeNode: Any) -> Any:
    """A new point list with the volume's parent transform, beside it in the subject hierarchy, saved with the scene.

    Raises:
        SceneError: as VolumeGeometry.
    """
    VolumeGeometry(volumeNode)
    scene = volumeNode.GetScene()
    name = scene.GenerateUniqueName(f"{volumeNode.GetName()} prompts")
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    node.SetAttribute(OWN_ATTRIBUTE, "1")
    node.SetNodeReferenceID(VOLUME_ROLE, volumeNode.GetID())
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSelectedColor(*POSITIVE_COLOR)
    display.SetColor(*NEGATIVE_COLOR)
    display.SetPropertiesLabelVisibility(False)
    # Small nodules are not to vanish behind their prompts (default 3).
    display.SetGlyphScale(2.0)
    putBeside(node, volumeNode)
    return node
