"""Evaluates synthetic nodules in the held-out scan, which no training ever saw: Dice by kind and size.

    python -m Research.synthetic_nodules [--shared ../shared] [--checkpoint F] [--count 120] [--clicks 5]

The shapes come from the same library as in training (there is no other), the background and the random numbers do not.
The first click is a random voxel of the nodule's inner half, the next ones go where the challenge's simulator sends
them. Exit code 2 when the data is not there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SAMMed3DLib.inference import SamPredictor3D
from SAMMed3DLib.inference.geometry import transform_points, voxel_spacing
from SAMMed3DLib.model import load_model
from SAMMed3DLib.synthesis import NoduleShapes, paint_nodule, random_appearance
from SAMMed3DLib.synthesis.nodules import Kind
from SAMMed3DLib.weights import default_checkpoint
from SAMMed3DTrainingLib.data.clicks import ClickSimulator
from SAMMed3DTrainingLib.evaluate.evaluation import evaluate_nodule
from shared_data import shared_dir

from .backgrounds import HELD_OUT, Background, prepare_background

KINDS: tuple[Kind, ...] = ("solid", "part-solid", "ground-glass")
SIZES_MM = ((3, 6), (6, 10), (10, 20), (20, 30))
SHOWN = (1, 2, 3, 5)


@dataclass(frozen=True)
class ClickDice:
    """Dice per click of one synthetic nodule."""

    kind: str
    diameter_mm: float
    dice: tuple[float, ...]


def evaluate(
    predictor: SamPredictor3D, background: Background, count: int, clicks: int, rng: np.random.Generator
) -> list[ClickDice]:
    """Paints one nodule after the other into the scan and segments it."""
    shapes = NoduleShapes.load()
    outcomes: list[ClickDice] = []
    matrix = background.ijk_to_ras
    spacing = voxel_spacing(matrix)[::-1]
    while len(outcomes) < count:
        kind = KINDS[len(outcomes) % len(KINDS)]
        low, high = SIZES_MM[(len(outcomes) // len(KINDS)) % len(SIZES_MM)]
        shape = shapes.random(rng, float(rng.uniform(low, high)))
        sites = background.sites[("lung", "pleura", "vessel")[rng.integers(3)]]
        center = transform_points(matrix, sites[rng.integers(len(sites))])
        volume = background.hu.astype(np.float32)
        truth = paint_nodule(volume, matrix, shape, center, random_appearance(rng, kind), rng, background.lung)
        if truth.sum() < 8 or (volume - background.hu)[truth].mean() < 100:
            continue
        first = ClickSimulator("random", rng).next_click(truth, np.zeros_like(truth), spacing)
        assert first is not None
        predictor.set_image(volume, matrix)
        result = evaluate_nodule(predictor, truth, matrix, clicks, ClickSimulator("challenge", 0), first_voxel=first[0])
        outcomes.append(ClickDice(kind, shape.diameter_mm, result.dice))
    return outcomes


def print_table(outcomes: list[ClickDice]) -> None:
    """Prints the mean Dice per kind, per size and over all."""
    shown = [click for click in SHOWN if click <= len(outcomes[0].dice)]
    print(f"{'nodules':<18}{'n':>5}" + "".join(f"{f'@{click}':>8}" for click in shown) + f"{'failed @1':>12}")
    rows: list[tuple[str, list[ClickDice]]] = [(kind, [o for o in outcomes if o.kind == kind]) for kind in KINDS]
    rows += [(f"{low}-{high} mm", [o for o in outcomes if low <= o.diameter_mm < high]) for low, high in SIZES_MM]
    for name, group in [*rows, ("all", outcomes)]:
        if group:
            cells = "".join(f"{np.mean([o.dice[click - 1] for o in group]):8.3f}" for click in shown)
            print(f"{name:<18}{len(group):5d}{cells}{np.mean([o.dice[0] < 0.5 for o in group]):12.1%}")
    print("failed @1: Dice below 0.5 after the first click")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the evaluation; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=shared_dir(), help="folder with data/background")
    parser.add_argument("--checkpoint", type=Path, help="default: the model that ships with the module")
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    name, masks = next(iter(HELD_OUT.items()))
    if options.shared is None or not (options.shared / "data" / name).is_file():
        print(
            "the held-out scan is not there: name the folder that holds data/background with --shared", file=sys.stderr
        )
        return 2
    data = options.shared / "data"
    background = prepare_background(data / name, tuple(data / mask for mask in masks))
    predictor = SamPredictor3D(load_model(options.checkpoint or default_checkpoint()))
    outcomes = evaluate(predictor, background, options.count, options.clicks, np.random.default_rng(options.seed))
    print(f"{options.count} synthetic nodules in {background.name}, seed {options.seed}; Dice after n clicks")
    print_table(outcomes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
