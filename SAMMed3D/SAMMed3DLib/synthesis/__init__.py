"""Synthetic nodules with real shapes: for training, for the demo phantom and for tests."""

from .nodules import NoduleAppearance, paint_nodule, random_appearance
from .shapes import NoduleShape, NoduleShapes

__all__ = ["NoduleAppearance", "NoduleShape", "NoduleShapes", "paint_nodule", "random_appearance"]
