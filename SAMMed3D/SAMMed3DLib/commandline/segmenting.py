"""From a volume and prompts to measured nodules: the steps that ``sammed3d segment`` and ``sammed3d demo`` share."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..files.image_file import given_path
from ..files.output_files import write_text_whole
from ..files.volume_io import Volume
from ..finding.mask_nms import common_voxels
from ..inference import InputError, NoduleRecord, Prediction, SamPredictor3D, measure_nodule
from ..inference.geometry import voxel_volume
from ..inference.nodule_table import CLICKED, MEASURED, rounded, shown, table_text, titles
from ..inference.validation import check_box, check_points
from ..model import CheckpointError, Sam3D, build_model, load_model, profile_by_name
from ..model.sizes import NODULE_NETS
from ..torch_setup.device import auto_device
from ..weights import default_checkpoint
from .prompts import NodulePrompt
from .terminal import aligned


@dataclass(frozen=True)
class SegmentedNodule:
    """One segmented nodule.

    Attributes:
        label: its value in the label map, from 1.
        name: for people.
        prompt: what was asked, in RAS mm.
        prediction: the mask after the last click.
        record: its measurements.
        seconds: for each step (a box, then each click) how long it took; the first includes the encoding.
        dice: overlap with the reference, where there is one.
        reference_mm3: volume of the reference.
    """

    label: int
    name: str
    prompt: NodulePrompt
    prediction: Prediction
    record: NoduleRecord
    seconds: tuple[float, ...]
    dice: float | None = None
    reference_mm3: float | None = None


def load_predictor(
    checkpoint: str | None, model_name: str | None, profile: str | None, device: str, precision: str
) -> SamPredictor3D:
    """A predictor with the checkpoint asked for, by default the bundled nodule model.

    Args:
        checkpoint: a file, or None.
        model_name: "nodule" for the bundled model, or another architecture, untrained, to try its speed.
        profile: name of a preprocessing profile, or None for the checkpoint's own.
        device: "auto" takes a GPU where there is one. Where its memory does not suffice, the CPU is taken, with a
            warning.
        precision: "auto", "fp32", "bf16" or "fp16".

    Raises:
        InputError: unknown profile, architecture or precision, or the bundled model is missing.
        CheckpointError, DeviceError: as :func:`load_model`.
    """
    if device == "auto":
        device = auto_device()
    try:
        return SamPredictor3D(_load(checkpoint, model_name, profile, device, precision))
    except torch.OutOfMemoryError:
        warnings.warn("out of graphics memory: going on on the CPU, more slowly", stacklevel=2)
        return SamPredictor3D(_load(checkpoint, model_name, profile, "cpu", "auto"))
    except FileNotFoundError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"{checkpoint} cannot be read: {error.strerror or error}; check the path") from error
    except ValueError as error:
        if type(error) is ValueError:  # a name or a profile that does not fit; the message names the choices
            raise InputError(str(error)) from error
        raise


def _load(checkpoint: str | None, model_name: str | None, profile: str | None, device: str, precision: str) -> Sam3D:
    if checkpoint is not None or model_name in (None, *NODULE_NETS):
        path = default_checkpoint() if checkpoint is None else given_path(checkpoint)
        return load_model(path, device=device, precision=precision, profile=profile)
    chosen = None if profile is None else profile_by_name(profile)
    model = build_model(model_name, device=device, precision=precision, profile=chosen)
    warnings.warn(f"{model_name} has no weights of its own: its masks mean nothing, only its speed", stacklevel=2)
    return model


def check_prompt(prompt: NodulePrompt, number: int) -> None:
    """Raises InputError for a nodule without a positive click or a box."""
    if prompt.box is None and not any(prompt.positive):
        raise InputError(f"nodule {number} has no click on it: give --point R,A,S (label 1) or --box")


def segment_nodules(
    predictor: SamPredictor3D,
    volume: Volume,
    prompts: Sequence[NodulePrompt],
    names: Sequence[str] | None = None,
    reference: NDArray | None = None,
    labels: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[SegmentedNodule]:
    """Segments and measures nodules one after the other, each click in turn as a person would give it.

    Args:
        predictor: its image becomes ``volume``.
        volume: the CT.
        prompts: one per nodule, in RAS mm.
        names, labels: one per nodule; by default "nodule 1" and 1, and so on.
        reference: label map [k, j, i] with the same labels, for the Dice.
        progress: called with (done, total).

    Raises:
        InputError: the volume cannot be used, or a prompt lies outside it.
    """
    labels = list(labels or range(1, len(prompts) + 1))
    names = list(names or (f"nodule {label}" for label in labels))
    predictor.set_image(volume.array_kji, volume.ijk_to_ras)
    for number, prompt in enumerate(prompts, start=1):  # all of them before the work
        check_prompt(prompt, number)
        check_points(np.reshape(prompt.points, (-1, 3)), None, volume.array_kji.shape, volume.ijk_to_ras)
        if prompt.box is not None:
            check_box(prompt.box, volume.array_kji.shape, volume.ijk_to_ras)
    results: list[SegmentedNodule] = []
    for label, name, prompt in zip(labels, names, prompts, strict=True):
        prediction, seconds = _click_by_click(predictor, prompt)
        prediction = predictor.with_volume_range(prediction)
        record = measure_nodule(prediction, volume.array_kji, volume.ijk_to_ras)
        dice = truth_mm3 = None
        if reference is not None:
            truth = reference == label
            dice = dice_of(prediction, truth)
            truth_mm3 = float(truth.sum()) * voxel_volume(volume.ijk_to_ras)
        for other in results:
            shared = common_voxels(prediction, other.prediction)
            if shared:
                share = shared / min(prediction.voxels, other.prediction.voxels)
                warnings.warn(
                    f"{name} and {other.name} share {100 * share:.0f} % of the smaller one: are they one nodule? In a "
                    f"label map these voxels are {name}",
                    stacklevel=2,
                )
        results.append(SegmentedNodule(label, name, prompt, prediction, record, seconds, dice, truth_mm3))
        if progress is not None:
            progress(len(results), len(prompts))
    return results


def _click_by_click(predictor: SamPredictor3D, prompt: NodulePrompt) -> tuple[Prediction, tuple[float, ...]]:
    """The prediction after all of a nodule's clicks, and the seconds of each step."""
    points = np.array(prompt.points, dtype=np.float64).reshape(-1, 3)
    labels = np.array(prompt.positive, dtype=np.int64)
    box = None if prompt.box is None else np.array(prompt.box, dtype=np.float64).ravel()
    first = 0 if box is not None else prompt.positive.index(True) + 1  # negative clicks alone say nothing yet
    prediction, seconds = None, []
    for count in range(first, len(points) + 1):
        start = time.perf_counter()
        prediction = predictor.predict(
            points[:count] if count else None, labels[:count] if count else None, box_ras=box, previous=prediction
        )
        seconds.append(time.perf_counter() - start)
        if prediction.score is not None and not np.isfinite(prediction.score):
            raise CheckpointError("the network answers NaN: its weights are damaged; take another --checkpoint")
    assert prediction is not None
    return prediction, tuple(seconds)


