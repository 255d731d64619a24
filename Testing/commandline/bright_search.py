"""A search that is quick and knows its answer, for this process and for the workers of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from commandline.conftest import BrightnessModel, Scene
from SAMMed3DLib import inference
from SAMMed3DLib.commandline import cohort, segmenting
from SAMMed3DLib.finding.candidates import Candidate
from SAMMed3DLib.finding.lungs import LungMask
from SAMMed3DLib.inference import SamAutomaticMaskGenerator3D, SamPredictor3D


def two_ball_generator() -> type[SamAutomaticMaskGenerator3D]:
    """A generator whose candidates are the two balls of the scene, and that finds no lungs."""
    scene = Scene()
    found = [Candidate(tuple(scene.center_ras(n)), 2.0 * scene.radii_mm[n], 0.9, "solid") for n in (1, 0)]
    nothing = LungMask(np.zeros((2, 2, 2), bool), np.eye(4), False, "no lungs were found")

    class Generator(SamAutomaticMaskGenerator3D):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(
                *args, **options, lung_finder=lambda *a, **k: nothing, candidate_finder=lambda *a, **k: list(found)
            )

    return Generator


def use_bright_search(setter: Callable[[Any, str, Any], object]) -> None:
    """Every search is made by that generator, with a network that finds what is bright.

    Args:
        setter: ``setattr``, or a fixture's that takes it back.
    """
    setter(inference, "SamAutomaticMaskGenerator3D", two_ball_generator())
    setter(segmenting, "load_predictor", lambda *words: SamPredictor3D(BrightnessModel()))


def die_once(name: str, mark: str) -> None:
    """The process that begins the scan of this name dies, unless the mark is there."""
    segmented = cohort._segmented

    def segment(task: Any, *rest: Any) -> Any:
        if task.scan.name == name and not Path(mark).exists():
            Path(mark).touch()
            os._exit(9)
        return segmented(task, *rest)

    cohort._segmented = segment
