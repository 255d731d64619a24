"""Makes README's animated picture: nodules of the synthetic chest appear click by click, with their measurements.

    python Resources/make_animation.py [--out Resources/Screenshots/clicks.gif] [--checkpoint FILE]

What is shown is computed while it runs: the phantom of the sample data, the bundled model, its masks and measurements.
No data of a patient, no Slicer. Needs Pillow, which comes with matplotlib.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "SAMMed3D")]

import numpy as np  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from PIL import Image, ImageColor  # noqa: E402
from scipy import ndimage  # noqa: E402

from SAMMed3DLib.files.output_files import whole_file  # noqa: E402
from SAMMed3DLib.inference import SamPredictor3D, measure_nodule  # noqa: E402
from SAMMed3DLib.inference.geometry import transform_points  # noqa: E402
from SAMMed3DLib.inference.mask_regions import most_interior_voxel  # noqa: E402
from SAMMed3DLib.model import load_model  # noqa: E402
from SAMMed3DLib.synthesis.phantom import chest_phantom  # noqa: E402
from SAMMed3DLib.weights import default_checkpoint  # noqa: E402

OUT = ROOT / "Resources" / "Screenshots" / "clicks.gif"
SEED, NODULES, CORRECTED = 0, 5, 4
WIDTH, HEIGHT, DOTS = 840, 420, 100
VIEW_MM, WINDOW_HU = 72.0, (-1250.0, 250.0)
#: Right and down in each view, in RAS, as radiologists look at it; and the view's place in the picture.
VIEWS = {
    "axial": ((-1, 0, 0), (0, -1, 0), (0.012, 0.024, 0.4535, 0.907)),
    "coronal": ((-1, 0, 0), (0, 0, -1), (0.4755, 0.4905, 0.22, 0.44)),
    "sagittal": ((0, -1, 0), (0, 0, -1), (0.4755, 0.024, 0.22, 0.44)),
}
BACKGROUND, TEXT, FAINT = "#0d1117", "#f0f3f6", "#9aa6b2"
COLORS = ("#2fe0c4", "#ffb627", "#ff7b72", "#79c0ff", "#d2a8ff")
ADDS, TAKES = "#3fb950", "#f85149"
#: Milliseconds: the pointer arrives, the mask appears, the last picture.
ARRIVES, APPEARS, LAST = 900, 1500, 3500


@dataclass
class Shown:
    """One nodule on its way into the picture.

    Attributes:
        name: such as "1  solid".
        clicks: RAS mm and whether it adds, oldest first.
        mask: of the whole volume, bool [k, j, i]; None before the first click.
        facts: volume, diameters and density as text.
    """

    name: str
    clicks: list[tuple[NDArray, bool]] = field(default_factory=list)
    mask: NDArray | None = None
    facts: tuple[str, str, str] | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the animation and says how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="(default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="default: the model that ships with the module")
    options = parser.parse_args(arguments)
    phantom = chest_phantom(SEED)
    predictor = SamPredictor3D(load_model(options.checkpoint or default_checkpoint(), device="cpu"))
    predictor.set_image(phantom.array_kji, phantom.ijk_to_ras)
    frames, times = [], []
    for frame, milliseconds in click_by_click(phantom, predictor):
        frames.append(frame)
        times.append(milliseconds)
    # One palette for all, without dithering: what stays is not written again, and gray values stay gray.
    frames = [frame.quantize(palette=_palette(), dither=Image.Dither.NONE) for frame in frames]
    with whole_file(options.out) as file:
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True)
    sys.stdout.write(f"{options.out}: {len(frames)} pictures, {options.out.stat().st_size / 1e6:.2f} MB\n")
    return 0


def _palette() -> Image.Image:
    """At most 256 colors: grays, each nodule's color over grays, and text over the background."""

    def mixed(over: str, under: NDArray, share: float) -> NDArray:
        return share * np.array(ImageColor.getrgb(over)) + (1 - share) * under

    grays = np.linspace(0, 255, 80)[:, None].repeat(3, 1)
    dark = np.array([ImageColor.getrgb(BACKGROUND)])
    colors = [grays, dark]
    for color in COLORS:
        colors += [mixed(color, grays[::6], 0.25), *(mixed(color, grays[::16], share) for share in (0.6, 1.0))]
    for color in (TEXT, FAINT, *COLORS):
        colors += [mixed(color, dark, share) for share in (0.35, 0.7, 1.0)]
    colors += [mixed(color, grays[-1:], share) for color in (ADDS, TAKES) for share in (0.5, 1.0)]
    image = Image.new("P", (1, 1))
    image.putpalette(np.unique(np.concatenate(colors).round().astype(np.uint8), axis=0).tobytes())
    return image


