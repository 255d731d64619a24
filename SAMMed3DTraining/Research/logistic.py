"""Fits penalized logistic regressions, and writes them to the file that the module reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from SAMMed3DLib.files.output_files import whole_file
from SAMMed3DLib.finding.regression import Regression

_NUMBERS = ("centers", "scales", "weights")

_FLATTEST = 30.0
"""Log odds beyond that are those of certainty."""


def fit_logistic(
    inputs: np.ndarray, target: np.ndarray, weight: np.ndarray, penalty: np.ndarray, steps: int = 40
) -> np.ndarray:
    """Fits the weights of the inputs by Newton's method (penalized maximum likelihood).

    Args:
        inputs: (n, m); a constant is one of them if it is wanted.
        target: (n,) 0 or 1, or bool.
        weight: (n,) of the samples.
        penalty: (m,) of the squared weights; a little of it keeps separable samples bounded.
        steps: of Newton's method.
    """
    inputs, target = np.asarray(inputs, np.float64), np.asarray(target, np.float64)
    beta = np.zeros(inputs.shape[1])
    for _ in range(steps):
        expected = 1.0 / (1.0 + np.exp(-np.clip(inputs @ beta, -_FLATTEST, _FLATTEST)))
        hessian = inputs.T @ (inputs * (weight * expected * (1.0 - expected))[:, None]) + np.diag(penalty)
        beta += np.linalg.solve(hessian, inputs.T @ (weight * (target - expected)) - penalty * beta)
    return beta


def as_values(regression: Regression) -> dict[str, Any]:
    """Converts a regression to the values of ``finding.json``, four digits of each number."""
    intercept = regression.intercept
    return {
        "inputs": list(regression.names),
        **{name: [round(float(value), 4) for value in getattr(regression, name)] for name in _NUMBERS},
        "intercept": None if intercept is None else round(intercept, 4),
    }


def write_section(path: Path, section: str, made_by: str, about: str, values: Mapping[str, Any]) -> None:
    """Writes a script's fit into the file that the module reads (:mod:`SAMMed3DLib.finding.regression`).

    Args:
        path: a copy of ``finding.json``, whose other sections stay; a new file gets this one only.
        section: of the file.
        made_by: the command.
        about: what it was fitted on and how good it is.
        values: regressions and plain numbers, by name.
    """
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    content[section] = {"made_by": made_by, "about": about} | {
        name: as_values(value) if isinstance(value, Regression) else value for name, value in values.items()
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    with whole_file(path) as part:
        part.write_text(re.sub(r"\[[^][]*\]", _in_one_line, text) + "\n", encoding="utf-8")


def _in_one_line(found: re.Match[str]) -> str:
    return f"[{' '.join(found[0][1:-1].split())}]"
