"""Compares old and new weights: two evaluations of the cases that a run has not trained on, joined by nodule.

Both sides see the same cases and the same simulated user (by case, nodule and seed).

``OUT/comparison.json`` holds the table; the masks of both, label maps in the images' own geometry, lie in a folder
beside it that is new with every comparison, and are named by their paths from there, so that a run may be renamed. The
file appears when everything is there, and not before.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.inference.geometry import PlacedMask, transform_points
from SAMMed3DLib.model.sizes import NODULE_NETS

from ..data.datasets import DEFAULT_PATIENT_PATTERN, Case, DatasetError, LoadedCase
from ..data.instances import LabelledNodule
from ..job import Job, run_job
from ..options import DEVICES, ONE_CLICK, PRECISIONS, SEED, check_ranges, option, options_of
from ..runs import run_files
from ..runs.run_files import RunError, write_whole
from .evaluated_models import Evaluated, load_evaluated
from .evaluation_config import EvaluationConfig, EvaluationError
from .evaluation_run import EvaluationCases, UsableCases, choose_cases, prediction_values, write_predictions
from .metrics import bootstrap_interval
from .nodule_scores import simulated_user

SCHEMA = 1
FILE_NAME = "comparison.json"
#: Clicks after which Dice and volume are told, as far as so many are given.
SHOWN_CLICKS = (1, 3, 5)
SIDES = ("old", "new")


@dataclass(frozen=True)
class ComparisonConfig:
    """One comparison."""

    run: Path = option("", "folder of the run", kind=Path, required=True, metavar="DIR")
    old: Path | None = option("", "weights to compare with (default: the run's start)", None, kind=Path, metavar="FILE")
    new: Path | None = option("", "default: the run's best", None, kind=Path, metavar="FILE")
    data: tuple[str, ...] | None = option("", "default: what the run was trained with", None, nargs="+", metavar="DIR")
    out: Path | None = option("", "folder of the results (default: RUN/comparison)", None, kind=Path, metavar="DIR")
    clicks: int = option("", "on each nodule", 5, range=ONE_CLICK)
    device: str = option("", DEVICES, "auto")
    precision: str = option("", "of the image encoder", "auto", choices=PRECISIONS)
    seed: int = option("", "of the clicks", 2023, range=SEED)


OPTIONS = options_of(ComparisonConfig)


def compare(config: ComparisonConfig, job: Job) -> Path | None:
    """Compares as configured and writes the results. Returns their file, or None when asked to end before.

    Raises:
        RunError, DatasetError, InputError, CheckpointError, DeviceError, EvaluationError: with what to do.
    """
    return _Comparison(config, job).run()


class _Comparison:
    def __init__(self, config: ComparisonConfig, job: Job) -> None:
        check_ranges(config, OPTIONS, RunError)
        self._config, self._job = config, job
        self._shown = tuple(click for click in SHOWN_CLICKS if click <= config.clicks) or (1,)
        self._trained = run_files.read_config(config.run)
        self._out = (config.out or config.run / "comparison").absolute()
        self._rows: list[dict[str, Any]] = []
        self._cases: list[dict[str, Any]] = []
        self._total = 0

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
        self._total = len(chosen.cases)
        self._job.progress(0, self._total, "loading the models")
        models = {side: load_evaluated(self._evaluation(path)) for side, path in zip(SIDES, (old, new), strict=True)}
        masks = self._folder()
        try:
            cases = UsableCases(chosen, models.values(), self._job.note, self._begin)
            if not self._all_cases(cases, models, masks):
                shutil.rmtree(masks, ignore_errors=True)
                return None
            if not self._rows:
                raise DatasetError(
                    f"no nodule to compare on: the held-out label maps are empty or unreadable. {cases.reasons}"
                )
            content = self._content(chosen, cases, models)
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
            if self._trained.get("model_type", "nodule") not in NODULE_NETS:
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
            data=data,
            checkpoint=None if checkpoint is None else str(checkpoint),
            num_clicks=config.clicks,
            first_clicks=0,
            seed=config.seed,
            device=config.device,
            precision=config.precision,
            patient_pattern=self._trained.get("patient_pattern") or DEFAULT_PATIENT_PATTERN,
            labels=tuple(self._trained.get("labels") or ()),
        )

    def _folder(self) -> Path:
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="masks-", dir=self._out))
        except OSError as error:
            raise RunError(
                f"nothing can be written in {self._out}: {error.strerror or error}; choose another --out"
            ) from error

    def _begin(self, done: int, case: Case) -> None:
        self._job.progress(done, self._total, case.name)

    # -- the work ----------------------------------------------------------------------------------------------------

    def _all_cases(self, cases: UsableCases, models: dict[str, Evaluated], masks: Path) -> bool:
        """Evaluates all cases; returns False when asked to end."""
        for done, loaded in cases:
            if not loaded.nodules:
                cases.skipped[loaded.case.full_name] = "the label map is empty"
            elif not self._one_case(loaded, models, masks, done, len(cases)):
                return False
        return True

    def _one_case(self, loaded: LoadedCase, models: dict[str, Evaluated], masks: Path, done: int, total: int) -> bool:
        rows, drawn = [], []
        for number, (value, nodule) in enumerate(zip(prediction_values(loaded.nodules), loaded.nodules, strict=True)):
            if self._job.cancelled:
                return False
            row, masks_of_row = self._nodule(loaded, nodule, value, models)
            rows.append(row)
            drawn.append(masks_of_row)
            old, new = row["old"]["dice"][-1], row["new"]["dice"][-1]
            self._job.item(row, f"{loaded.case.name} {nodule.name}: Dice {old:.3f} -> {new:.3f}")
            self._job.progress(done + (number + 1) / len(loaded.nodules), total, loaded.case.name)
        files: dict[str, dict[str, str]] = {side: {} for side in SIDES}
        for side, click in ((side, click) for side in SIDES for click in self._shown):
            path = masks / loaded.case.dataset / f"{loaded.case.part}_{loaded.case.name}_{side}_{click}.nii.gz"
            write_predictions(path, loaded, [each[side, click] for each in drawn])
            files[side][str(click)] = path.relative_to(self._out).as_posix()
        self._rows += rows
        self._cases.append(
            {
                "case": loaded.case.full_name,
                "name": loaded.case.name,
                "image": str(loaded.case.image),
                "label": str(loaded.case.label),
                **files,
            }
        )
        return True

    def _nodule(
        self, loaded: LoadedCase, nodule: LabelledNodule, value: int, models: dict[str, Evaluated]
    ) -> tuple[dict[str, Any], dict[tuple[str, int], PlacedMask]]:
        """A nodule's line in the table and its masks by side and click, with the same simulated user on both sides."""
        case, shown, config = loaded.case, self._shown, self._config
        sides: dict[str, dict[str, list[float]]] = {}
        masks: dict[tuple[str, int], PlacedMask] = {}
        for side, model in models.items():
            user = simulated_user("challenge", case, nodule, config.seed)
            result = model.evaluate(nodule, config.clicks, user)
            sides[side] = {
                "dice": [_rounded(result.dice[n - 1]) for n in shown],
                "volume_mm3": [round(result.volumes_mm3[n - 1], 2) for n in shown],
            }
            for click in shown:
                masks[side, click] = result.after(click)
        row = {
            "case": case.full_name,
            "dataset": case.dataset,
            "patient": case.patient,
            "nodule": nodule.name,
            "label_value": nodule.value,
            "value": value,
            "diameter_mm": round(nodule.diameter_mm, 2),
            "truth_mm3": round(nodule.volume_mm3, 2),
            "center_ras": _center(nodule, loaded.ijk_to_ras),
            **sides,
            "delta": [_rounded(new - old) for old, new in zip(*(sides[side]["dice"] for side in SIDES), strict=True)],
        }
        return row, masks

    # -- the table ---------------------------------------------------------------------------------------------------

    def _content(self, chosen: EvaluationCases, cases: UsableCases, models: dict[str, Evaluated]) -> dict[str, Any]:
        rows, shown = self._rows, self._shown
        patients = [f"{row['dataset']}/{row['patient']}" for row in rows]
        curves = {side: [row[side]["dice"] for row in rows] for side in SIDES} | {"delta": [r["delta"] for r in rows]}
        mean = {
            what: {str(click): self._mean([curve[n] for curve in values], patients) for n, click in enumerate(shown)}
            for what, values in curves.items()
        }
        last = str(shown[-1])
        return {
            "schema": SCHEMA,
            "run": str(self._config.run.absolute()),
            "clicks": list(shown),
            "seed": self._config.seed,
            **{
                side: {"title": str(model.description["title"]), "checkpoint": str(model.description["checkpoint"])}
                for side, model in models.items()
            },
            "source": chosen.source,
            "caution": chosen.caution,
            "notes": [*chosen.notes, *cases.notes],
            "skipped": cases.skipped,
            "mean": mean,
            "mean_old": mean["old"][last]["mean"],
            "mean_new": mean["new"][last]["mean"],
            "mean_delta": mean["delta"][last]["mean"],
            "nodules_count": len(rows),
            "patients": len(set(patients)),
            "nodules": rows,
            "cases": self._cases,
        }

    def _mean(self, values: list[float], patients: list[str]) -> dict[str, float | None]:
        """The mean with its 95 % interval by patient; a single patient gives no interval."""
        low, high = bootstrap_interval(values, patients, seed=self._config.seed) or (None, None)
        return {
            "mean": _rounded(float(np.mean(values))),
            "low": None if low is None else _rounded(low),
            "high": None if high is None else _rounded(high),
        }


