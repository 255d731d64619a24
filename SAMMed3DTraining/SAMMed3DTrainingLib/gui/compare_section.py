"""Section 3: the runs there are, old against new weights nodule by nodule, and adopting a model."""

from __future__ import annotations

from typing import Any

import qt
import slicer

from SAMMed3DLib.gui.icons import Icons
from SAMMed3DLib.translation import tr as _

from ..scene.comparison_view import COLORS, TRUTH, ComparisonView
from ..scene.comparison_view import NEW as NEW_WEIGHTS
from ..scene.comparison_view import OLD as OLD_WEIGHTS
from ..scene.training_source import readCase
from .plot_view import SIDE_BY_SIDE, LayoutKeeper, PlotView
from .texts import DASH, difference, nodulesOfCases, score, size
from .widgets import Connections, Table

RUN, STATE, DICE, SIZE = range(4)
NODULE, OLD, NEW, DIFFERENCE = range(4)
#: A smaller mean difference of Dice is none: it is shown as +0.000.
_BETTER = 0.0005


class CompareSection:
    """Shows the session's compare part and hands what the user does back to it."""

    def __init__(
        self,
        ui: Any,
        widget: qt.QWidget,
        session: Any,
        icons: Icons,
        plots: PlotView,
        view: ComparisonView,
        layout: LayoutKeeper,
    ) -> None:
        self._ui, self._widget, self._session, self._icons = ui, widget, session, icons
        self._plots, self.view, self._layout = plots, view, layout
        self._compare = session.compare
        self._compare.filesGone = lambda case: _(
            "The files of {case} are no longer there: press Compare again."
        ).format(case=case)
        self._filling = False
        self._runs = Table(
            ui.runTable,
            (
                (_("Run"), _("Double-click a name to change it."), True, False),
                (_("State"), _("How the run ended, or that it is under way."), False, False),
                (
                    _("Dice"),
                    _(
                        "Dice of its best weights on held-out cases during the run, the mean of all clicks of such a "
                        "check. Compare tells it for each number of clicks."
                    ),
                    False,
                    True,
                ),
                (_("Size"), _("Room that it takes on the disk."), False, True),
            ),
            rows=(2, 5),
        )
        self._nodules = Table(
            ui.noduleTable,
            (
                (
                    _("Nodule"),
                    _("A nodule that the run has not learned from; its true outline is yellow in the views."),
                    True,
                    False,
                ),
                (_("Old"), _("Dice of the weights that the run began with; red in the views."), False, True),
                (_("New"), _("Dice of the run's best weights; blue in the views."), False, True),
                (_("Change"), _("New less old; above zero is better."), False, True),
            ),
            rows=(2, 8),
        )
        for column, name in ((NODULE, TRUTH), (OLD, OLD_WEIGHTS), (NEW, NEW_WEIGHTS)):
            ui.noduleTable.horizontalHeaderItem(column).setIcon(icons.swatch(COLORS[name]))
        self._connections = Connections()
        self._connections.signal(self._compare.changed, self.refresh)
        self._connections.signal(self._compare.shown, view.show)
        self._connections.signal(layout.changed, self._onLayout)
        self._connections.widget(ui.runTable, "itemSelectionChanged()", self._onRunSelected)
        self._connections.widget(ui.runTable, "itemChanged(QTableWidgetItem*)", self._onRunRenamed)
        self._connections.widget(ui.noduleTable, "itemSelectionChanged()", self._onNoduleSelected)
        self._connections.widget(ui.clicksCombo, "currentIndexChanged(int)", self._onClicks)
        self._connections.buttons(
            {
                ui.compareButton: self._compare.compare,
                ui.adoptButton: self._onAdopt,
                ui.continueButton: self._onContinue,
                ui.deleteRunButton: self._onDelete,
                ui.sideBySideButton: self._onSideBySide,
                ui.noduleChartButton: self._onChart,
            }
        )
        self.refresh()

    def close(self) -> None:
        self._connections.close()
        self.view.close()

    def leave(self) -> None:
        """Restores views and layout from before, when another module is opened."""
        self._layout.giveBack()
        self.view.close()
        self._nodules.select(-1)

    def setIcons(self, icons: Icons) -> None:
        """The theme has changed."""
        self._icons = icons
        self.refresh()

    def refresh(self, *__: Any) -> None:
        """Show runs and comparison as they are now."""
        runs = self._compare.runs
        with self._runs.fill(len(runs)):
            for index, run in enumerate(runs):
                self._fillRun(index, run)
        names = [run.name for run in runs]
        self._runs.select(names.index(self._compare.selected) if self._compare.selected in names else -1)
        nodules = self._compare.nodules()
        with self._nodules.fill(len(nodules)):
            for index, nodule in enumerate(nodules):
                self._fillNodule(index, nodule)
        self._fillClicks()

    @property
    def summary(self) -> str:
        """The comparison in a sentence; "" where there is none."""
        comparison, clicks = self._compare.comparison, self._compare.clicks
        if comparison is None:
            return ""
        change, interval = comparison.mean("delta", clicks), comparison.interval(clicks)
        count = len(self._compare.nodules())
        text = _("Mean Dice after {clicks}: {old} → {new} ({change}) on {nodules}.").format(
            clicks=_clickCount(clicks),
            old=score(comparison.mean("old", clicks)),
            new=score(comparison.mean("new", clicks)),
            change=difference(change),
            nodules=_("1 held-out nodule") if count == 1 else _("{n} held-out nodules").format(n=count),
        )
        if interval is not None:
            text += " " + _("95 % interval of the change: {low} to {high}.").format(
                low=difference(interval[0]), high=difference(interval[1])
            )
        if comparison.caution:
            text += " " + _("Careful: {caution}.").format(caution=comparison.caution)
        return text + " " + _("Where the true masks were drawn with the old weights, these score too well.")

    def _fillRun(self, index: int, run: Any) -> None:
        state = (
            _("under way")
            if run.is_running
            else {
                "finished": _("finished"),
                "stopped": _("stopped"),
                "failed": _("failed"),
                "killed": _("broken off"),
            }.get(run.state, str(run.state))
        )
        tip = _runTip(run)
        self._runs.cell(index, RUN, run.name, tip, key=run.name, editable=not run.is_running)
        self._runs.cell(index, STATE, state, tip)
        self._runs.cell(index, DICE, score(run.best_dice), tip)
        self._runs.cell(index, SIZE, size(run.size_bytes), tip)

    def _fillNodule(self, index: int, nodule: Any) -> None:
        size_ = DASH if nodule.diameterMm is None else f"{nodule.diameterMm:.1f} mm"
        tip = _("{case}, {nodule}, {size}. Click to see it.").format(case=nodule.case, nodule=nodule.name, size=size_)
        self._nodules.cell(index, NODULE, f"{nodule.case}: {nodule.name}", tip)
        self._nodules.cell(index, OLD, score(nodule.old), tip)
        self._nodules.cell(index, NEW, score(nodule.new), tip)
        change = nodule.difference
        better = change is not None and change > 0.005
        worse = change is not None and change < -0.005
        item = self._nodules.cell(index, DIFFERENCE, difference(change), tip)
        item.setIcon(self._icons("training_better" if better else "training_worse") if better or worse else qt.QIcon())

    def _fillClicks(self) -> None:
        comparison, combo = self._compare.comparison, self._ui.clicksCombo
        clicks = () if comparison is None else comparison.clicks
        self._filling = True
        try:
            if [combo.itemData(n) for n in range(combo.count)] != list(clicks):
                combo.clear()
                for each in clicks:
                    combo.addItem(_clickCount(each), each)
            if clicks:
                combo.setCurrentIndex(clicks.index(self._compare.clicks))
        finally:
            self._filling = False

    # -- what the user does ------------------------------------------------------------------------------------------

    def _onRunSelected(self) -> None:
        row = self._runs.selectedRow
        if not self._runs.filling and 0 <= row < len(self._compare.runs):
            self._compare.select(self._compare.runs[row].name)

    def _onRunRenamed(self, item: qt.QTableWidgetItem) -> None:
        if self._runs.filling or item.column() != RUN:
            return
        name, wanted = str(item.data(256)), item.text().strip()
        if wanted and wanted != name:
            self._compare.rename(name, wanted)
        else:  # a run needs a name
            self.refresh()

    def _onNoduleSelected(self) -> None:
        row, nodules = self._nodules.selectedRow, self._compare.nodules()
        if not self._nodules.filling and 0 <= row < len(nodules):
            self._compare.show(nodules[row], readCase)

    def _onClicks(self, index: int) -> None:
        comparison = self._compare.comparison
        if not self._filling and comparison is not None and 0 <= index < len(comparison.clicks):
            self._compare.setClicks(comparison.clicks[index])
            if self._plots.chart == "nodulesChart":
                self._drawNodules()

    def _onAdopt(self) -> None:
        comparison, clicks = self._compare.comparison, self._compare.clicks
        change = None if comparison is None else comparison.mean("delta", clicks)
        if change is not None and not change >= _BETTER:
            question = _(
                "The new weights are not better: after {clicks} their mean Dice differs by {change}. Adopt them anyway?"
            ).format(clicks=_clickCount(clicks), change=difference(change))
            if not slicer.util.confirmOkCancelDisplay(question, parent=self._widget):
                return
        self._compare.adopt()

    def _onContinue(self) -> None:
        record = self._compare.record
        if record is not None:
            self._plots.forgetRun()
            self._session.train.resumeFrom(record.folder)

    def _onDelete(self) -> None:
        record = self._compare.record
        if record is None:
            return
        question = _("Delete the run {name} with its weights? {size} become free.").format(
            name=record.name, size=size(record.size_bytes)
        )
        if slicer.util.confirmOkCancelDisplay(question, parent=self._widget):
            self._compare.delete(record.name)

    def _onSideBySide(self) -> None:
        if self._layout.borrowed == SIDE_BY_SIDE:
            self._layout.giveBack()
        else:
            self._layout.borrow(SIDE_BY_SIDE)
        self._compare.changed.emit()

    def _onLayout(self) -> None:
        self.view.setSideBySide(self._layout.borrowed == SIDE_BY_SIDE)

    def _onChart(self) -> None:
        self._drawNodules()
        self._plots.toggle("nodulesChart")

    def _drawNodules(self) -> None:
        nodules = self._compare.nodules()
        self._plots.showNodules(
            [f"{each.case}: {each.name}" for each in nodules],
            [each.old for each in nodules],
            [each.new for each in nodules],
        )


