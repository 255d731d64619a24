"""The point list that holds the prompts of a volume's nodules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .beside_volume import createBeside, findBeside
from .prompt_store import OWN_ATTRIBUTE

VOLUME_ROLE = "SAMMed3D.Volume"
_CLASS = "vtkMRMLMarkupsFiducialNode"
#: Points that add are "selected" ones.
POSITIVE_COLOR, NEGATIVE_COLOR = (0.15, 0.95, 0.25), (1.0, 0.15, 0.15)


def findPrompts(volumeNode: Any) -> Any | None:
    """The point list that :func:`createPrompts` made for a volume, also in a reopened scene; None without."""
    return findBeside(volumeNode, _CLASS, OWN_ATTRIBUTE, VOLUME_ROLE)


def createPrompts(volumeNode: Any) -> Any:
    """A new point list with the volume's parent transform, beside it in the subject hierarchy, saved with the scene.

    Raises:
        SceneError: as VolumeGeometry.
    """
    with _placingStays(volumeNode.GetScene()):
        node = createBeside(volumeNode, _CLASS, OWN_ATTRIBUTE, "prompts")
    node.SetNodeReferenceID(VOLUME_ROLE, volumeNode.GetID())
    display = node.GetDisplayNode()
    display.SetSelectedColor(*POSITIVE_COLOR)
    display.SetColor(*NEGATIVE_COLOR)
    display.SetPropertiesLabelVisibility(False)
    # Small nodules are not to vanish behind their prompts (default 3).
    display.SetGlyphScale(2.0)
    return node


@contextmanager
def _placingStays(scene: Any) -> Iterator[None]:
    """Slicer's toolbar goes on placing into the user's list, where there is one: it takes every new list for that."""
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    before = None if selection is None else selection.GetActivePlaceNodeID()
    className = None if selection is None else selection.GetActivePlaceNodeClassName()
    yield
    if before and scene.GetNodeByID(before) is not None:
        selection.SetReferenceActivePlaceNodeClassName(className)
        selection.SetActivePlaceNodeID(before)
