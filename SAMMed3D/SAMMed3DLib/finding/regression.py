"""Logistic regressions over a few measures; the fitted ones are in ``Resources/Models/finding.json``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..inference.errors import InputError
from ..weights import FITTED, resource_path

#: Inputs are clipped to this many scales from the center.
_FARTHEST = 3.0


@dataclass(frozen=True)
class Regression:
    """A logistic regression over standardized inputs and the products of some of them.

    Attributes:
        names: of its n inputs.
        centers, scales: (n,) of the inputs.
        weights: of the :meth:`terms`.
        intercept: added to them; None = the first term is 1 and its weight the intercept.
        multiplied: names of the inputs whose squares and products are terms too; None = of all.
    """

    names: tuple[str, ...]
    centers: Sequence[float]
    scales: Sequence[float]
    weights: Sequence[float] = ()
    intercept: float | None = None
    multiplied: tuple[str, ...] | None = None

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Index pairs of the inputs that are multiplied."""
        members = [n for n, name in enumerate(self.names) if self.multiplied is None or name in self.multiplied]
        return tuple(itertools.combinations_with_replacement(members, 2))

    @property
    def term_count(self) -> int:
        """Number of weights it needs."""
        return (self.intercept is None) + len(self.names) + len(self.pairs)

    def terms(self, inputs: ArrayLike) -> NDArray[np.floating]:
        """The terms that are weighted, (..., terms): inputs (..., n) in units of their scales, and their products."""
        given = np.asarray(inputs)
        kind = given.dtype if given.dtype == np.float32 else np.float64
        unit = (given - np.asarray(self.centers, kind)) / np.asarray(self.scales, kind)
        bounded = np.clip(unit, -_FARTHEST, _FARTHEST)
        first, second = (list(members) for members in zip(*self.pairs, strict=True))
        parts = [bounded, bounded[..., first] * bounded[..., second]]
        if self.intercept is None:
            parts.insert(0, np.ones((*bounded.shape[:-1], 1), kind))
        return np.concatenate(parts, axis=-1)

    def log_odds(self, inputs: ArrayLike) -> NDArray[np.floating]:
        """Natural log of the odds of inputs (..., n)."""
        terms = self.terms(inputs)
        return terms @ np.asarray(self.weights, terms.dtype) + (self.intercept or 0.0)


def fitted(section: str, name: str, names: tuple[str, ...], multiplied: tuple[str, ...] | None = None) -> Regression:
    """Loads a regression that comes with the module.

    Args:
        section: of the file, one for each script that fits.
        name: of the regression in it.
        names: of the inputs that the caller computes.
        multiplied: see :class:`Regression`.

    Raises:
        InputError: the file is missing, damaged or of another version; the message names the cure.
    """
    stored = fitted_values(section)
    try:
        values = stored[name]
        found = Regression(
            tuple(values["inputs"]),
            values["centers"],
            values["scales"],
            values["weights"],
            values["intercept"],
            multiplied,
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{FITTED} lacks {section}, {name}: install SAMMed3D again") from error
    sizes = {len(found.centers), len(found.scales), len(names)}
    if found.names != names or len(sizes) > 1 or len(found.weights) != found.term_count:
        raise InputError(f"{FITTED} does not fit this version ({section}, {name}): install SAMMed3D again")
    return found


@cache
def fitted_values(section: str) -> dict[str, Any]:
    """Reads one section of the file, once. Raises InputError."""
    try:
        values = json.loads(resource_path(FITTED).read_text(encoding="utf-8"))[section]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"finding nodules needs {FITTED}: install SAMMed3D again ({error})") from error
    return values
