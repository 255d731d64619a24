"""Clicks and boxes on the command line: ``--point``, ``--box`` and ``--nodule``, whose order matters."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float, float]

_VALUE_OPTIONS = ("--point", "--box")
_NEGATIVE_NUMBER = re.compile(r"-\.?\d")


@dataclass(frozen=True)
class NodulePrompt:
    """What was asked for one nodule.

    Attributes:
        points: clicks, oldest first; RAS mm, unless :meth:`in_ras` has yet to be called.
        positive: for each click, whether it lies on the nodule.
        box: two opposite corners, or None.
    """

    points: tuple[Point, ...] = ()
    positive: tuple[bool, ...] = ()
    box: tuple[Point, Point] | None = None

    def in_ras(self, convention: str, ijk_to_ras: NDArray) -> NodulePrompt:
        """The same prompt in RAS mm, from "ras", "lps" or "ijk" (voxel indices, i first)."""
        if convention == "ras":
            return self
        matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) if convention == "lps" else np.asarray(ijk_to_ras)

        def moved(point: Sequence[float]) -> Point:
            x, y, z = (float(value) for value in matrix[:3, :3] @ np.array(point) + matrix[:3, 3])
            return x, y, z

        box = self.box
        if box is not None:  # of a box turned in space, the upright box around it
            corners = [moved((x, y, z)) for x in _axis(box, 0) for y in _axis(box, 1) for z in _axis(box, 2)]
            low, high = np.min(corners, axis=0).tolist(), np.max(corners, axis=0).tolist()
            box = (low[0], low[1], low[2]), (high[0], high[1], high[2])
        return replace(self, points=tuple(moved(point) for point in self.points), box=box)


def _axis(box: tuple[Point, Point], axis: int) -> tuple[float, float]:
    return box[0][axis], box[1][axis]


def join_negative_values(arguments: Sequence[str]) -> list[str]:
    """``--point -45,10,-300`` made ``--point=-45,10,-300``: argparse takes a leading minus for an option's."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in _VALUE_OPTIONS and _NEGATIVE_NUMBER.match(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Adds --point, --box, --nodule and the coordinate conventions; ``nodules`` becomes a list of NodulePrompt."""
    group = parser.add_argument_group("where the nodules are")
    group.add_argument(
        "--point",
        metavar="R,A,S[,LABEL]",
        dest="nodules",
        action=_PointAction,
        help="a click in mm; label 1 on the nodule (default), 0 beside it; repeat for corrections",
    )
    group.add_argument(
        "--box",
        metavar="R0,A0,S0,R1,A1,S1",
        dest="nodules",
        action=_BoxAction,
        help="two opposite corners of a box around the nodule",
    )
    group.add_argument(
        "--nodule",
        dest="nodules",
        action=_NoduleAction,
        nargs=0,
        help="what follows belongs to the next nodule, which gets a label of its own",
    )
    convention = group.add_mutually_exclusive_group()
    convention.add_argument(
        "--lps",
        dest="convention",
        action="store_const",
        const="lps",
        default="ras",
        help="coordinates are LPS mm (DICOM, ITK) instead of RAS mm (3D Slicer)",
    )
    convention.add_argument(
        "--ijk", dest="convention", action="store_const", const="ijk", help="coordinates are voxel indices, i first"
    )


def _numbers(text: str, counts: tuple[int, ...], shape: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{text!r} is not {shape}, numbers with commas and no blanks between them")
    return numbers


class _PromptAction(argparse.Action):
    """Adds a prompt option to the newest nodule of the parsed options."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:  # noqa: ANN001
        nodules = list(getattr(namespace, self.dest) or [NodulePrompt()])
        try:
            self.add(nodules, values)
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from error
        setattr(namespace, self.dest, nodules)

    def add(self, nodules: list[NodulePrompt], values: str) -> None:
        raise NotImplementedError


class _PointAction(_PromptAction):
    def add(self, nodules: list[NodulePrompt], values: str) -> None:
        r, a, s, label = (*_numbers(values, (3, 4), "R,A,S or R,A,S,LABEL"), 1.0)[:4]
        if label not in (0.0, 1.0):
            raise ValueError(f"the label of {values!r} must be 1 (on the nodule) or 0 (beside it)")
        last = nodules[-1]
        nodules[-1] = replace(last, points=(*last.points, (r, a, s)), positive=(*last.positive, label == 1.0))


class _BoxAction(_PromptAction):
    def add(self, nodules: list[NodulePrompt], values: str) -> None:
        if nodules[-1].box is not None:
            raise ValueError("this nodule has a box already; start the next one with --nodule")
        r0, a0, s0, r1, a1, s1 = _numbers(values, (6,), "R0,A0,S0,R1,A1,S1")
        nodules[-1] = replace(nodules[-1], box=((r0, a0, s0), (r1, a1, s1)))


class _NoduleAction(_PromptAction):
    def add(self, nodules: list[NodulePrompt], values: str) -> None:
        if nodules[-1] != NodulePrompt():
            nodules.append(NodulePrompt())
