"""Makes and reads the golden masks: what one click of the bundled model gives on every nodule of a phantom.

python Testing/golden_masks.py       writes them anew, on purpose, after new weights or a new rule of the predictor
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).resolve().parent / "data" / "golden_masks.npz"
SEED = 7
SHAPE_KJI = (110, 220, 300)


def clicked_masks() -> dict[str, np.ndarray]:
    """Clicks the most interior voxel of each nodule and segments it.

    Returns:
        ``"3_mask"`` (uint8 block [k, j, i]) and ``"3_offset"`` (its first voxel, kji) for the nodule of label 3, ...
    """
    from SAMMed3DLib.inference import SamPredictor3D
    from SAMMed3DLib.inference.geometry import transform_points
    from SAMMed3DLib.inference.mask_regions import most_interior_voxel
    from SAMMed3DLib.model import load_model
    from SAMMed3DLib.synthesis.phantom import chest_phantom
    from SAMMed3DLib.weights import default_checkpoint

    phantom = chest_phantom(SEED, SHAPE_KJI, (1.5, 1.0, 1.0))
    predictor = SamPredictor3D(load_model(default_checkpoint()))
    predictor.set_image(phantom.array_kji, phantom.ijk_to_ras)
    masks = {}
    for nodule in phantom.nodules:
        label = int(nodule["label"])
        click = most_interior_voxel(phantom.labels_kji == label, (1.5, 1.0, 1.0))
        prediction = predictor.predict(transform_points(phantom.ijk_to_ras, [click[::-1]]), np.array([1]))
        masks[f"{label}_mask"], masks[f"{label}_offset"] = prediction.mask, np.array(prediction.offset_kji)
    return masks


if __name__ == "__main__":
    sys.path[:0] = [str(FILE.parents[2] / "SAMMed3D")]
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **clicked_masks())
