"""Draws the documentation's figures from what is there: a network's architecture, and evaluations beside each other.

python Resources/draw_figures.py architecture [--model nodule_light] [--out FILE]
python Resources/draw_figures.py comparison RESULTS.json [RESULTS.json ...] --out FILE

Shapes and numbers of parameters come from a forward pass; Dice from the results.json of `test.py`, first click
protocol, over the nodules that all of them have, with intervals by patient.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "SAMMed3D"), str(ROOT / "SAMMed3DTraining")]

import torch  # noqa: E402

from SAMMed3DLib.files.output_files import whole_file  # noqa: E402
from SAMMed3DLib.inference.errors import InputError  # noqa: E402
from SAMMed3DLib.model import build_model  # noqa: E402
from SAMMed3DTrainingLib.evaluate.metrics import bootstrap_interval  # noqa: E402

OUT = ROOT / "Resources" / "Screenshots" / "architecture.png"
INK, LINE, FILL = "#1f3247", "#5b7390", "#f3f6fa"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def shape_text(shape: Sequence[int]) -> str:
    """Channels and grid of a tensor without its batch."""
    return f"{shape[1]} x " + " x ".join(str(n) for n in shape[2:])


def number_text(count: int) -> str:
    """ "4.6 million", "12 thousand"."""
    return f"{count / 1e6:.1f} million" if count >= 1e5 else f"{count / 1e3:.0f} thousand"


def draw_architecture(name: str, path: Path) -> None:
    """Draws the parts of a network with the shapes between them. Raises InputError where it cannot be written."""
    model = build_model(name)
    profile = model.profile
    crop = torch.zeros(1, profile.channels, *profile.crop_size)
    with torch.no_grad():
        embedding = model.encode(crop)
        middle = torch.tensor(profile.crop_size).float()[None, None] / 2
        logits, iou = model.decode(embedding, middle, torch.ones(1, 1, dtype=torch.int64))
    learned = {
        part: sum(p.numel() for p in getattr(model, part).parameters())
        for part in ("image_encoder", "prompt_encoder", "mask_decoder")
    }
    figure = Figure(figsize=(10.4, 3.6), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 10.4), ylim=(0, 3.6))
    axes.set_axis_off()

    def box(left: float, bottom: float, width: float, head: str, body: str) -> None:
        style = "round,pad=0,rounding_size=0.08"
        axes.add_patch(FancyBboxPatch((left, bottom), width, 1.0, boxstyle=style, facecolor=FILL, edgecolor=LINE))
        axes.text(left + width / 2, bottom + 0.68, head, ha="center", fontsize=10.5, weight="bold", color=INK)
        axes.text(left + width / 2, bottom + 0.18, body, ha="center", fontsize=9, color=INK, linespacing=1.3)

    def arrow(start: tuple[float, float], end: tuple[float, float], text: str, above: float = 0.1) -> None:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": LINE, "lw": 1.5})
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.text(x, y + above, text, ha="center", fontsize=8.5, color=INK, linespacing=1.2)

    box(0.2, 2.2, 1.9, "crop", shape_text(crop.shape))
    box(2.8, 2.2, 2.1, "image encoder", f"{number_text(learned['image_encoder'])} parameters\nonce a crop")
    box(6.1, 2.2, 2.1, "mask decoder", f"{number_text(learned['mask_decoder'])} parameters\nonce a click")
    box(6.1, 0.5, 2.1, "prompt encoder", f"{number_text(learned['prompt_encoder'])} parameters")
    prompts = "clicks, box, last mask" if profile.boxes else "clicks, last mask"
    box(2.8, 0.5, 2.1, "prompts", prompts)
    arrow((2.1, 2.7), (2.8, 2.7), "")
    arrow((4.9, 2.7), (6.1, 2.7), shape_text(embedding.shape))
    arrow((4.9, 1.0), (6.1, 1.0), "")
    arrow((7.15, 1.5), (7.15, 2.2), "")
    arrow((8.2, 2.85), (9.0, 2.85), "")
    axes.text(9.05, 2.85, f"mask\n{shape_text(logits.shape)}", va="center", fontsize=9, color=INK)
    axes.text(9.05, 2.25, f"predicted IoU\n{iou.shape[1]}", va="center", fontsize=9, color=INK)
    axes.text(
        0.2, 0.12, f"{model.name}: {number_text(sum(learned.values()))} parameters", fontsize=8.5, color="#6b7a8a"
    )
    with whole_file(path) as part:
        figure.savefig(part, format="png")


def curves_of(path: Path) -> tuple[str, dict[tuple[str, str, str], tuple[str, list[float]]]]:
    """Title of an evaluation, and by data set, case and nodule the patient and Dice after each click.

    Raises:
        InputError: the file is no results.json of ours.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = content["nodules"]
        own = [row for row in rows if row["method"] == rows[0]["method"]]
        named = {(row["dataset"], row["case"], row["nodule"]): (row["patient"], row["dice"]) for row in own}
        return str(content["model"]["title"]), named
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path} is no results.json of test.py ({error}): give the file that -vp holds") from error


def draw_comparison(paths: Sequence[Path], out: Path) -> int:
    """Draws Dice over the clicks of several evaluations; returns the number of nodules that all of them have.

    Raises:
        InputError: a file cannot be read, they have no nodule in common, or the picture cannot be written.
    """
    results = [curves_of(path) for path in paths]
    common = sorted(set.intersection(*(set(named) for _, named in results)))
    if not common:
        raise InputError("the evaluations have no nodule in common: evaluate the same data")
    clicks = min(len(named[key][1]) for _, named in results for key in common)
    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    x = np.arange(1, clicks + 1)
    for (title, named), color in zip(results, COLORS * len(results), strict=False):
        curves = np.array([named[key][1][:clicks] for key in common])
        patients = [f"{key[0]}/{named[key][0]}" for key in common]
        axes.plot(x, curves.mean(axis=0), "o-", color=color, markersize=4, label=title)
        bands = [bootstrap_interval(curves[:, n], patients) for n in range(clicks)]
        if None not in bands:
            low, high = np.array(bands).T
            axes.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)
    count = len({f"{key[0]}/{results[0][1][key][0]}" for key in common})
    axes.set(xlabel="clicks", ylabel="Dice", ylim=(0, 1.01), xticks=x)
    axes.set_title(f"{len(common)} nodules of {count} patients; bands: 95 % by patient", fontsize=9.5, color=INK)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    with whole_file(out) as part:
        figure.savefig(part, format="png")
    return len(common)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    architecture = kinds.add_parser("architecture")
    architecture.add_argument("--model", default="nodule_light")
    architecture.add_argument("--out", type=Path, default=OUT)
    comparison = kinds.add_parser("comparison")
    comparison.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json")
    comparison.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        if options.kind == "architecture":
            draw_architecture(options.model, options.out)
        else:
            draw_comparison(options.results, options.out)
    except (InputError, ValueError) as error:
        sys.stderr.write(f"draw_figures: error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