def _center(nodule: LabelledNodule, ijk_to_ras: NDArray) -> list[float]:
    """RAS mm of the voxel of the nodule that is nearest to its center of mass: in it, whatever its form."""
    voxels = np.argwhere(nodule.mask)
    nearest = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))] + nodule.offset_kji
    return [round(float(each), 3) for each in transform_points(ijk_to_ras, nearest[::-1])]


def _rounded(value: float) -> float:
    return round(float(value), 5)


def _text(content: dict[str, Any]) -> str:
    """The table for people."""
    shown = content["clicks"]
    lines = [
        f"old: {content['old']['title']}    new: {content['new']['title']}",
        f"{'nodule':<36} {'mm':>6}" + "".join(f"{f'old@{n}':>9}{f'new@{n}':>8}" for n in shown) + "   change",
    ]
    for row in content["nodules"]:
        pairs = zip(row["old"]["dice"], row["new"]["dice"], strict=True)
        lines.append(
            f"{row['case'] + ' ' + row['nodule']:<36} {row['diameter_mm']:>6.1f}"
            + "".join(f"{old:>9.3f}{new:>8.3f}" for old, new in pairs)
            + f"   {row['delta'][-1]:+.3f}"
        )
    for click in map(str, shown):
        delta = content["mean"]["delta"][click]
        interval = "" if delta["low"] is None else f" (95 % by patient: {delta['low']:+.3f} to {delta['high']:+.3f})"
        lines.append(
            f"mean Dice after {click} click{'s' * (click != '1')}: "
            f"{content['mean']['old'][click]['mean']:.3f} -> {content['mean']['new'][click]['mean']:.3f}, "
            f"change {delta['mean']:+.3f}{interval}"
        )
    lines.append(f"{content['nodules_count']} nodules of {content['patients']} patients; {content['source']}")
    lines += [content["caution"]] if content["caution"] else []
    lines += [f"left out: {name}: {reason}" for name, reason in content["skipped"].items()]
    return "\n".join(lines)


def run_comparison(arguments: list[str]) -> int:
    """The command ``compare``; returns the exit code."""
    about = "Compare a run's weights with older ones on the cases that it did not train on."
    return run_job("compare", about, ComparisonConfig, compare, arguments, (EvaluationError,))
