"""An evaluation's results as JSON, CSV and text; each file appears whole or not at all.

``results.json`` holds "schema" (1), what was evaluated ("model", "cases", "options", "versions"), "notes", "skipped"
({case: reason}), "summary" (one object per click protocol and group, see GroupSummary) and "nodules" (one object per
nodule and protocol, with every curve and click). ``nodules.csv`` has the figures of "nodules", ``summary.txt`` the
tables.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from SAMMed3DLib import __version__
from SAMMed3DLib.commandline.terminal import aligned
from SAMMed3DLib.files.output_files import whole_file, write_text_whole
from SAMMed3DLib.inference.nodule_table import number

from ..runs.run_files import plain
from .evaluation_config import EvaluationConfig
from .metrics import NSD_TOLERANCES_MM
from .nodule_scores import GroupSummary, ScoredNodule

SCHEMA = 1
SHOWN_CLICKS = (1, 2, 3, 5, 10, 15, 20)
FEW_PATIENTS = 20


@dataclass(frozen=True)
class Evaluation:
    """All results of a run.

    Attributes:
        config: what was asked for.
        model: description of what was evaluated.
        source: which cases, in words.
        notes: what has to be known with the figures.
        skipped: cases that could not be used, and why.
        scores: of every nodule and protocol.
        summaries: of every group.
    """

    config: EvaluationConfig
    model: Mapping[str, Any]
    source: str
    notes: tuple[str, ...]
    skipped: Mapping[str, str]
    scores: tuple[ScoredNodule, ...]
    summaries: tuple[GroupSummary, ...]


def versions() -> dict[str, str]:
    """Returns the versions of all that decides figures, for reports and configurations."""
    return {
        "sammed3d": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def write_json(path: Path, evaluation: Evaluation) -> None:
    """Writes ``results.json``. Raises InputError when the place cannot be written."""
    content = {
        "schema": SCHEMA,
        "model": evaluation.model,
        "cases": evaluation.source,
        "notes": evaluation.notes,
        "skipped": evaluation.skipped,
        "options": dataclasses.asdict(evaluation.config),
        "versions": versions(),
        "summary": [dataclasses.asdict(summary) for summary in evaluation.summaries],
        "nodules": [_as_dict(score) for score in evaluation.scores],
    }
    write_text_whole(path, json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_dice_of_clicks(path: Path, scores: Sequence[ScoredNodule]) -> None:
    """Writes {data set: {"case/nodule": {"0": Dice after the first click, "1": ...}}}, SAM-Med3D's ``out_dice.json``.

    Raises InputError when the place cannot be written.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    for score in scores:
        curve = {str(click): round(value, 6) for click, value in enumerate(score.dice)}
        table.setdefault(score.dataset, {})[f"{score.case}/{score.nodule}"] = curve
    write_text_whole(path, json.dumps(table, indent=1, ensure_ascii=False) + "\n")


def write_csv(path: Path, scores: Sequence[ScoredNodule]) -> None:
    """Writes ``nodules.csv``. Raises InputError when the place cannot be written."""
    rows = [_row(score) for score in scores]
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_text(path: Path, evaluation: Evaluation) -> None:
    """Writes ``summary.txt``. Raises InputError when the place cannot be written."""
    write_text_whole(path, text_report(evaluation) + "\n")


def text_report(evaluation: Evaluation) -> str:
    """Writes the report: the model, tables of Dice and of surfaces and volumes per protocol, and notes."""
    config = evaluation.config
    lines = [f"{evaluation.model['title']}", f"cases: {evaluation.source}", ""]
    for method in dict.fromkeys(summary.method for summary in evaluation.summaries):
        groups = [summary for summary in evaluation.summaries if summary.method == method]
        unit = "rounds of clicks" if "rounds" in evaluation.model else "clicks"
        lines += [
            f"Dice after n {unit} ({method}, seed {config.seed})",
            _dice_table(groups),
            "",
            f"after the last one ({method})",
            _surface_table(groups),
            "",
        ]
    lines += [f"note: {note}" for note in (*_cautions(evaluation), *evaluation.notes)]
    lines += [f"LEFT OUT {case}: {reason}" for case, reason in evaluation.skipped.items()]
    return "\n".join(lines)


