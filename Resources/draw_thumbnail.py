"""Draws the thumbnail of the chest phantom for Slicer's Sample Data module: ``python Resources/draw_thumbnail.py``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
from PySide6 import QtCore, QtGui

MODULE = Path(__file__).resolve().parents[1] / "SAMMed3D"
sys.path.insert(0, str(MODULE))

WIDTH, HEIGHT = 260, 280  # what Slicer asks for


def main() -> None:
    from SAMMed3DLib.synthesis.phantom import chest_phantom

    phantom = chest_phantom(0)
    largest = max(phantom.nodules, key=lambda nodule: nodule["diameter_mm"])
    center = np.linalg.inv(phantom.ijk_to_ras) @ np.append(largest["center_ras"], 1.0)
    coronal = phantom.array_kji[::-1, round(center[1]), :]
    k_mm, __, i_mm = 1.25, 0.8, 0.8
    gray = np.ascontiguousarray(np.clip((coronal + 1250) / 1500 * 255, 0, 255).astype(np.uint8))
    height, width = gray.shape
    image = QtGui.QImage(gray.data, width, height, width, QtGui.QImage.Format.Format_Grayscale8)
    scale = HEIGHT / (height * k_mm)
    ignore, smooth = QtCore.Qt.AspectRatioMode.IgnoreAspectRatio, QtCore.Qt.TransformationMode.SmoothTransformation
    image = image.scaled(round(width * i_mm * scale), HEIGHT, ignore, smooth)
    left = (image.width() - WIDTH) // 2
    target = MODULE / "Resources" / "Icons" / "ChestPhantom.png"
    if not image.copy(left, 0, WIDTH, HEIGHT).save(str(target)):
        raise OSError(f"{target} could not be written")


if __name__ == "__main__":
    main()
