"""Pictures of an evaluation: Dice over the clicks, agreement of volumes, and the nodules it did worst on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from SAMMed3DLib.commandline.preview import PreviewRow, write_preview
from SAMMed3DLib.files.output_files import whole_file
from SAMMed3DLib.inference.geometry import Block, PlacedMask, transform_points, voxel_spacing
from SAMMed3DLib.inference.nodule_table import number

from ..data.datasets import LoadedCase
from ..data.instances import DENSITIES, SIZES
from .metrics import bootstrap_interval
from .nodule_scores import ScoredNodule

# Okabe and Ito's colors, which differ for color-blind eyes too.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_VIEW_MM = 72.0  # beyond a nodule; the picture shows up to 70 mm around its first click
_INK, _FAINT, _GRID = "#24292f", "#6e7781", "#d8dee4"


def draw_dice(path: Path, scores: Sequence[ScoredNodule], title: str, seed: int = 0) -> None:
    """Dice over the clicks: every protocol, the first with its interval by patient, and that one by size.

    Raises:
        InputError: the place cannot be written.
    """
    methods = list(dict.fromkeys(score.method for score in scores))
    first = [score for score in scores if score.method == methods[0]]
    figure = Figure(figsize=(10.5, 4.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    clicks = np.arange(1, len(first[0].dice) + 1)
    for score in first:
        left.plot(clicks, score.dice, color=_FAINT, alpha=min(0.35, 8 / len(first)), linewidth=0.8, zorder=1)
    for method, color in zip(methods, _COLORS, strict=False):
        own = [score for score in scores if score.method == method]
        # More than one band would hide the others.
        _curve(left, clicks, own, f"{method}, {len(own)} nodules", color, seed if method == methods[0] else None)
    for name, color in zip([name for _, name in SIZES], _COLORS, strict=False):
        own = [score for score in first if score.size == name]
        if own:
            _curve(right, clicks, own, f"{name}, {len(own)} nodules", color, None)
    for axes, heading in ((left, "all nodules"), (right, f"by diameter ({methods[0]} clicks)")):
        _style(axes, heading)
        axes.set(xlabel="clicks", ylim=(0, 1.01), xlim=(0.8, max(len(clicks), 2) + 0.2))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8.5, loc="lower right", labelcolor=_INK)
    left.set_ylabel("Dice")
    figure.suptitle(title, fontsize=11, color=_INK)
    _save(path, figure)


def _curve(
    axes: Axes, clicks: np.ndarray, scores: Sequence[ScoredNodule], label: str, color: str, seed: int | None
) -> None:
    curves = np.array([score.dice for score in scores])
    axes.plot(clicks, curves.mean(axis=0), "o-", color=color, markersize=4, linewidth=1.8, label=label, zorder=3)
    if seed is None:
        return
    patients = [f"{score.dataset}/{score.patient}" for score in scores]
    bands = [bootstrap_interval(curves[:, click], patients, seed=seed) for click in range(len(clicks))]
    if None not in bands:
        low, high = np.array(bands).T
        axes.fill_between(clicks, low, high, color=color, alpha=0.15, linewidth=0, zorder=2, label="95 %, by patient")


def draw_volumes(path: Path, scores: Sequence[ScoredNodule], title: str) -> None:
    """Bland-Altman plot of the volumes after the last click, of one protocol: difference in % over the mean of both.

    Raises:
        InputError: the place cannot be written.
    """
    found = np.array([score.volumes_mm3[-1] for score in scores])
    truth = np.array([score.truth_mm3 for score in scores])
    mean = (found + truth) / 2
    difference = 100 * (found - truth) / mean
    figure = Figure(figsize=(7.2, 4.8), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, color in zip(DENSITIES, _COLORS, strict=False):
        chosen = np.array([score.density == name for score in scores])
        if chosen.any():
            axes.scatter(
                mean[chosen],
                difference[chosen],
                s=26,
                color=color,
                alpha=0.8,
                edgecolor="white",
                linewidth=0.5,
                label=f"{name} ({chosen.sum()})",
                zorder=3,
            )
    bias, spread = float(difference.mean()), float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    lines = [(bias, "-", "bias ")]
    if len(difference) > 2:
        lines += [(bias + sign * 1.96 * spread, "--", "") for sign in (-1, 1)]
    for value, style, text in lines:
        axes.axhline(value, color=_INK, linestyle=style, linewidth=1.1, zorder=2)
        axes.annotate(
            f"{text}{value:+.1f} %".replace("-", "\u2212"),
            (1.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            fontsize=8.5,
            ha="right",
            va="bottom",
            color=_INK,
        )
    axes.axhline(0, color=_GRID, linewidth=1.1, zorder=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    reach = 1.15 * max(20.0, float(np.abs(difference).max()), *(abs(value) for value, _, _ in lines))
    axes.set(
        xlabel="mean of segmentation and reference, mm³",
        ylabel="difference, % of the mean",
        ylim=(-reach, reach),
        xlim=(mean.min() / 1.3, mean.max() * 1.3),
    )
    _style(axes, f"{title}\nvolume after the last click; dashed: limits of agreement (1.96 sd)")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", labelcolor=_INK)
    _save(path, figure)


def draw_worst(
    path: Path, scores: Sequence[ScoredNodule], count: int, load: Callable[[ScoredNodule], LoadedCase], title: str
) -> None:
    """Slices through the nodules with the lowest Dice after the last click, the worst first.

    Args:
        path: where to.
        scores: of one protocol.
        count: nodules in the picture.
        load: reads a nodule's case again; called once per case in a row.
        title: of the picture.

    Raises:
        InputError: the place cannot be written.
    """
    worst = sorted(scores, key=lambda score: score.last_dice)[:count]
    rows = [_row(score, load(score)) for score in worst]
    subtitle = f"the {len(rows)} lowest of {len(scores)} nodules, after the last click"
    volume = rows[0].volume
    assert volume is not None  # as _row makes them
    write_preview(path, *volume, rows, title, subtitle)


def _row(score: ScoredNodule, loaded: LoadedCase) -> PreviewRow:
    """A nodule with as much of its scan as the picture can show, so that the whole scan need not stay in memory."""
    nodule = next(each for each in loaded.nodules if each.name == score.nodule)
    shape = np.array(loaded.array_kji.shape)
    found = score.prediction
    reach = np.ceil(_VIEW_MM / voxel_spacing(loaded.ijk_to_ras)[::-1]).astype(int)
    low = np.maximum(np.minimum(nodule.offset_kji, found.offset_kji) - reach, 0)
    high = np.maximum(np.add(nodule.offset_kji, nodule.mask.shape), np.add(found.offset_kji, found.mask.shape)) + reach
    window = tuple(slice(a, b) for a, b in zip(low, np.minimum(high, shape), strict=True))
    matrix = np.array(loaded.ijk_to_ras)
    matrix[:3, 3] = transform_points(loaded.ijk_to_ras, low[::-1])
    clicks = zip(score.points_ras.tolist(), score.labels.tolist(), strict=True)
    return PreviewRow(
        f"{_short(score.case)} #{score.nodule}",
        _facts(score),
        _block(found, low),
        tuple((tuple(point), bool(label)) for point, label in clicks),
        _block(nodule, low),
        (loaded.array_kji[window].copy(), matrix),
    )


def _block(found: PlacedMask, low: np.ndarray) -> Block:
    start = np.subtract(found.offset_kji, low)
    return Block(np.asarray(found.mask, np.uint8), (int(start[0]), int(start[1]), int(start[2])))


def _facts(score: ScoredNodule) -> tuple[tuple[str, str], ...]:
    curve = " \u2192 ".join(number(value, 2) for value in (score.dice[0], score.last_dice))
    return (
        ("Dice", curve),
        ("Diameter, density", f"{number(score.diameter_mm, 1)} mm, {score.density}"),
        ("Volume / reference", f"{number(score.volumes_mm3[-1], 0)} / {number(score.truth_mm3, 0)} mm³"),
        ("Slices", f"{number(score.slice_mm, 2)} mm"),
    )


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:9]}\u2026{name[-10:]}"


def _style(axes: Axes, heading: str) -> None:
    axes.set_title(heading, fontsize=9.5, color=_INK)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=_INK, fontsize=9.5)
    axes.tick_params(which="both", colors=_FAINT, labelsize=8.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GRID)


def _save(path: Path, figure: Figure) -> None:
    with whole_file(path) as part:
        figure.savefig(part, dpi=130, format="png")