def dice_of(prediction: Prediction, truth_kji: NDArray) -> float:
    """Dice of a prediction with a whole reference mask; 1 when both are empty."""
    total = prediction.voxels + int(np.count_nonzero(truth_kji))
    common = int(np.count_nonzero((prediction.mask != 0) & (truth_kji[prediction.slices_kji] != 0)))
    return 2.0 * common / total if total else 1.0


def table(results: Sequence[SegmentedNodule]) -> str:
    """An aligned table, one line per nodule; with references, their volume, the Dice and its mean; notes below."""
    keys = ["volume_mm3", "volume_low_mm3", "volume_high_mm3", "long_axis_mm", "short_axis_mm", "mean_hu"]
    keys.append("predicted_iou")
    scored = any(result.dice is not None for result in results)
    keys += ["dice", "reference_mm3"] if scored else []
    lines = [[*titles("name", *keys), "seconds"]]
    for result in results:
        values = as_dict(result)
        seconds = " ".join(f"{seconds:.2f}" for seconds in result.seconds)
        lines.append([result.name, *(shown(key, values.get(key)) for key in keys), seconds])
    dices = [result.dice for result in results if result.dice is not None]
    if len(dices) > 1:
        lines.append(["mean", *[""] * 7, shown("dice", sum(dices) / len(dices)), "", ""])
    notes = [f"{result.name}: {result.record.note}" for result in results if result.record.note]
    return "\n".join([aligned(lines), *notes])


def as_dict(result: SegmentedNodule) -> dict[str, Any]:
    """Plain numbers and strings for JSON: the prompt, every measurement, the scores and the times."""
    prompt = result.prompt
    values: dict[str, Any] = {
        "label": result.label,
        "name": result.name,
        "points_ras": [list(point) for point in prompt.points],
        "positive": list(prompt.positive),
        "box_ras": None if prompt.box is None else [*prompt.box[0], *prompt.box[1]],
        **result.record.to_dict(),
        "predicted_iou": result.prediction.score,
        "seconds": [round(seconds, 4) for seconds in result.seconds],
    }
    if result.dice is not None:
        values |= {"dice": result.dice, "reference_mm3": result.reference_mm3}
    return rounded(values)


def write_csv(path: Path, results: Sequence[SegmentedNodule]) -> None:
    """The table with every measurement. Raises InputError when the place cannot be written."""
    rows = []
    for result in results:
        click = result.prompt.points[0] if result.prompt.points else (None, None, None)
        places = dict(zip(CLICKED, click, strict=True))
        rows.append(as_dict(result) | places | {"first_click_s": result.seconds[0]})
    scored = ("dice", "reference_mm3") if any(result.dice is not None for result in results) else ()
    keys = ("label", "name", "predicted_iou", *CLICKED, *MEASURED, *scored, "first_click_s")
    write_text_whole(path, table_text(rows, keys))
