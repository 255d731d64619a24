"""Inference: from a volume and clicks to a mask in the volume's own voxels (numpy, scipy and torch only).

The names are imported when they are first used, so that who needs an error or a matrix does not wait for PyTorch.
"""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from ..finding.automatic_mask_generator import SamAutomaticMaskGenerator3D
    from ..model.profile import PreprocessingProfile
    from .embedding_cache import EmbeddingCache
    from .errors import InputError, PredictionCancelled
    from .measurements import NoduleRecord, measure_nodule
    from .prediction import Prediction
    from .predictor import SamPredictor3D
    from .preprocessing import Crop

__all__ = [
    "Crop",
    "EmbeddingCache",
    "InputError",
    "NoduleRecord",
    "Prediction",
    "PredictionCancelled",
    "PreprocessingProfile",
    "SamAutomaticMaskGenerator3D",
    "SamPredictor3D",
    "measure_nodule",
]

__getattr__ = lazy_names(
    __name__,
    {
        "..model.profile": ("PreprocessingProfile",),
        "..finding.automatic_mask_generator": ("SamAutomaticMaskGenerator3D",),
        ".embedding_cache": ("EmbeddingCache",),
        ".errors": ("InputError", "PredictionCancelled"),
        ".measurements": ("NoduleRecord", "measure_nodule"),
        ".prediction": ("Prediction",),
        ".predictor": ("SamPredictor3D",),
        ".preprocessing": ("Crop",),
    },
)
