"""Curves of a run and of a comparison as Slicer's own tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from SAMMed3DLib.translation import tr as _

#: Steps that a curve has at most; more are averaged, so that a long run draws as fast as a short one.
MOST_POINTS = 1000
_ROLE = "SAMMed3DTraining.Plots"
_COLORS = {
    "loss": (0.84, 0.27, 0.24),
    "dice": (0.18, 0.50, 0.84),
    "valLoss": (0.88, 0.54, 0.00),
    "valDice": (0.18, 0.62, 0.31),
}


class RunPlots:
    """Two charts of the run that is watched: Loss and Dice, over its steps.

    The nodes are helpers: made when the first values come, not saved with the scene, removed by :meth:`close`. They may
    be deleted by the user at any time and are then made anew.
    """

    def __init__(self) -> None:
        self._scene = slicer.mrmlScene
        self._nodes: dict[str, str] = {}
        self._drawn: tuple[int, int] | None = None

    # -- values --------------------------------------------------------------------------------------------------------

    def show(self, name: str, curves: Any) -> None:
        """Draws a run's curves (runs.run_monitor.Curves). Costs nothing where nothing has changed."""
        state = (curves.revision, curves.rewritten)
        if state == self._drawn and self.node("lossChart") is not None:
            return
        self._drawn = state
        steps, values = _thinned(curves.steps, curves.loss, curves.dice_first, curves.dice_last)
        loss, first, last = (_withoutGaps(steps, each) for each in values)
        self._fill("stepTable", {"Step": steps, "Loss": loss, "Dice, first click": first, "Dice, last click": last})
        self._fill("validationTable", {"Step": curves.val_steps, "Loss": curves.val_loss, "Dice": curves.val_mean_dice})
        self._chart(
            "lossChart",
            _("{name}: loss").format(name=name),
            _("Loss"),
            (
                ("lossSeries", _("training"), "stepTable", "Loss", "loss", False),
                ("valLossSeries", _("held-out cases"), "validationTable", "Loss", "valLoss", True),
            ),
        )
        self._chart(
            "diceChart",
            _("{name}: Dice").format(name=name),
            _("Dice"),
            (
                ("diceSeries", _("training, last click"), "stepTable", "Dice, last click", "dice", False),
                ("valDiceSeries", _("held-out cases"), "validationTable", "Dice", "valDice", True),
            ),
        )

    def forget(self) -> None:
        """Another run: draw it from the beginning."""
        self._drawn = None

    def choose(self, chart: str) -> None:
        """Shows "lossChart", "diceChart" or "nodulesChart" in the plot views that are on screen."""
        node = self.node(chart)
        if node is None:
            return
        for view in slicer.util.getNodesByClass("vtkMRMLPlotViewNode", self._scene):
            view.SetPlotChartNodeID(node.GetID())

    def showNodules(self, names: Sequence[str], old: Sequence[float | None], new: Sequence[float | None]) -> None:
        """Dice of each nodule with old and new weights, as two rows of points."""
        numbers = np.arange(1, len(names) + 1, dtype=float)
        values = {"Nodule": numbers, "Old": _numbers(old), "New": _numbers(new)}
        self._fill("nodulesTable", values, {"Name": list(names)})
        self._chart(
            "nodulesChart",
            _("Dice of held-out nodules"),
            _("Dice"),
            (
                ("oldSeries", _("old weights"), "nodulesTable", "Old", "loss", True),
                ("newSeries", _("new weights"), "nodulesTable", "New", "valDice", True),
            ),
            xTitle=_("Nodule"),
            xColumn="Nodule",
            lines=False,
        )

    def close(self) -> None:
        """Removes the nodes."""
        for key in list(self._nodes):
            node = self.node(key)
            if node is not None:
                self._scene.RemoveNode(node)
        self._nodes.clear()
        self._drawn = None

    def sceneClosed(self) -> None:
        """Forgets the nodes after the scene was closed."""
        self._nodes.clear()
        self._drawn = None

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def node(self, key: str) -> Any | None:
        """One of the nodes by its key, such as "lossChart" or "stepTable"; None before there are values."""
        nodeId = self._nodes.get(key)
        return None if nodeId is None else self._scene.GetNodeByID(nodeId)

    def _made(self, key: str, kind: str, name: str) -> Any:
        node = self.node(key)
        if node is None:
            node = self._scene.AddNewNodeByClass(kind, name)
            node.SetSaveWithScene(False)
            node.SetAttribute(_ROLE, key)
            self._nodes[key] = node.GetID()
        return node

    def _fill(self, key: str, columns: dict[str, Any], texts: dict[str, list[str]] | None = None) -> None:
        table = self._made(key, "vtkMRMLTableNode", f"SAMMed3D {key}")
        was = table.StartModify()
        try:
            content = table.GetTable()
            content.Initialize()
            for name, values in columns.items():
                values = np.asarray(values, dtype=float)
                array = numpy_to_vtk(values, deep=True) if len(values) else vtk.vtkDoubleArray()
                array.SetName(name)
                content.AddColumn(array)
            for name, words in (texts or {}).items():
                array = vtk.vtkStringArray()
                array.SetName(name)
                for word in words:
                    array.InsertNextValue(word)
                content.AddColumn(array)
            content.Modified()
            table.Modified()
        finally:
            table.EndModify(was)

    def _chart(
        self,
        key: str,
        title: str,
        yTitle: str,
        series: Sequence[tuple[str, str, str, str, str, bool]],
        xTitle: str | None = None,
        xColumn: str = "Step",
        lines: bool = True,
    ) -> None:
        chart = self._made(key, "vtkMRMLPlotChartNode", f"SAMMed3D {key}")
        was = chart.StartModify()
        chart.SetTitle(title)
        chart.SetXAxisTitle(_("Step") if xTitle is None else xTitle)
        chart.SetYAxisTitle(yTitle)
        chart.SetLegendVisibility(True)
        chart.RemoveAllPlotSeriesNodeIDs()
        for name, caption, table, column, color, marked in series:
            node = self._made(name, "vtkMRMLPlotSeriesNode", caption)
            node.SetName(caption)
            node.SetAndObserveTableNodeID(self._nodes[table])
            node.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
            node.SetXColumnName(xColumn)
            node.SetYColumnName(column)
            tableNode = self.node(table)
            assert tableNode is not None  # made before its chart
            rows = tableNode.GetNumberOfRows()
            line, dot = slicer.vtkMRMLPlotSeriesNode.LineStyleSolid, slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle
            node.SetLineStyle(line if lines and rows > 1 else slicer.vtkMRMLPlotSeriesNode.LineStyleNone)
            node.SetMarkerStyle(dot if marked or rows == 1 else slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
            node.SetColor(*_COLORS[color])
            if rows:
                chart.AddAndObservePlotSeriesNodeID(node.GetID())
        chart.EndModify(was)


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _withoutGaps(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Steps without a value (no nodule was clicked) get one between their neighbors: a chart draws no half lines."""
    known = np.isfinite(values)
    return np.interp(steps, steps[known], values[known]) if known.any() else np.zeros_like(values)


def _thinned(steps: Sequence[float], *curves: Sequence[float | None]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Averages of neighboring steps where there are more than MOST_POINTS."""
    x, ys = np.asarray(steps, dtype=float), [_numbers(curve) for curve in curves]
    size = -(-len(x) // MOST_POINTS) if len(x) else 1
    if size == 1:
        return x, ys
    edges = np.arange(0, len(x), size)
    counts = np.diff(np.append(edges, len(x)))
    return np.add.reduceat(x, edges) / counts, [_averages(y, edges) for y in ys]


def _averages(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    counts = np.add.reduceat(known.astype(float), edges)
    sums = np.add.reduceat(np.where(known, values, 0.0), edges)
    return np.divide(sums, counts, out=np.full(len(edges), np.nan), where=counts > 0)
