"""Scores nodules: curves over the clicks, surfaces and volumes of each, and means over groups with intervals."""

from __future__ import annotations

import base64
import dataclasses
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.inference.geometry import Block, PlacedMask, slice_step, voxel_spacing

from ..data.clicks import ClickSimulator
from ..data.datasets import Case, LoadedCase
from ..data.instances import DENSITIES, SIZES, THICKNESSES, LabelledNodule, density_group, size_group, thickness_group
from .evaluated_models import Evaluated
from .evaluation import NoduleResult, common_frame
from .metrics import (
    AUC_CLICKS,
    NOC_TARGETS,
    NSD_TOLERANCES_MM,
    area_under_curve,
    bootstrap_interval,
    clicks_needed,
    clicks_to,
    relative_error,
    surface_dice,
    variation,
)


@dataclass(frozen=True)
class FirstClick:
    """Result of one of several first clicks: Dice and volume after each click."""

    dice: tuple[float, ...]
    volumes_mm3: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ScoredNodule:
    """One nodule under one click protocol.

    Attributes:
        dataset, case, patient, nodule: which one; ``nodule`` is label value and component.
        method: click protocol.
        diameter_mm, truth_mm3: of the reference.
        size, density, slices: its groups.
        slice_mm: slice thickness.
        dice, volumes_mm3: after each click, carried forward once nothing is left to correct.
        nsd: for each tolerance of ``NSD_TOLERANCES_MM`` the same for the surface Dice.
        seconds: of the clicks that were really given.
        points_ras, labels: those clicks; of a 2D model all clicks of all rounds.
        first_clicks: other first clicks.
        prediction: after the last click.
        predictions: after each click that was really given.
    """

    dataset: str
    case: str
    patient: str
    nodule: str
    method: str
    diameter_mm: float
    truth_mm3: float
    size: str
    density: str
    slices: str
    slice_mm: float
    dice: tuple[float, ...]
    nsd: tuple[tuple[float, ...], ...]
    volumes_mm3: tuple[float, ...]
    seconds: tuple[float, ...]
    points_ras: NDArray
    labels: NDArray
    first_clicks: tuple[FirstClick, ...]
    prediction: PlacedMask
    predictions: tuple[PlacedMask, ...] = ()

    def after(self, click: int) -> PlacedMask:
        """The mask after so many clicks; the last one where fewer were needed."""
        return self.predictions[min(click, len(self.predictions)) - 1]

    @property
    def last_dice(self) -> float:
        """Dice after the last click: the score."""
        return self.dice[-1]

    @property
    def dice_auc(self) -> float | None:
        """Area under the Dice over five clicks, at most 4."""
        return area_under_curve(self.dice)

    @property
    def nsd_auc(self) -> float | None:
        """The same for the surface Dice at 2 mm, the challenge's tolerance."""
        return area_under_curve(self.nsd[-1])

    @property
    def volume_error(self) -> float:
        """Relative error of the volume after the last click."""
        return relative_error(self.volumes_mm3[-1], self.truth_mm3)

    @property
    def worst_first(self) -> float | None:
        """Dice of the worst of the other first clicks, after that click."""
        return min((trial.dice[0] for trial in self.first_clicks), default=None)

    @property
    def worst_last(self) -> float | None:
        """Dice that the worst of them reached in the end."""
        return min((trial.dice[-1] for trial in self.first_clicks), default=None)

    @property
    def volume_variation(self) -> float | None:
        """Coefficient of variation of the volume over the other first clicks, after that click."""
        return variation([trial.volumes_mm3[0] for trial in self.first_clicks])


def simulated_user(method: str, case: Case, nodule: LabelledNodule, seed: int, trial: int = 0) -> ClickSimulator:
    """Makes the simulated user of a nodule: the same for every model, by the nodule's name and the seed."""
    name = zlib.crc32(f"{case.full_name}/{nodule.name}".encode())
    return ClickSimulator(method, np.random.default_rng([seed, name, trial]))


def score_nodule(
    evaluated: Evaluated,
    loaded: LoadedCase,
    nodule: LabelledNodule,
    method: str,
    clicks: int,
    first_clicks: int,
    seed: int,
) -> ScoredNodule:
    """Evaluates one nodule of the volume that has been set.

    Args:
        evaluated: the model.
        loaded: the nodule's case.
        nodule: one of its nodules.
        method: of the clicks.
        clicks: most clicks.
        first_clicks: number of other first clicks to try, in the nodule's inner half; each is followed by as many
            clicks as the area under the curve needs.
        seed: a nodule's clicks depend on nothing else but the nodule's name and the masks.
    """
    case = loaded.case
    result = evaluated.evaluate(nodule, clicks, simulated_user(method, case, nodule, seed))
    trials = []
    for trial in range(1, first_clicks + 1):
        user, first = (simulated_user(kind, case, nodule, seed, trial) for kind in (method, "random"))
        other = evaluated.evaluate(nodule, min(clicks, AUC_CLICKS), user, first=first)
        trials.append(FirstClick(other.dice, other.volumes_mm3))
    matrix = loaded.ijk_to_ras
    return ScoredNodule(
        case.dataset,
        case.name,
        case.patient,
        nodule.name,
        method,
        nodule.diameter_mm,
        result.truth_mm3,
        size_group(nodule.diameter_mm),
        density_group(loaded.array_kji, nodule),
        thickness_group(matrix),
        slice_step(matrix),
        result.dice,
        _surface_curves(result, nodule, matrix),
        result.volumes_mm3,
        result.seconds,
        result.points_ras,
        result.labels,
        tuple(trials),
        _bare(result.prediction),
        tuple(_bare(prediction) for prediction in result.predictions),
    )


