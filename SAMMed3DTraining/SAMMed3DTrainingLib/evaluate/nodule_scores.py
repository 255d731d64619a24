"""All figures of one nodule: curves over the clicks, surfaces, volumes, and what other first clicks would give."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.inference.geometry import voxel_spacing

from ..data.datasets import LoadedCase
from ..data.instances import Nodule
from ..data.strata import density_group, size_group, slice_thickness, thickness_group
from .clicks import ClickSimulator
from .evaluated_models import Evaluated
from .evaluation import NoduleResult, Segmentation, common_frame
from .metrics import AUC_CLICKS, NSD_TOLERANCES_MM, area_under_curve, relative_error, surface_dice, variation


@dataclass(frozen=True)
class FirstClick:
    """What one of several first clicks led to: Dice and volume after each click."""

    dice: tuple[float, ...]
    volumes_mm3: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class NoduleScore:
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
    prediction: Segmentation

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


def score_nodule(
    evaluated: Evaluated, loaded: LoadedCase, nodule: Nodule, method: str, clicks: int, first_clicks: int, seed: int
) -> NoduleScore:
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
    name = zlib.crc32(f"{case.full_name}/{nodule.name}".encode())

    def simulator(kind: str, trial: int = 0) -> ClickSimulator:
        return ClickSimulator(kind, np.random.default_rng([seed, name, trial]))

    result = evaluated.evaluate(nodule, clicks, simulator(method))
    trials = []
    for trial in range(1, first_clicks + 1):
        other = evaluated.evaluate(
            nodule, min(clicks, AUC_CLICKS), simulator(method, trial), first=simulator("random", trial)
        )
        trials.append(FirstClick(other.dice, other.volumes_mm3))
    matrix = loaded.ijk_to_ras
    return NoduleScore(
        case.dataset, case.name, case.patient, nodule.name, method, nodule.diameter_mm, result.truth_mm3,
        size_group(nodule.diameter_mm), density_group(loaded.array_kji, nodule), thickness_group(matrix),
        slice_thickness(matrix), result.dice, _surface_curves(result, nodule, matrix), result.volumes_mm3,
        result.seconds, result.points_ras, result.labels, tuple(trials), _bare(result.prediction),
    )


@dataclass(frozen=True, eq=False)
class _Mask:
    mask: NDArray
    offset_kji: tuple[int, int, int]


def _bare(prediction: Segmentation) -> _Mask:
    """The mask without the logits that a prediction keeps for its next click."""
    return _Mask(np.asarray(prediction.mask), tuple(int(start) for start in prediction.offset_kji))


def _surface_curves(result: NoduleResult, nodule: Nodule, ijk_to_ras: NDArray) -> tuple[tuple[float, ...], ...]:
    """For each tolerance the surface Dice after each click, carried forward."""
    spacing: Sequence[float] = voxel_spacing(ijk_to_ras)[::-1]
    values = []
    for prediction in result.predictions:
        truth, predicted, _ = common_frame(nodule.mask, np.array(nodule.offset_kji), prediction)
        values.append(surface_dice(truth, predicted, spacing, NSD_TOLERANCES_MM))
    values += values[-1:] * (len(result.dice) - len(values))
    return tuple(zip(*values, strict=True))
