"""Means over nodules, with intervals by patient, for all of them and for every group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.strata import DENSITIES, SIZES, THICKNESSES
from .metrics import NOC_TARGETS, NSD_TOLERANCES_MM, bootstrap_interval, clicks_needed, clicks_to
from .nodule_scores import NoduleScore


@dataclass(frozen=True)
class GroupSummary:
    """The figures of a group of nodules under one click protocol; shares and Dice from 0 to 1.

    Attributes:
        method, group: which.
        nodules, patients: how many.
        dice: mean after each click.
        dice_interval, first_interval: 95 % of the mean after the last and after the first click, by patient; None
            with one patient.
        nsd: by tolerance in mm, mean after the last click.
        dice_auc, nsd_auc: over five clicks, at most 4; None where fewer were given.
        noc: by target, (mean clicks, share of nodules that never reached it).
        worst_first, worst_last: mean Dice of the worst of several first clicks, after it and in the end.
        volume_bias, volume_error: mean of the relative error of the volume, and of its size.
        volume_variation: mean coefficient of variation of the volume over first clicks.
        clicks_given: mean number; a 2D model takes one in every slice.
        first_s, next_s: mean seconds of the first and of a later click.
    """

    method: str
    group: str
    nodules: int
    patients: int
    dice: tuple[float, ...]
    dice_interval: tuple[float, float] | None
    first_interval: tuple[float, float] | None
    nsd: dict[float, float]
    dice_auc: float | None
    nsd_auc: float | None
    noc: dict[float, tuple[float, float]]
    worst_first: float | None
    worst_last: float | None
    volume_bias: float
    volume_error: float
    volume_variation: float | None
    clicks_given: float
    first_s: float
    next_s: float | None


def summarize(scores: Sequence[NoduleScore], seed: int = 0) -> tuple[GroupSummary, ...]:
    """For every method: all nodules, then each group that has any, in a fixed order.

    Args:
        scores: of all nodules and methods.
        seed: of the bootstrap.
    """
    summaries = []
    for method in dict.fromkeys(score.method for score in scores):
        own = [score for score in scores if score.method == method]
        summaries += [_summary(name, group, seed) for name, group in _groups(own) if group]
    return tuple(summaries)


def _groups(scores: list[NoduleScore]) -> Iterable[tuple[str, list[NoduleScore]]]:
    yield "all", scores
    groupings: list[tuple[Sequence[str], Callable[[NoduleScore], str]]] = [
        ([name for _, name in SIZES], lambda score: score.size),
        (DENSITIES, lambda score: score.density),
        ([name for _, name in THICKNESSES], lambda score: score.slices),
    ]
    datasets = sorted({score.dataset for score in scores})
    if len(datasets) > 1:
        groupings.append((datasets, lambda score: score.dataset))
    for names, group_of in groupings:
        for name in names:
            yield name, [score for score in scores if group_of(score) == name]


def _summary(name: str, scores: list[NoduleScore], seed: int) -> GroupSummary:
    patients = [f"{score.dataset}/{score.patient}" for score in scores]
    clicks = len(scores[0].dice)

    def mean(value: Callable[[NoduleScore], float | None]) -> float | None:
        known = [number for score in scores if (number := value(score)) is not None]
        return float(np.mean(known)) if known else None

    def interval(click: int) -> tuple[float, float] | None:
        return bootstrap_interval([score.dice[click] for score in scores], patients, seed=seed)

    return GroupSummary(
        method=scores[0].method, group=name, nodules=len(scores), patients=len(set(patients)),
        dice=tuple(float(value) for value in np.mean([score.dice for score in scores], axis=0)),
        dice_interval=interval(-1), first_interval=interval(0),
        nsd={
            tolerance: float(np.mean([score.nsd[number][-1] for score in scores]))
            for number, tolerance in enumerate(NSD_TOLERANCES_MM)
        },
        dice_auc=mean(lambda score: score.dice_auc), nsd_auc=mean(lambda score: score.nsd_auc),
        noc={
            target: clicks_needed([clicks_to(score.dice, target) for score in scores], clicks)
            for target in NOC_TARGETS
        },
        worst_first=mean(lambda score: score.worst_first), worst_last=mean(lambda score: score.worst_last),
        volume_bias=float(np.mean([score.volume_error for score in scores])),
        volume_error=float(np.mean([abs(score.volume_error) for score in scores])),
        volume_variation=mean(lambda score: score.volume_variation),
        clicks_given=float(np.mean([len(score.labels) for score in scores])),
        first_s=float(np.mean([score.seconds[0] for score in scores])),
        next_s=mean(lambda score: float(np.mean(score.seconds[1:])) if len(score.seconds) > 1 else None),
    )
