"""Inference: from a volume and clicks to a mask in the volume's own voxels (numpy, scipy and torch only)."""

from ..model.profile import PreprocessingProfile
from .automatic_mask_generator import SamAutomaticMaskGenerator3D
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
