"""Segmented nodules as a table for people and as rows for CSV and JSON."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.output_files import whole_file
from .segmenting import SegmentedNodule


def table(results: Sequence[SegmentedNodule]) -> str:
    """An aligned table, one line per nodule; with references, their volume, the Dice and its mean."""
    scored = any(result.dice is not None for result in results)
    head = ["nodule", "volume mm³", "long mm", "short mm", "mean HU", "pred. IoU"]
    head += ["Dice", "reference mm³"] if scored else []
    lines = [[*head, "seconds"]]
    for result in results:
        record = result.record
        line = [
            result.name,
            number(record.volume_mm3, 1),
            number(record.long_axis_mm, 1),
            number(record.short_axis_mm, 1),
            number(record.mean_hu, 0),
            number(result.prediction.score, 2),
        ]
        line += [number(result.dice, 3), number(result.reference_mm3, 1)] if scored else []
        lines.append([*line, " ".join(f"{seconds:.2f}" for seconds in result.seconds)])
    dices = [result.dice for result in results if result.dice is not None]
    if len(dices) > 1:
        lines.append(["mean", *[""] * 5, number(sum(dices) / len(dices), 3), "", ""])
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns, the first to the left and the others to the right, a rule below the head."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in ruled
    )


def as_dict(result: SegmentedNodule) -> dict[str, Any]:
    """Plain numbers and strings: the prompt, every measurement, the scores and the times."""
    prompt = result.prompt
    values: dict[str, Any] = {
        "label": result.label,
        "name": result.name,
        "points_ras": [list(point) for point in prompt.points],
        "positive": list(prompt.positive),
        "box_ras": None if prompt.box is None else [*prompt.box[0], *prompt.box[1]],
        **result.record.to_dict(),
        "predicted_iou": None if result.prediction.score is None else float(result.prediction.score),
        "seconds": [round(seconds, 4) for seconds in result.seconds],
    }
    if result.dice is not None:
        values |= {"dice": result.dice, "reference_mm3": result.reference_mm3}
    return values


def write_csv(path: Path, results: Sequence[SegmentedNodule]) -> None:
    """The table with every measurement. Raises InputError when the place cannot be written."""
    rows = []
    for result in results:
        values = as_dict(result)
        click = result.prompt.points[0] if result.prompt.points else ("", "", "")
        values |= {"click_r": click[0], "click_a": click[1], "click_s": click[2], "first_click_s": result.seconds[0]}
        rows.append({key: value for key, value in values.items() if not isinstance(value, (list, tuple))})
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["label"])
        writer.writeheader()
        writer.writerows(rows)


def number(value: float | None, digits: int) -> str:
    """A rounded number; "-" for None and NaN."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
