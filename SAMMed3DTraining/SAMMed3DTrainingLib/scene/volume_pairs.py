"""Which segmentation belongs to which volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import slicer.util

from SAMMed3DLib.scene.nodule_segmentation import OWN_ATTRIBUTE
from SAMMed3DLib.scene.volume_geometry import SceneError, VolumeGeometry, toWorld, transformPoints


@dataclass(frozen=True)
class VolumePair:
    """A volume and a segmentation of it; one of both is None where it stands alone."""

    volumeNode: Any | None
    segmentationNode: Any | None


def volumePairs(scene: Any) -> list[VolumePair]:
    """All volumes of the scene with their segmentations, in the scene's order; the nodules of SAMMed3D come first.

    A segmentation names its volume as reference. One that names none (loaded from a file) belongs to the only volume
    that it lies in; segmentations that could belong to several, or to none, come last, alone.
    """
    volumes = [node for node in _nodes(scene, "vtkMRMLScalarVolumeNode") if not node.GetHideFromEditors()]
    found: dict[str, list[Any]] = {node.GetID(): [] for node in volumes}
    alone = []
    for segmentation in _nodes(scene, "vtkMRMLSegmentationNode"):
        if segmentation.GetHideFromEditors():
            continue
        volume = _referenced(segmentation) or _surrounding(segmentation, volumes)
        if volume is not None and volume.GetID() in found:
            found[volume.GetID()].append(segmentation)
        elif segmentation.GetSegmentation().GetNumberOfSegments():
            alone.append(segmentation)
    pairs = []
    for volume in volumes:
        segmentations = sorted(found[volume.GetID()], key=lambda node: not node.GetAttribute(OWN_ATTRIBUTE))
        pairs += [VolumePair(volume, segmentation) for segmentation in segmentations or [None]]
    return pairs + [VolumePair(None, segmentation) for segmentation in alone]


def _nodes(scene: Any, className: str) -> list[Any]:
    return list(slicer.util.getNodesByClass(className, scene))


def _referenced(segmentation: Any) -> Any | None:
    return segmentation.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())


def _surrounding(segmentation: Any, volumes: list[Any]) -> Any | None:
    """The only volume that the middle of every segment lies in, None where there are several or none."""
    centers = _centers(segmentation)
    if not len(centers):
        return None
    holders = []
    for volume in volumes:
        try:
            geometry = VolumeGeometry(volume)
        except SceneError:
            continue
        if all(geometry.contains(center) for center in centers):
            holders.append(volume)
    return holders[0] if len(holders) == 1 else None


def _centers(segmentation: Any) -> np.ndarray:
    """World RAS (n, 3) of the middles of the segments that are not empty."""
    toWorldMatrix = toWorld(segmentation)
    if toWorldMatrix is None:
        return np.empty((0, 3))
    middles = []
    for segmentId in segmentation.GetSegmentation().GetSegmentIDs():
        bounds = [0.0] * 6
        segmentation.GetSegmentation().GetSegment(segmentId).GetBounds(bounds)
        low, high = np.array(bounds[::2]), np.array(bounds[1::2])
        if np.all(low <= high):
            middles.append((low + high) / 2)
    return transformPoints(toWorldMatrix, np.array(middles)) if middles else np.empty((0, 3))
