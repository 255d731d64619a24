"""Shows charts in Slicer's plot view, in a layout that is borrowed from the user."""

from __future__ import annotations

from typing import Any

import slicer

from SAMMed3DLib.gui.view_tools import LayoutKeeper
from SAMMed3DLib.signal import Signal

from ..scene.run_plots import RunPlots

PLOT = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView
SIDE_BY_SIDE = slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView


class PlotView:
    """Shows one chart at a time on screen.

    Attributes (signals):
        changed: there is something to draw, or nothing any more.
    """

    def __init__(self, plots: RunPlots, layout: LayoutKeeper) -> None:
        self.changed = Signal()
        self._chosen = ""
        self._plots, self._layout = plots, layout

    @property
    def chart(self) -> str:
        """ "lossChart", "diceChart", "nodulesChart", or "" where none is on screen."""
        return self._chosen if self._layout.borrowed == PLOT else ""

    def toggle(self, chart: str) -> None:
        """Shows a chart, or puts the layout back where it is shown already."""
        if chart == self.chart or self._plots.node(chart) is None:
            self._layout.giveBack()
        else:
            self._chosen = chart
            self._layout.borrow(PLOT)
            self._plots.choose(chart)
        self.changed.emit()

    def showRun(self, name: str, curves: Any) -> None:
        """Draws a run's curves. Costs nothing where nothing has changed."""
        if not curves.steps and not curves.val_steps:
            return
        had = self.hasCurves
        self._plots.show(name, curves)
        if not had:
            self.changed.emit()

    def showNodules(self, names: list[str], old: list[float | None], new: list[float | None]) -> None:
        """Draws the Dice of nodules."""
        self._plots.showNodules(names, old, new)

    @property
    def hasCurves(self) -> bool:
        return self._plots.node("lossChart") is not None

    def forgetRun(self) -> None:
        """Forgets the run, since another one is drawn from the beginning."""
        self._plots.forget()

    def close(self) -> None:
        """The helper nodes are removed."""
        self._plots.close()

    def sceneClosed(self) -> None:
        """The helper nodes are gone with the scene."""
        self._plots.sceneClosed()
        self.changed.emit()
