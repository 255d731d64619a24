"""The networks: SAM-Med3D exactly (``vit_b_ori`` and its sizes) and the compact ``nodule`` net."""

from .checkpoint import CheckpointError, load_model, save_checkpoint
from .precision import DeviceError
from .profile import PROFILES, PreprocessingProfile, profile_by_name
from .registry import build_model, model_names
from .sam import Sam3D

__all__ = [
    "PROFILES",
    "CheckpointError",
    "DeviceError",
    "PreprocessingProfile",
    "Sam3D",
    "build_model",
    "load_model",
    "model_names",
    "profile_by_name",
    "save_checkpoint",
]
