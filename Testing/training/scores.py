"""Scores of nodules that nobody segmented, for tables and pictures."""

from __future__ import annotations

import numpy as np

from SAMMed3DLib.inference.geometry import Block
from SAMMed3DTrainingLib.evaluate.nodule_scores import FirstClick, ScoredNodule


def score(
    dice=(0.5, 0.9),
    patient="P1",
    method="challenge",
    size="6-8 mm",
    density="solid",
    slices="slices <=1.25 mm",
    truth=200.0,
    volumes=None,
    dataset="lidc",
    case=None,
    nodule="1.1",
    trials=(),
    nsd=None,
    clicks=None,
) -> ScoredNodule:
    """A score with the given figures."""
    volumes = tuple(volumes or (truth,) * len(dice))
    clicks = len(dice) if clicks is None else clicks
    return ScoredNodule(
        dataset,
        case or patient,
        patient,
        nodule,
        method,
        7.0,
        truth,
        size,
        density,
        slices,
        1.0,
        tuple(dice),
        nsd or (tuple(dice),) * 3,
        volumes,
        (0.5,) + (0.1,) * (len(dice) - 1),
        np.zeros((clicks, 3)),
        np.ones(clicks, int),
        tuple(FirstClick(*trial) for trial in trials),
        Block(np.ones((1, 1, 1), np.uint8), (0, 0, 0)),
    )