def _dice_table(groups: Sequence[GroupSummary]) -> str:
    last = len(groups[0].dice)
    shown = [click for click in SHOWN_CLICKS if click < last] + [last]
    targets = [cell for target in groups[0].noc for cell in (f"NoC{100 * target:.0f}", "fail")]
    rows = [
        [
            "group",
            "nodules",
            "patients",
            *(f"@{click}" for click in shown),
            f"95 % @{last}",
            "AUC 1-5",
            *targets,
            "worst 1st",
            "-> end",
        ]
    ]
    for group in groups:
        noc = [cell for mean, failed in group.noc.values() for cell in (number(mean, 1), f"{100 * failed:.0f} %")]
        rows.append(
            [
                group.group,
                str(group.nodules),
                str(group.patients),
                *(number(group.dice[click - 1], 3) for click in shown),
                _interval(group.dice_interval),
                number(group.dice_auc, 2),
                *noc,
                number(group.worst_first, 3),
                number(group.worst_last, 3),
            ]
        )
    return aligned(rows)


def _surface_table(groups: Sequence[GroupSummary]) -> str:
    tolerances = list(groups[0].nsd)
    rows = [
        [
            "group",
            "nodules",
            *(f"NSD {tolerance:g} mm" for tolerance in tolerances),
            "NSD AUC",
            "volume bias",
            "volume error",
            "CV 1st click",
            "clicks",
            "first s",
            "next s",
        ]
    ]
    rows += [
        [
            group.group,
            str(group.nodules),
            *(number(group.nsd[tolerance], 3) for tolerance in tolerances),
            number(group.nsd_auc, 2),
            f"{100 * group.volume_bias:+.1f} %",
            f"{100 * group.volume_error:.1f} %",
            "-" if group.volume_variation is None else f"{100 * group.volume_variation:.1f} %",
            number(group.clicks_given, 1),
            number(group.first_s, 3),
            number(group.next_s, 3),
        ]
        for group in groups
    ]
    return aligned(rows)


def _cautions(evaluation: Evaluation) -> list[str]:
    patients = evaluation.summaries[0].patients
    texts = ["the score of a nodule is that of its last click; NoC counts a failure as the most clicks"]
    if patients == 1:
        texts.append("one patient only: no interval, and no word on other patients")
    elif patients < FEW_PATIENTS:
        texts.append(
            f"{patients} patients are few: a development set, never a benchmark; intervals of so few are too narrow"
        )
    if "rounds" in evaluation.model:
        texts.append(f"{evaluation.model['rounds']}: more clicks than a 3D model gets, see the column 'clicks'")
    return texts


def _interval(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f}-{interval[1]:.3f}"


def _as_dict(score: ScoredNodule) -> dict[str, Any]:
    values = {
        field.name: getattr(score, field.name)
        for field in dataclasses.fields(score)
        if field.name not in ("prediction", "predictions", "first_clicks", "nsd")
    }
    return values | {
        "nsd": {f"{tolerance:g}": curve for tolerance, curve in zip(NSD_TOLERANCES_MM, score.nsd, strict=True)},
        "first_clicks": [dataclasses.asdict(trial) for trial in score.first_clicks],
        "dice_auc": score.dice_auc,
        "nsd_auc": score.nsd_auc,
        "volume_error": score.volume_error,
        "volume_variation": score.volume_variation,
        "worst_first": score.worst_first,
        "worst_last": score.worst_last,
    }


def _row(score: ScoredNodule) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: getattr(score, name)
        for name in (
            "dataset",
            "case",
            "patient",
            "nodule",
            "method",
            "size",
            "density",
            "slices",
            "slice_mm",
            "diameter_mm",
            "truth_mm3",
        )
    }
    row |= {f"dice_{click}": value for click, value in enumerate(score.dice, start=1)}
    row |= {f"nsd_{tolerance:g}mm": curve[-1] for tolerance, curve in zip(NSD_TOLERANCES_MM, score.nsd, strict=True)}
    row |= {
        "volume_mm3": score.volumes_mm3[-1],
        "volume_error": score.volume_error,
        "dice_auc": score.dice_auc,
        "nsd_auc": score.nsd_auc,
        "worst_first": score.worst_first,
        "worst_last": score.worst_last,
        "volume_variation": score.volume_variation,
        "clicks": len(score.labels),
        "first_s": score.seconds[0],
    }
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}