def _bare(prediction: PlacedMask) -> Block:
    """The mask without the logits that a prediction keeps for its next click."""
    k, j, i = (int(start) for start in prediction.offset_kji)
    return Block(np.asarray(prediction.mask), (k, j, i))


def score_as_json(score: ScoredNodule) -> dict[str, Any]:
    """A score in plain values, to be kept and read again by :func:`score_from_json` to the bit.

    The masks of single clicks are not: their files are written with the case.
    """
    values = {f.name: getattr(score, f.name) for f in dataclasses.fields(score) if f.name != "predictions"}
    mask = np.asarray(score.prediction.mask) != 0
    packed = zlib.compress(np.packbits(mask).tobytes())
    return values | {
        "points_ras": np.asarray(score.points_ras).tolist(),
        "labels": np.asarray(score.labels).tolist(),
        "first_clicks": [dataclasses.asdict(trial) for trial in score.first_clicks],
        "prediction": {
            "bits": base64.b64encode(packed).decode(),
            "shape": mask.shape,
            "offset_kji": score.prediction.offset_kji,
        },
    }


def score_from_json(values: Mapping[str, Any]) -> ScoredNodule:
    """A score from what :func:`score_as_json` made of it."""
    kept, found = values["prediction"], dict(values)
    bits = np.frombuffer(zlib.decompress(base64.b64decode(kept["bits"])), np.uint8)
    mask = np.unpackbits(bits, count=math.prod(kept["shape"])).reshape(kept["shape"])
    k, j, i = kept["offset_kji"]
    trials = [FirstClick(tuple(each["dice"]), tuple(each["volumes_mm3"])) for each in values["first_clicks"]]
    for name in ("dice", "volumes_mm3", "seconds"):
        found[name] = tuple(values[name])
    found |= {
        "nsd": tuple(tuple(curve) for curve in values["nsd"]),
        "points_ras": np.reshape(np.array(values["points_ras"], dtype=np.float64), (-1, 3)),
        "labels": np.array(values["labels"], dtype=np.int64),
        "first_clicks": tuple(trials),
        "prediction": Block(mask, (k, j, i)),
    }
    return ScoredNodule(**found)


def _surface_curves(result: NoduleResult, nodule: LabelledNodule, ijk_to_ras: NDArray) -> tuple[tuple[float, ...], ...]:
    """Computes the surface Dice after each click for each tolerance, carried forward."""
    spacing = voxel_spacing(ijk_to_ras)[::-1]
    values = []
    for prediction in result.predictions:
        truth, predicted, _ = common_frame(nodule.mask, np.array(nodule.offset_kji), prediction)
        values.append(surface_dice(truth, predicted, spacing, NSD_TOLERANCES_MM))
    values += values[-1:] * (len(result.dice) - len(values))
    return tuple(zip(*values, strict=True))


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


def summarize(scores: Sequence[ScoredNodule], seed: int = 0) -> tuple[GroupSummary, ...]:
    """Summarizes, for every method, all nodules, then each group that has any, in a fixed order."""
    summaries = []
    for method in dict.fromkeys(score.method for score in scores):
        own = [score for score in scores if score.method == method]
        summaries += [_summary(name, group, seed) for name, group in _groups(own) if group]
    return tuple(summaries)


def _groups(scores: list[ScoredNodule]) -> Iterable[tuple[str, list[ScoredNodule]]]:
    yield "all", scores
    groupings: list[tuple[Sequence[str], Callable[[ScoredNodule], str]]] = [
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


def _summary(name: str, scores: list[ScoredNodule], seed: int) -> GroupSummary:
    patients = [f"{score.dataset}/{score.patient}" for score in scores]
    clicks = len(scores[0].dice)

    def mean(value: Callable[[ScoredNodule], float | None]) -> float | None:
        known = [number for score in scores if (number := value(score)) is not None]
        return float(np.mean(known)) if known else None

    def interval(click: int) -> tuple[float, float] | None:
        return bootstrap_interval([score.dice[click] for score in scores], patients, seed=seed)

    return GroupSummary(
        method=scores[0].method,
        group=name,
        nodules=len(scores),
        patients=len(set(patients)),
        dice=tuple(float(value) for value in np.mean([score.dice for score in scores], axis=0)),
        dice_interval=interval(-1),
        first_interval=interval(0),
        nsd={
            tolerance: float(np.mean([score.nsd[number][-1] for score in scores]))
            for number, tolerance in enumerate(NSD_TOLERANCES_MM)
        },
        dice_auc=mean(lambda score: score.dice_auc),
        nsd_auc=mean(lambda score: score.nsd_auc),
        noc={
            target: clicks_needed([clicks_to(score.dice, target) for score in scores], clicks) for target in NOC_TARGETS
        },
        worst_first=mean(lambda score: score.worst_first),
        worst_last=mean(lambda score: score.worst_last),
        volume_bias=float(np.mean([score.volume_error for score in scores])),
        volume_error=float(np.mean([abs(score.volume_error) for score in scores])),
        volume_variation=mean(lambda score: score.volume_variation),
        clicks_given=float(np.mean([len(score.labels) for score in scores])),
        first_s=float(np.mean([score.seconds[0] for score in scores])),
        next_s=mean(lambda score: float(np.mean(score.seconds[1:])) if len(score.seconds) > 1 else None),
    )
