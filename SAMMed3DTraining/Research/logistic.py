"""Penalized logistic regression, and its coefficients as lines of a Python file."""

from __future__ import annotations

import textwrap

import numpy as np

_FLATTEST = 30.0
"""Log odds beyond that are those of certainty."""


def fit_logistic(
    inputs: np.ndarray, target: np.ndarray, weight: np.ndarray, penalty: np.ndarray, steps: int = 40
) -> np.ndarray:
    """The weights of the inputs that make the targets likeliest, by Newton's method.

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


def as_tuple(name: str, values: np.ndarray) -> str:
    """``NAME = (...)`` with four digits, folded at 116 columns."""
    text = textwrap.fill(", ".join(f"{value:.4f}" for value in values), 116, break_on_hyphens=False)
    return f"{name} = (\n{textwrap.indent(text, '    ')},\n)\n"