def click_by_click(phantom, predictor: SamPredictor3D) -> Iterator[tuple[Image.Image, int]]:
    """The pictures and how long each stays; one nodule is corrected by a second click."""
    spacing = np.linalg.norm(phantom.ijk_to_ras[:3, :3], axis=0)[::-1]
    table: list[Shown] = []
    for nodule in phantom.nodules[:NODULES]:
        truth = phantom.labels_kji == nodule["label"]
        table.append(Shown(f"{nodule['label']}  {nodule['kind'].replace('-', ' ')}"))
        shown, previous = table[-1], None
        for count in range(1 + (nodule["label"] == CORRECTED)):
            voxel, positive = _next_click(truth, shown.mask, spacing)
            shown.clicks.append((transform_points(phantom.ijk_to_ras, [voxel[::-1]])[0], positive))
            yield _picture(phantom, table, pointer=True, correcting=count > 0), ARRIVES
            points = np.array([point for point, _positive in shown.clicks])
            previous = predictor.predict(points, np.array([int(p) for _, p in shown.clicks]), previous=previous)
            record = measure_nodule(previous, phantom.array_kji, phantom.ijk_to_ras)
            shown.mask = previous.full_mask(truth.shape) > 0
            shown.facts = (
                f"{record.volume_mm3:,.0f}",
                f"{record.long_axis_mm:.1f} × {record.short_axis_mm:.1f}",
                f"{record.mean_hu:.0f}".replace("-", "\u2212"),
            )
            last = nodule["label"] == NODULES
            yield _picture(phantom, table, correcting=count > 0), LAST if last else APPEARS


def _next_click(truth: NDArray, mask: NDArray | None, spacing: NDArray) -> tuple[NDArray, bool]:
    """The middle of the largest error and whether something is missing there (a click) or too much (Shift-click)."""
    if mask is None:
        return np.asarray(most_interior_voxel(truth, spacing)), True
    regions, _count = ndimage.label(truth != mask, np.ones((3, 3, 3)))
    largest = np.bincount(regions.ravel())[1:].argmax() + 1
    voxel = np.asarray(most_interior_voxel(regions == largest, spacing))
    return voxel, bool(truth[tuple(voxel)])


def _picture(phantom, table: Sequence[Shown], *, pointer: bool = False, correcting: bool = False) -> Image.Image:
    """The newest nodule in three planes through its newest click, and the table of all."""
    figure = Figure(figsize=(WIDTH / DOTS, HEIGHT / DOTS), dpi=DOTS, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    newest = table[-1]
    center, adds = newest.clicks[-1]
    for name, (right, down, place) in VIEWS.items():
        axes = figure.add_axes(place)
        axes.set_axis_off()
        steps = np.arange(-VIEW_MM / 2, VIEW_MM / 2, 0.4)
        plane = center + steps[None, :, None] * np.array(right) + steps[:, None, None] * np.array(down)
        kji = transform_points(np.linalg.inv(phantom.ijk_to_ras), plane.reshape(-1, 3))[:, ::-1].T
        hu = ndimage.map_coordinates(phantom.array_kji, kji, np.float32, order=1, cval=-1000).reshape(plane.shape[:2])
        extent = (steps[0], steps[-1], steps[-1], steps[0])
        axes.imshow(hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=extent, interpolation="bilinear")
        axes.text(0.02, 0.02, name, transform=axes.transAxes, color=FAINT, fontsize=8)
        for shown, color in zip(table, COLORS, strict=False):
            if shown.mask is not None:
                inside = ndimage.map_coordinates(shown.mask.astype(np.float32), kji, order=1).reshape(hu.shape)
                if inside.max() > 0.5:
                    axes.contourf(steps, steps, inside, levels=[0.5, 2.0], colors=[color], alpha=0.25)
                    axes.contour(steps, steps, inside, levels=[0.5], colors=[color], linewidths=1.6)
        for point, positive in newest.clicks[:-1] if pointer else newest.clicks:
            x, y = (point - center) @ np.array(right), (point - center) @ np.array(down)
            if abs((point - center) @ np.cross(right, down)) < 3 and max(abs(x), abs(y)) < VIEW_MM / 2:
                axes.plot(x, y, "o", ms=4.5, mfc=ADDS if positive else TAKES, mec="white", mew=0.9)
        if pointer and name == "axial":
            axes.annotate(
                "",
                (0.4, 0.4),
                (9, 9),
                arrowprops={
                    "arrowstyle": "simple,head_width=0.9,head_length=0.9,tail_width=0.25",
                    "fc": "white",
                    "ec": "black",
                },
            )
        axes.set(xlim=extent[:2], ylim=extent[2:])
    _table(figure, table)
    doing = "Click" if adds else "Shift-click"
    title = f"{newest.name.split('  ')[1].capitalize()} nodule in 3D"
    if pointer:
        title = f"{doing} to correct" if correcting else f"{doing} nodule {len(table)}"
    figure.text(0.012, 0.955, title, color=TEXT, fontsize=12, weight="bold")
    figure.text(0.988, 0.024, "synthetic chest, bundled model; research only", color=FAINT, fontsize=7, ha="right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS, facecolor=BACKGROUND)
    return Image.open(buffer).convert("RGB")


def _table(figure: Figure, table: Sequence[Shown]) -> None:
    """The measurements of all nodules so far, on the right."""
    columns = (0.712, 0.795, 0.913, 0.988)
    for x, head in zip(columns[1:], ("mm³", "mm", "HU"), strict=True):
        figure.text(x, 0.955, head, color=FAINT, fontsize=8.5, ha="right")
    for line, (shown, color) in enumerate(zip(table, COLORS, strict=False)):
        y = 0.885 - 0.12 * line
        number, kind = shown.name.split("  ")
        figure.text(columns[0], y, number, color=color, fontsize=10, weight="bold")
        figure.text(columns[0], y - 0.045, kind, color=FAINT, fontsize=8)
        for x, fact in zip(columns[1:], shown.facts or ("", "", ""), strict=True):
            figure.text(x, y, fact, color=TEXT, fontsize=9, ha="right")


if __name__ == "__main__":
    sys.exit(main())
