"""The networks: SAM-Med3D exactly (``vit_b_ori`` and its sizes) and the compact ``nodule`` net.

The names are imported when they are first used: profiles do not need PyTorch.
"""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from .checkpoint import CheckpointError, load_model, save_checkpoint
    from .precision import DeviceError
    from .profile import PROFILES, PreprocessingProfile, profile_by_name
    from .registry import build_model
    from .sam import Sam3D
    from .sizes import model_names

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

__getattr__ = lazy_names(
    __name__,
    {
        ".checkpoint": ("CheckpointError", "load_model", "save_checkpoint"),
        ".precision": ("DeviceError",),
        ".profile": ("PROFILES", "PreprocessingProfile", "profile_by_name"),
        ".registry": ("build_model",),
        ".sam": ("Sam3D",),
        ".sizes": ("model_names",),
    },
)
