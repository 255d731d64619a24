"""Synthetic nodules with real shapes: for training, for the demo phantom and for tests."""

from .nodules import NoduleAppearance, paint_nodule, random_appearance
from .phantom import ChestPhantom, chest_phantom
from .shapes import NoduleShape, NoduleShapes

__all__ = [
    "ChestPhantom",
    "NoduleAppearance",
    "NoduleShape",
    "NoduleShapes",
    "chest_phantom",
    "paint_nodule",
    "random_appearance",
]
