"""Ranks unlabelled volumes by the model's uncertainty, since the least certain one teaches it most.

All objects of a volume are found as "segment all" finds them. Each has two uncertainties:

* Is it a nodule? The entropy of its calibrated probability p, in bits: 1 at p = 0.5, 0 at p = 0 and 1 (uncertainty
  sampling: Lewis and Gale, SIGIR 1994; with entropy: Settles, Active Learning Literature Survey, 2009).
* If it is one, is its outline right? What the network itself expects to be wrong, 1 - predicted IoU, and how much the
  mask changes with the threshold, 1 - stability (both of Kirillov et al., Segment Anything, ICCV 2023), on average.

An object's uncertainty is the first plus p times the second; a volume's is the sum over its most uncertain objects, as
summing over detections ranked images best for Brust, Kaeding and Denzler (Active Learning for Deep Object Detection,
VISAPP 2019). Only so many objects count that a noisy scan with a hundred faint ones does not beat everything.

A checkpoint whose IoU head was never trained (the public SAM-Med3D weights) knows no probability: there an object's
uncertainty is 1 - stability.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from SAMMed3DLib.commandline.segmenting import load_predictor
from SAMMed3DLib.commandline.terminal import duration
from SAMMed3DLib.files.image_file import given_path
from SAMMed3DLib.files.volume_io import Volume, read_volume
from SAMMed3DLib.inference import InputError, SamAutomaticMaskGenerator3D
from SAMMed3DLib.torch_setup.device import auto_device

from ..data.datasets import DEFAULT_PATIENT_PATTERN, ENDINGS, DatasetError, find_datasets, strip_ending
from ..job import Job, run_job
from ..options import DEVICES, PRECISIONS, option
from ..runs.run_files import write_whole

SCHEMA = 1
#: Objects of a volume that count.
COUNTED = 5
#: Objects of a volume that are told.
_TOLD = 10
MEASURE = (
    "sum over the five most uncertain objects of: entropy (bits) of the probability p of being a nodule, plus p "
    "times the mean of 1 - predicted IoU and 1 - stability"
)
MEASURE_STABILITY = "sum of 1 - stability over the five most uncertain objects (no probability is known)"
SOURCE = (
    "Lewis and Gale, SIGIR 1994; Settles, Active Learning Literature Survey, 2009; Kirillov et al., Segment "
    "Anything, ICCV 2023; Brust et al., Active Learning for Deep Object Detection, VISAPP 2019"
)


class GeneratorFinder:
    """Finds objects with SamAutomaticMaskGenerator3D.

    Args:
        checkpoint: None for the bundled nodule model.
        device, precision: of the network.
    """

    def __init__(self, checkpoint: Path | None, device: str = "auto", precision: str = "auto") -> None:
        device = auto_device() if device == "auto" else device
        path = None if checkpoint is None else str(checkpoint)
        self._predictor = load_predictor(path, None, None, device, precision)
        self.ranking: str = SamAutomaticMaskGenerator3D(self._predictor).ranking

    def find(self, volume: Volume, progress: Callable[[int, int], bool]) -> list[dict[str, Any]] | None:
        """Records as the generator gives them; None when ``progress`` said False. Raises InputError."""
        self._predictor.set_image(volume.array_kji, volume.ijk_to_ras)
        generator = SamAutomaticMaskGenerator3D(self._predictor)
        records = generator.generate(progress)
        return None if generator.cancelled else records


@dataclass(frozen=True)
class RankingConfig:
    """One ranking."""

    data: tuple[Path, ...] = option(
        "",
        "volumes, data sets (their images without label maps), folders of volumes, DICOM series folders",
        kind=Path,
        nargs="+",
        required=True,
        metavar="PATH",
    )
    checkpoint: Path | None = option("", "weights (default: the bundled nodule model)", None, kind=Path, metavar="FILE")
    out: Path | None = option("", "where the result is written as JSON", None, kind=Path, metavar="FILE")
    device: str = option("", DEVICES, "auto")
    precision: str = option("", "of the image encoder", "auto", choices=PRECISIONS)


def rank(
    config: RankingConfig, job: Job, load: Callable[[Path | None, str, str], GeneratorFinder] = GeneratorFinder
) -> dict[str, Any]:
    """Ranks volumes, the most useful first. When asked to end, what was ranked so far is the result.

    Raises:
        DatasetError, InputError, CheckpointError, DeviceError, RunError: with what to do.
    """
    paths = unlabelled_images(config.data)
    job.progress(0, len(paths), "loading the model")
    finder = load(config.checkpoint, config.device, config.precision)
    ranked: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for done, path in enumerate(paths):
        if job.cancelled:
            break

        def progress(part: int, whole: int, done: int = done, path: Path = path) -> bool:
            job.progress(done + part / max(whole, 1), len(paths), path.name)
            return not job.cancelled

        job.progress(done, len(paths), path.name)
        begun = time.perf_counter()
        try:
            volume = read_volume(path)
            records = finder.find(volume, progress)
        except InputError as error:
            skipped[str(path)] = str(error)
            job.note(f"{path.name} is left out: {error}")
            continue
        if records is None:
            break
        entry = _entry(path, volume.name, records, finder.ranking, time.perf_counter() - begun)
        ranked.append(entry)
        job.item(
            entry,
            f"{path.name}: uncertainty {entry['uncertainty']:.2f}, {entry['candidates']} objects, "
            f"{duration(entry['seconds'])}",
        )
    if not ranked and not job.cancelled:
        raise DatasetError("no volume could be ranked: " + "; ".join(skipped.values()))
    ranked.sort(key=lambda each: (-each["uncertainty"], each["path"]))
    content = {
        "schema": SCHEMA,
        "measure": MEASURE if finder.ranking == "probability" else MEASURE_STABILITY,
        "source": SOURCE,
        "checkpoint": str(config.checkpoint) if config.checkpoint else "bundled",
        "complete": len(ranked) + len(skipped) == len(paths),
        "ranked": ranked,
        "skipped": skipped,
    }
    if config.out is not None:
        write_whole(config.out, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
    job.result(content, _text(content))
    return content


def uncertainty(record: dict[str, Any], ranking: str) -> float:
    """The uncertainty of one object, as the top of this file defines it.

    Args:
        record: of the generator: "score", "predicted_iou" (or None), "stability_score".
        ranking: "probability" or "stability", what the score means.
    """
    stability = min(max(float(record["stability_score"]), 0.0), 1.0)
    if ranking != "probability":
        return 1.0 - stability
    p = min(max(float(record["score"]), 0.0), 1.0)
    entropy = -sum(q * math.log2(q) for q in (p, 1.0 - p) if q > 0)
    doubts = [1.0 - stability]
    if record["predicted_iou"] is not None:
        doubts.append(1.0 - min(max(float(record["predicted_iou"]), 0.0), 1.0))
    return entropy + p * sum(doubts) / len(doubts)


def unlabelled_images(data: Sequence[Path]) -> list[Path]:
    """The volumes that are named: each once, in order.

    Raises:
        DatasetError: a path that is not there, or one without any unlabelled volume.
    """
    found: dict[Path, None] = {}
    for path in map(given_path, data):
        if path.is_file():
            found[path.absolute()] = None
        elif path.is_dir():
            found.update(dict.fromkeys(each.absolute() for each in _in_folder(path)))
        else:
            raise DatasetError(f"{path} is not there: give volumes, a data set, or a folder of volumes")
    return list(found)


def _in_folder(folder: Path) -> list[Path]:
    try:
        datasets = find_datasets(folder, DEFAULT_PATIENT_PATTERN)
    except DatasetError:
        datasets = ()
    if datasets:
        images = [case.image for dataset in datasets for case in dataset.cases if case.label is None]
        if not images:
            raise DatasetError(f"every volume of {folder} has its label map: there is nothing left to label")
        return images
    files = sorted(each for each in folder.iterdir() if each.is_file() and not each.name.startswith("."))
    images = [each for each in files if strip_ending(each.name) and not each.name.lower().endswith(".seg.nrrd")]
    if images:
        return images
    if files:
        return [folder]  # a DICOM series, as read_volume will tell
    raise DatasetError(f"no volume in {folder}: files end in {', '.join(ENDINGS)}, or are a DICOM series")


def _entry(path: Path, name: str, records: list[dict[str, Any]], ranking: str, seconds: float) -> dict[str, Any]:
    objects: list[dict[str, Any]] = [
        {
            "point_ras": [round(float(each), 3) for each in record["point_coords"][0]],
            "score": round(float(record["score"]), 4),
            "predicted_iou": None if record["predicted_iou"] is None else round(float(record["predicted_iou"]), 4),
            "stability": round(float(record["stability_score"]), 4),
            "uncertainty": round(uncertainty(record, ranking), 4),
            "diameter_mm": round(float(record["measurements"].equivalent_diameter_mm), 2),
        }
        for record in records
    ]
    objects.sort(key=lambda each: -each["uncertainty"])
    expected = sum(each["score"] for each in objects) if ranking == "probability" else None
    return {
        "path": str(path),
        "name": name,
        "uncertainty": round(sum(o["uncertainty"] for o in objects[:COUNTED]), 4),
        "candidates": len(objects),
        "expected_nodules": None if expected is None else round(expected, 2),
        "seconds": round(seconds, 2),
        "objects": objects[:_TOLD],
    }


def _text(content: dict[str, Any]) -> str:
    lines = [f"{'uncertainty':>11} {'objects':>8}  volume"]
    lines += [f"{each['uncertainty']:>11.3f} {each['candidates']:>8}  {each['path']}" for each in content["ranked"]]
    lines += [f"left out: {path}: {reason}" for path, reason in content["skipped"].items()]
    if not content["complete"]:
        lines.append("ended before all volumes were ranked")
    return "\n".join([*lines, f"measure: {content['measure']}", f"after: {content['source']}"])


def run_ranking(arguments: list[str]) -> int:
    """The command ``rank``; returns the exit code."""
    about = "Rank unlabelled volumes by how much the model would learn from them: by its own uncertainty."
    return run_job("rank", about, RankingConfig, rank, arguments)
