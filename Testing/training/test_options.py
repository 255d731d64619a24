"""Options of train.py, test.py, compare and rank: one table for parser, checks and documentation.

``python Testing/training/test_options.py`` writes the documentation anew (PYTHONPATH=SAMMed3D:SAMMed3DTraining).
"""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from SAMMed3DTrainingLib.evaluate import active_learning, comparison, evaluation_config
from SAMMed3DTrainingLib.options import NOT_NEGATIVE, SHARE, Option, check_ranges, options_of
from SAMMed3DTrainingLib.train import training_config

PAGE = Path(__file__).resolve().parents[2] / "Resources" / "Documentation" / "options.md"
TABLES = {
    "train.py": (training_config.OPTIONS, training_config.TrainingConfig),
    "test.py": (evaluation_config.OPTIONS, evaluation_config.EvaluationConfig),
    "compare": (comparison.OPTIONS, comparison.ComparisonConfig),
    "rank": (options_of(active_learning.RankingConfig), active_learning.RankingConfig),
}


def markdown_table(options: Iterable[Option], defaults: Any) -> str:
    """The options as a table for the documentation."""
    lines = ["| option | meaning | default | range |", "| --- | --- | --- | --- |"]
    for option in options:
        default = getattr(defaults, option.target, None)
        shown = "" if option.switch is not None or default in (None, ()) else default
        shown = " ".join(map(str, shown)) if isinstance(shown, tuple) else str(shown)
        allowed = ", ".join(option.choices) if option.choices else option.range.text if option.range else ""
        names = ", ".join(f"`{name}`" for name in (*option.flags, f"--{option.name}"))
        cells = (names, option.help, f"`{shown}`" if shown else "", allowed)
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines)


def page() -> str:
    """The documentation's text."""
    parts = [
        "# Options",
        "",
        "Written by `python Testing/training/test_options.py` from the tables that the commands use; "
        "`--help` of a command says the same.",
        "",
    ]
    for command, (options, defaults) in TABLES.items():
        parts += [f"## `{command}`", "", markdown_table(options, defaults), ""]
    return "\n".join(parts)


def test_the_documentation_is_as_the_commands_have_it() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("command", TABLES)
def test_defaults_lie_in_their_ranges_and_names_are_used_once(command) -> None:
    options, defaults = TABLES[command]
    check_ranges(defaults, options, ValueError)
    names = [name for option in options for name in (*option.flags, option.name)]
    assert len(set(names)) == len(names) and all(option.help for option in options)
    fields = set(defaults.__dataclass_fields__)
    assert {option.target for option in options} <= fields


MODULE = Path(__file__).resolve().parents[2] / "SAMMed3DTraining" / "SAMMed3DTraining.py"


@pytest.mark.parametrize(
    ("parameter", "name", "of_preset"),
    [
        ("epochs", "num_epochs", 0),
        ("batchSize", "batch_size", None),
        ("accumulationSteps", "accumulation_steps", None),
        ("learningRate", "lr", 0),
    ],
)
def test_the_panel_has_ranges_and_defaults_of_the_table(parameter, name, of_preset) -> None:
    """The parameter node and the .ui file cannot ask the table: neither may promise what ``train`` refuses."""
    option = next(each for each in training_config.OPTIONS if each.name == name)
    default = of_preset if of_preset is not None else getattr(training_config.TrainingConfig, name)
    assert (getattr(training_config.TrainingConfig, name) is None) == (of_preset is not None)
    (node,) = (
        each
        for each in ast.walk(ast.parse(MODULE.read_text(encoding="utf-8")))
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.target.id == parameter
    )
    low, high = (ast.literal_eval(bound) for bound in node.annotation.slice.elts[1].args)
    assert ast.literal_eval(node.value) == default
    assert all(value == of_preset or option.range.holds(value) for value in (low, high, default))
    widgets = ElementTree.parse(MODULE.parent / "Resources" / "UI" / "SAMMed3DTraining.ui").iter("widget")
    (widget,) = (
        each
        for each in widgets
        if any(p.get("name") == "SlicerParameterName" and p.find("string").text == parameter for p in each)
    )
    shown = {p.get("name"): p[0].text for p in widget.findall("property")}
    assert (float(shown.get("minimum", 0)), float(shown["maximum"])) == (low, high)
    assert float(shown.get("value", 0)) == default


@dataclass(frozen=True)
class Config:
    share: float = 0.5
    seed: int | None = 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 1.0}, r"-s must be in \[0, 1\), not 1.0"),
        ({"share": float("nan")}, "-s must"),
        ({"seed": -1}, "--seed must be 0 or more, not -1"),
    ],
)
def test_values_out_of_range_are_named(changes, message) -> None:
    options = (Option("", "share", "a", flags=("-s",), range=SHARE), Option("", "seed", "b", range=NOT_NEGATIVE))
    check_ranges(Config(), options, ValueError)
    check_ranges(Config(seed=None), options, ValueError)
    with pytest.raises(ValueError, match=message):
        check_ranges(Config(**changes), options, ValueError)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
