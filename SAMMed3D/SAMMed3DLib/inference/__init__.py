"""Inference: from a volume and clicks to a mask in the volume's own voxels (numpy, scipy and torch only)."""

from ..model.profile import PreprocessingProfile
from .errors import InputError

__all__ = ["InputError", "PreprocessingProfile"]