def _clickCount(clicks: int) -> str:
    return _("1 click") if clicks == 1 else _("{n} clicks").format(n=clicks)


def _runTip(run: Any) -> str:
    """A run's configuration in some lines."""
    config = run.config or {}
    begun = run.started.strftime("%Y-%m-%d %H:%M") if run.started is not None else DASH
    lines = [_("{name}, started {when}").format(name=run.name, when=begun)]
    if config:
        lines.append(
            _("preset {preset}, {epochs} epochs, batch {batch}, learning rate {rate}").format(
                preset=config.get("preset", DASH),
                epochs=config.get("num_epochs", DASH),
                batch=config.get("batch_size", DASH),
                rate=config.get("lr", DASH),
            )
        )
    lines.append(nodulesOfCases(run.nodules, run.cases))
    if run.best_dice is not None and config.get("val_clicks"):
        lines.append(
            _("Dice {dice}: mean of its checks after 1 to {n} clicks").format(
                dice=score(run.best_dice), n=config["val_clicks"]
            )
        )
    split = config.get("split")
    if isinstance(split, dict):
        lines += [str(split.get("source", "")), str(split.get("caution", ""))]
    if run.checkpoint:
        lines.append(_("from {checkpoint}").format(checkpoint=run.checkpoint))
    if run.message:
        lines.append(str(run.message))
    return "\n".join(filter(None, lines))
