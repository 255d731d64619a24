"""Draws README's scheme of where the module paths are set in 3D Slicer: a scheme, not a screenshot.

python Resources/draw_install_scheme.py
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

OUT = Path(__file__).resolve().parent / "Screenshots" / "install_scheme.png"
STEPS = (
    ("1", "Extensions Manager", "install PyTorch,\nrestart"),
    ("2", "Edit", "Application Settings"),
    ("3", "Modules", "Additional module paths:\n.../SlicerSAMMed3D/SAMMed3D\n.../SlicerSAMMed3D/SAMMed3DTraining"),
    ("4", "OK", "restart"),
    ("5", "Modules menu", "Segmentation >\nSAMMed3D"),
)
WIDTHS = (2.05, 1.75, 3.0, 0.95, 1.75)
INK = "#1f3247"


def main() -> None:
    """Writes the picture."""
    gap, height = 0.38, 1.25
    figure = Figure(figsize=(sum(WIDTHS) + gap * len(WIDTHS), height + 0.5), dpi=90, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, sum(WIDTHS) + gap * len(WIDTHS)), ylim=(-0.3, height + 0.2))
    axes.set_axis_off()
    left = gap / 2
    for (number, head, body), width in zip(STEPS, WIDTHS, strict=True):
        axes.add_patch(
            FancyBboxPatch(
                (left, 0),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor="#f3f6fa",
                edgecolor="#5b7390",
                linewidth=1.2,
            )
        )
        axes.text(left + 0.1, height - 0.12, f"{number}  {head}", va="top", fontsize=10.5, weight="bold", color=INK)
        axes.text(left + 0.1, height - 0.45, body, va="top", fontsize=9, color=INK, linespacing=1.4)
        if number != STEPS[-1][0]:
            axes.annotate(
                "",
                (left + width + gap - 0.05, height / 2),
                (left + width + 0.05, height / 2),
                arrowprops={"arrowstyle": "-|>", "color": "#5b7390", "lw": 1.6},
            )
        left += width + gap
    axes.text(gap / 2, -0.2, "Scheme, not a screenshot", fontsize=8, color="#6b7a8a")
    figure.savefig(OUT)


if __name__ == "__main__":
    main()
