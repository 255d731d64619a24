"""Old against new weights on the cases that a run has not trained on: every nodule, with the same simulated clicks.

``OUT/comparison.json`` holds the table; the masks of both, label maps in the images' own geometry, lie in a folder
beside it that is new with every comparison, and are named by their paths from there, so that a run may be renamed. The
file appears when everything is there, and not before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.files.segmentation_io import write_segmentation
from SAMMed3DLib.inference.errors import InputError
from SAMMed3DLib.inference.geometry import transform_points

from ..data.datasets import DEFAULT_PATIENT_PATTERN, DatasetError, LoadedCase, load_case
from ..data.instances import Nodule
from ..job import Job, add_job_options
from ..runs import run_files
from ..runs.run_files import RunError, write_whole
from .clicks import ClickSimulator
from .evaluated_models import Evaluated, load_evaluated
from .evaluation import NoduleResult, Segmentation
from .evaluation_config import EvaluationConfig
from .evaluation_run import EvaluationCases, choose_cases, prediction_values
from .metrics import bootstrap_interval

SCHEMA = 1
FILE_NAME = "comparison.json"
#: Clicks after which Dice and volume are told, as far as so many are given.
SHOWN_CLICKS = (1, 3, 5)
SIDES = ("old", "new")


@dataclass(frozen=True)
class ComparisonConfig:
    """One comparison.

    Attributes:
        run: folder of the run.
        old: weights to compare with; None for those that the run started from, or the bundled model.
        new: None for the run's best.
        data: None for what the run was trained with.
        out: folder of the results; None for ``run/comparison``.
        clicks: on each nodule.
        seed: of the clicks.
    """

    run: Path
    old: Path | None = None
    new: Path | None = None
    data: tuple[str, ...] | None = None
    out: Path | None = None
    clicks: int = 5
    device: str = "auto"
    precision: str = "auto"
    seed: int = 2023


@dataclass(frozen=True)
class _Row:
    """One nodule: its line in the table, and its masks by side and click."""

    values: dict[str, Any]
    masks: dict[tuple[str, int], Segmentation]


def compare(config: ComparisonConfig, job: Job) -> Path | None:
    """Compares as configured and writes the results. Returns their file, or None when asked to end before.

    Raises:
        RunError, DatasetError, InputError, CheckpointError, DeviceError, EvaluationError: with what to do.
    """
    comparison = _Comparison(config, job)
    return comparison.run()


class _Comparison:
    def __init__(self, config: ComparisonConfig, job: Job) -> None:
        if config.clicks < 1:
            raise RunError("--clicks must be 1 or more")
        self._config, self._job = config, job
        self._shown = tuple(click for click in SHOWN_CLICKS if click <= config.clicks) or (1,)
        self._trained = run_files.read_config(config.run)
        self._out = (config.out or config.run / "comparison").absolute()
        self._rows: list[dict[str, Any]] = []
        self._cases: list[dict[str, Any]] = []
        self._skipped: dict[str, str] = {}

    def run(self) -> Path | None:
        new = self._new_weights()
        old = self._old_weights()
        if old is not None and old.samefile(new):
            raise RunError(f"old and new weights are the same file, {new}: give another one with --old")
        # The split lies in the run's folder, wherever the weights are.
        chosen = choose_cases(self._evaluation(self._config.run / run_files.DICE_BEST))
        self._job.note(f"held-out cases: {len(chosen.cases)}; {chosen.source}")
        for note in chosen.notes:
            self._job.note(note)
        self._job.progress(0, len(chosen.cases), "loading the models")
        models = {side: load_evaluated(self._evaluation(path)) for side, path in zip(SIDES, (old, new), strict=True)}
        masks = self._folder()
        try:
            finished = self._all_cases(chosen, models, masks)
            if not finished:
                shutil.rmtree(masks, ignore_errors=True)
                return None
            if not self._rows:
                why = "; ".join(f"{name}: {reason}" for name, reason in self._skipped.items())
                raise DatasetError(f"no nodule to compare on: the held-out label maps are empty or unreadable. {why}")
            content = self._content(chosen, models)
            path = self._out / FILE_NAME
            write_whole(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        except BaseException:
            shutil.rmtree(masks, ignore_errors=True)
            raise
        for older in self._out.glob("masks-*"):
            if older != masks:
                shutil.rmtree(older, ignore_errors=True)
        self._job.result({"path": str(path), **content}, _text(content) + f"\n\nresults: {path}")
        return path

    # -- what is compared on what ------------------------------------------------------------------------------------

    def _new_weights(self) -> Path:
        path = self._config.new or run_files.best_weights(self._config.run)
        if path is None or not path.is_file():
            raise RunError(f"{path or self._config.run} has no weights yet: train until the first epoch has ended")
        return path.absolute()

    def _old_weights(self) -> Path | None:
        """None for the bundled model."""
        given = self._config.old
        if given is not None:
            if not given.is_file():
                raise RunError(f"the weights to compare with, {given}, are not there: choose others")
            return given.absolute()
        started = self._trained.get("checkpoint")
        if started is None:
            if self._trained.get("model_type", "nodule") != "nodule":
                self._job.note("the run started from scratch: it is compared with the bundled nodule model")
            return None
        if Path(started).is_file():
            return Path(started)
        self._job.note(f"{started}, with which the run started, is not there: it is compared with the bundled model")
        return None

    def _evaluation(self, checkpoint: Path | None) -> EvaluationConfig:
        config = self._config
        data = config.data or tuple(self._trained.get("data") or ())
        if not data:
            raise RunError(f"{config.run / run_files.CONFIG} does not say what the run was trained with: give --data")
        return EvaluationConfig(
            data=data, checkpoint=None if checkpoint is None else str(checkpoint), num_clicks=config.clicks,
            first_clicks=0, seed=config.seed, device=config.device, precision=config.precision,
            patient_pattern=self._trained.get("patient_pattern") or DEFAULT_PATIENT_PATTERN,
            labels=tuple(self._trained.get("labels") or ()),
        )

    def _folder(self) -> Path:
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="masks-", dir=self._out))
        except OSError as error:
            raise RunError(f"nothing can be written in {self._out}: {error.strerror or error}; choose another --out") \
                from error

    # -- the work ----------------------------------------------------------------------------------------------------

    def _all_cases(self, chosen: EvaluationCases, models: dict[str, Evaluated], masks: Path) -> bool:
        """False when asked to end."""
        for done, case in enumerate(chosen.cases):
            if self._job.cancelled:
                return False
            self._job.progress(done, len(chosen.cases), case.name)
            try:
                loaded = load_case(case, chosen.datasets[case.dataset].ignored_values)
                if not loaded.nodules:
                    self._skipped[case.full_name] = "the label map is empty"
                    continue
                for model in models.values():
                    model.set_image(loaded.array_kji, loaded.ijk_to_ras)
            except (DatasetError, InputError) as error:
                self._skipped[case.full_name] = str(error).removeprefix(f"case {case.full_name}: ")
                self._job.note(f"{case.full_name} is left out: {self._skipped[case.full_name]}")
                continue
            if not self._one_case(loaded, models, masks, done, len(chosen.cases)):
                return False
        return True

    def _one_case(
        self, loaded: LoadedCase, models: dict[str, Evaluated], masks: Path, done: int, total: int
    ) -> bool:
        rows = []
        for number, (value, nodule) in enumerate(zip(prediction_values(loaded.nodules), loaded.nodules, strict=True)):
            if self._job.cancelled:
                return False
            row = self._nodule(loaded, nodule, value, models)
            rows.append(row)
            old, new = row.values["old"]["dice"][-1], row.values["new"]["dice"][-1]
            self._job.item(row.values, f"{loaded.case.name} {nodule.name}: Dice {old:.3f} -> {new:.3f}")
            self._job.progress(done + (number + 1) / len(loaded.nodules), total, loaded.case.name)
        files = self._write_masks(loaded, rows, masks)
        self._rows += [row.values for row in rows]
        self._cases.append({"case": loaded.case.full_name, "name": loaded.case.name, "image": str(loaded.case.image),
                            "label": str(loaded.case.label), **files})
        return True

    def _nodule(self, loaded: LoadedCase, nodule: Nodule, value: int, models: dict[str, Evaluated]) -> _Row:
        case, shown = loaded.case, self._shown
        name = zlib.crc32(f"{case.full_name}/{nodule.name}".encode())
        sides: dict[str, dict[str, list[float]]] = {}
        masks: dict[tuple[str, int], Segmentation] = {}
        for side, model in models.items():
            clicks = ClickSimulator("challenge", np.random.default_rng([self._config.seed, name, 0]))
            result = model.evaluate(nodule, self._config.clicks, clicks)
            sides[side] = {"dice": [_rounded(result.dice[n - 1]) for n in shown],
                           "volume_mm3": [round(result.volumes_mm3[n - 1], 2) for n in shown]}
            for click in shown:
                masks[side, click] = _after(result, click)
        return _Row({
            "case": case.full_name, "dataset": case.dataset, "patient": case.patient, "nodule": nodule.name,
            "label_value": nodule.value, "value": value, "diameter_mm": round(nodule.diameter_mm, 2),
            "truth_mm3": round(nodule.volume_mm3, 2),
            "center_ras": _center(nodule, loaded.ijk_to_ras), **sides,
            "delta": [_rounded(new - old) for old, new in zip(*(sides[side]["dice"] for side in SIDES), strict=True)],
        }, masks)

    def _write_masks(self, loaded: LoadedCase, rows: Sequence[_Row], masks: Path) -> dict[str, dict[str, str]]:
        """A label map for each side and shown click; by side and click its path from the folder of the results."""
        files: dict[str, dict[str, str]] = {side: {} for side in SIDES}
        folder = masks / loaded.case.dataset
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder} cannot be made: {error.strerror or error}") from error
        for side in SIDES:
            for click in self._shown:
                labels = np.zeros(loaded.array_kji.shape, np.uint16)
                for row in rows:
                    _paint(labels, row.masks[side, click], row.values["value"])
                path = folder / f"{loaded.case.part}_{loaded.case.name}_{side}_{click}.nii.gz"
                write_segmentation(path, labels, loaded.ijk_to_ras)
                files[side][str(click)] = path.relative_to(self._out).as_posix()
        return files

    # -- the table ---------------------------------------------------------------------------------------------------

    def _content(self, chosen: EvaluationCases, models: dict[str, Evaluated]) -> dict[str, Any]:
        rows, shown = self._rows, self._shown
        patients = [f"{row['dataset']}/{row['patient']}" for row in rows]
        curves = {side: [row[side]["dice"] for row in rows] for side in SIDES} | {"delta": [r["delta"] for r in rows]}
        mean = {
            what: {str(click): self._mean([curve[n] for curve in values], patients) for n, click in enumerate(shown)}
            for what, values in curves.items()
        }
        last = str(shown[-1])
        return {
            "schema": SCHEMA, "run": str(self._config.run.absolute()), "clicks": list(shown), "seed": self._config.seed,
            **{side: {"title": str(model.description["title"]), "checkpoint": str(model.description["checkpoint"])}
               for side, model in models.items()},
            "source": chosen.source, "notes": list(chosen.notes), "skipped": self._skipped, "mean": mean,
            "mean_old": mean["old"][last]["mean"], "mean_new": mean["new"][last]["mean"],
            "mean_delta": mean["delta"][last]["mean"], "nodules_count": len(rows), "patients": len(set(patients)),
            "nodules": rows, "cases": self._cases,
        }

    def _mean(self, values: list[float], patients: list[str]) -> dict[str, float | None]:
        """With its 95 % interval by patient, which one patient does not give."""
        low, high = bootstrap_interval(values, patients, seed=self._config.seed) or (None, None)
        return {"mean": _rounded(float(np.mean(values))), "low": None if low is None else _rounded(low),
                "high": None if high is None else _rounded(high)}


def _after(result: NoduleResult, click: int) -> Segmentation:
    """The mask after a click; the last one where fewer were needed."""
    return result.predictions[min(click, len(result.predictions)) - 1]


def _paint(labels: NDArray, segmentation: Segmentation, value: int) -> None:
    mask = np.asarray(segmentation.mask)
    window = tuple(slice(int(a), int(a) + n) for a, n in zip(segmentation.offset_kji, mask.shape, strict=True))
    labels[window][mask != 0] = value


def _center(nodule: Nodule, ijk_to_ras: NDArray) -> list[float]:
    """RAS mm of the voxel of the nodule that is nearest to its center of mass: in it, whatever its form."""
    voxels = np.argwhere(nodule.mask)
    nearest = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))] + nodule.offset_kji
    return [round(float(each), 3) for each in transform_points(ijk_to_ras, nearest[::-1])]


def _rounded(value: float) -> float:
    return round(float(value), 5)


def _text(content: dict[str, Any]) -> str:
    """The table for people."""
    shown = content["clicks"]
    lines = [f"old: {content['old']['title']}    new: {content['new']['title']}",
             f"{'nodule':<36} {'mm':>6}" + "".join(f"{f'old@{n}':>9}{f'new@{n}':>8}" for n in shown) + "   change"]
    for row in content["nodules"]:
        pairs = zip(row["old"]["dice"], row["new"]["dice"], strict=True)
        lines.append(f"{row['case'] + ' ' + row['nodule']:<36} {row['diameter_mm']:>6.1f}"
                     + "".join(f"{old:>9.3f}{new:>8.3f}" for old, new in pairs) + f"   {row['delta'][-1]:+.3f}")
    for click in map(str, shown):
        delta = content["mean"]["delta"][click]
        interval = "" if delta["low"] is None else f" (95 % by patient: {delta['low']:+.3f} to {delta['high']:+.3f})"
        lines.append(f"mean Dice after {click} click{'s' * (click != '1')}: "
                     f"{content['mean']['old'][click]['mean']:.3f} -> {content['mean']['new'][click]['mean']:.3f}, "
                     f"change {delta['mean']:+.3f}{interval}")
    lines.append(f"{content['nodules_count']} nodules of {content['patients']} patients; {content['source']}")
    lines += [f"left out: {name}: {reason}" for name, reason in content["skipped"].items()]
    return "\n".join(lines)


def comparison_parser(prog: str = "compare") -> argparse.ArgumentParser:
    """The options with their defaults and meanings."""
    parser = argparse.ArgumentParser(prog=prog, description="Compare a run's weights with older ones on the cases that "
                                     "it did not train on.", allow_abbrev=False)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--old", type=Path, metavar="FILE", help="weights to compare with (default: the run's start)")
    parser.add_argument("--new", type=Path, metavar="FILE", help="default: the run's best")
    parser.add_argument("--data", nargs="+", metavar="DIR", help="default: what the run was trained with")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (default: RUN/comparison)")
    parser.add_argument("--clicks", type=int, default=5, help="on each nodule (default %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"),
                        help="of the image encoder (default auto)")
    parser.add_argument("--seed", type=int, default=2023, help="of the clicks (default %(default)s)")
    add_job_options(parser)
    return parser


def run_comparison(arguments: list[str], prog: str = "compare") -> int:
    """The command ``compare``. Returns the exit code: 0 done, 2 it cannot be done, 130 asked to end."""
    options = comparison_parser(prog).parse_args(arguments)
    config = ComparisonConfig(
        options.run, options.old, options.new, tuple(options.data) if options.data else None, options.out,
        options.clicks, options.device, options.precision, options.seed,
    )

    def work(job: Job) -> None:
        compare(config, job)

    return Job(prog, options.json, options.control).run(work)
