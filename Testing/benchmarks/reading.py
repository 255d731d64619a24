"""A chest with five nodules read in the application, by mouse and keys: seconds, actions, gaps of the main thread.

    Slicer --no-splash --python-script Testing/benchmarks/reading.py [CT] [--out FILE.json]
    python Testing/benchmarks/reading.py [CT] [--out FILE.json]

The first runs in 3D Slicer: events go through the X server where there is one (XTest), else into the widgets. The
second, without Slicer, runs the same story in the simulation of Testing/standin, whose views draw nothing by
themselves; it says so. Without a CT (a path) the made-up chest is read, whose nodules are known: the reader accepts
what overlaps one and deletes the rest; of a CT they accept whatever comes.

The story: open the module, load, *Segment all nodules*, accept five with A or delete with X; then, in a new
segmentation, five clicks of one's own, each accepted; then drag a point for four seconds. Nobody thinks meanwhile, so
the seconds are those of computing and drawing. A timer of 5 ms drives it and notes how long the main thread was away;
the story's own work between two turns is not counted.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("Testing/benchmarks", "Testing", "SAMMed3D")]

import numpy as np  # noqa: E402

#: The targets: seconds of all, actions a nodule after the search, seconds to the panel, ms of a gap, updates a second.
SECONDS, ACTIONS, PAINT, GAP_MS, UPDATES = 60.0, 2.0, 0.3, 100.0, 8.0
NODULES, DRAG_SECONDS, MOVES_PER_SECOND, TICK_MS = 5, 4.0, 60.0, 5
PATIENCE = 1800.0
#: What of the story loads PyTorch for the first time, which is allowed a longer gap.
LOADING = "loading PyTorch, model and volume"

Condition = Callable[[], Any]


class XTest:
    """Mouse and keys through the X server, as if they came from the devices. OSError where there is none."""

    def __init__(self) -> None:
        self._x = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
        self._test = ctypes.CDLL(ctypes.util.find_library("Xtst") or "libXtst.so.6")
        self._x.XOpenDisplay.restype = ctypes.c_void_p
        self._x.XStringToKeysym.restype = ctypes.c_ulong
        self._display = ctypes.c_void_p(self._x.XOpenDisplay(None))
        if not self._display:
            raise OSError("no X server")

    def move(self, _widget: Any, x: int, y: int) -> None:
        """To a place on the screen."""
        self._send("XTestFakeMotionEvent", -1, x, y)

    def button(self, _widget: Any, _x: int, _y: int, down: bool) -> None:
        """The left one."""
        self._send("XTestFakeButtonEvent", 1, int(down))

    def key(self, letter: str) -> None:
        """Down and up."""
        symbol = ctypes.c_ulong(self._x.XStringToKeysym(letter.lower().encode()))
        code = self._x.XKeysymToKeycode(self._display, symbol)
        for down in (1, 0):
            self._send("XTestFakeKeyEvent", code, down)

    def _send(self, name: str, *arguments: int) -> None:
        getattr(self._test, name)(self._display, *arguments, ctypes.c_ulong(0))
        self._x.XFlush(self._display)


class SentEvents:
    """Mouse and keys as events that are sent to the widgets: where there is no X server."""

    def move(self, widget: Any, x: int, y: int) -> None:
        """To a place on the screen."""
        self._send(widget, x, y, 5, 0)

    def button(self, widget: Any, x: int, y: int, down: bool) -> None:
        """The left one."""
        self._send(widget, x, y, 2 if down else 3, 1)

    def key(self, letter: str) -> None:
        """Gives a key to the shortcut that is for it."""
        import qt
        import slicer

        for shortcut in slicer.util.mainWindow().findChildren(qt.QShortcut):
            if shortcut.key.toString() == letter and shortcut.enabled:
                slicer.app.sendEvent(shortcut, qt.QShortcutEvent(shortcut.key, shortcut.id()))

    @staticmethod
    def _send(widget: Any, x: int, y: int, kind: int, button: int) -> None:
        import qt
        import slicer

        place = qt.QPoint(x, y)
        held = qt.Qt.MouseButtons(button if kind == 2 else 0)
        event = qt.QMouseEvent(
            qt.QEvent.Type(kind),
            qt.QPointF(widget.mapFromGlobal(place)),
            qt.QPointF(place),
            qt.Qt.MouseButton(button),
            held,
            qt.Qt.KeyboardModifiers(0),
        )
        slicer.app.sendEvent(widget, event)


class Slicer:
    """The application in front of the reader."""

    def __init__(self) -> None:
        import slicer

        self.app = slicer.app
        try:
            self.hands: Any = XTest()
            how = "events through the X server"
        except OSError:
            self.hands, how = SentEvents(), "events sent to the widgets"
        self.name = f"3D Slicer {slicer.app.applicationVersion}, {how}"
        slicer.util.mainWindow().showMaximized()
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    def open(self) -> float:
        """Chooses the module; seconds until its panel is drawn."""
        import slicer

        start = time.perf_counter()
        slicer.util.selectModule("SAMMed3D")
        slicer.app.processEvents()
        return time.perf_counter() - start

    def widget(self) -> Any:
        """The module's Python widget."""
        import slicer

        return slicer.modules.SAMMed3DWidget

    def load(self, path: str) -> Any:
        """A CT of a file."""
        import slicer

        return slicer.util.loadVolume(path)

    def press(self, button: Any) -> None:
        """A click on a button of the panel."""
        import qt

        place = button.mapToGlobal(qt.QPoint(button.width // 2, button.height // 2))
        self._click(button, place.x(), place.y())

    def click(self, ras: Any) -> None:
        """A click in the axial view, which shows the place."""
        view, x, y = self._place(ras)
        self._click(view, x, y)

    def hold(self, ras: Any, down: bool) -> None:
        """Presses or lets go of the mouse over a place in the axial view."""
        view, x, y = self._place(ras)
        self.hands.move(view, x, y)
        self.hands.button(view, x, y, down)

    def move(self, ras: Any) -> None:
        """Moves the mouse to a place in the axial view."""
        self.hands.move(*self._place(ras))

    def key(self, letter: str) -> None:
        """Presses a key."""
        self.hands.key(letter)

    def start(self, turn: Callable[[], bool]) -> None:
        """Calls ``turn`` every 5 ms until it says False."""
        import qt

        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", lambda: turn() or self._timer.stop())
        self._timer.start()

    def end(self, code: int) -> None:
        """Closes the application, once the timer is through."""
        import qt
        import slicer

        self._timer.stop()
        qt.QTimer.singleShot(100, lambda: slicer.util.exit(code))

    def _click(self, widget: Any, x: int, y: int) -> None:
        self.hands.move(widget, x, y)
        self.hands.button(widget, x, y, True)
        self.hands.button(widget, x, y, False)

    def _place(self, ras: Any) -> tuple[Any, int, int]:
        import qt
        import slicer
        import vtk

        view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
        to_view = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(view.mrmlSliceNode().GetXYToRAS(), to_view)
        x, y = to_view.MultiplyPoint([*ras, 1.0])[:2]
        place = view.mapToGlobal(qt.QPoint(round(x), round(view.height - 1 - y)))
        return view.VTKWidget(), place.x(), place.y()


class Simulation:
    """The stand-in: the module's own panel and Slicer's own classes, without the application."""

    name = "the simulation of Testing/standin, which is not Slicer"

    def __init__(self) -> None:
        from standin.host import Host

        self._host = Host()
        self._host.load(ROOT / "SAMMed3D" / "SAMMed3D.py")
        self.app = self._host.app
        self._view = self.app.layoutManager().sliceWidget("Red").sliceView()._view
        self._host._window.resize(1366, 768)

    def open(self) -> float:
        """Chooses the module; seconds until its panel is drawn."""
        start = time.perf_counter()
        self._host.select("SAMMed3D")
        self._host._window.grab()
        return time.perf_counter() - start

    def widget(self) -> Any:
        """The module's Python widget."""
        return self._host.widget("SAMMed3D")

    def load(self, path: str) -> Any:
        """A CT of a file."""
        from SAMMed3DLib.files.volume_io import read_volume

        volume = read_volume(path)
        return self._host.scene.add_volume(volume.array_kji, volume.ijk_to_ras, Path(path).name)

    def press(self, button: Any) -> None:
        """A click on a button of the panel."""
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest

        from standin.pythonqt import unwrap

        QTest.mouseClick(unwrap(button), Qt.MouseButton.LeftButton)

    def click(self, ras: Any) -> None:
        """A click in the axial view, which shows the place."""
        self._view.render()
        self._view.click(*self._view.to_pixel(ras))

    def hold(self, ras: Any, down: bool) -> None:
        """Presses or lets go of the mouse over a place in the axial view."""
        self.move(ras)
        (self._view.press if down else self._view.release)()

    def move(self, ras: Any) -> None:
        """Moves the mouse to a place in the axial view, which is drawn."""
        self._view.move(*self._view.to_pixel(ras))
        self._view.render()

    def key(self, letter: str) -> None:
        """Presses a key."""
        from PySide6.QtGui import QKeySequence
        from PySide6.QtTest import QTest

        self._host._window.activateWindow()
        self._host.process()
        QTest.keySequence(self._host._window, QKeySequence(letter))

    def start(self, turn: Callable[[], bool]) -> None:
        """Calls ``turn`` every 5 ms until it says False."""
        from PySide6.QtCore import QTimer

        self._timer = QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(lambda: turn() or self.app.quit())
        self._timer.start()
        self.app.exec()

    def end(self, code: int) -> None:
        """Ends at once: Qt and VTK may crash when the interpreter ends."""
        sys.stdout.flush()
        os._exit(code)


class Reading:
    """The story, one turn of the event loop after the other.

    Attributes:
        seconds: of each part of the story.
        actions: clicks and keys of each part.
        gaps, work: the times between two turns, and what the main thread computed in each, in ms, of each part. The
            second does not depend on what else the machine does; what graphics drivers do on threads of theirs is
            missing in it.
        told: whatever else was found.
    """

    def __init__(self, place: Any, path: str | None, out: Path | None) -> None:
        self.place, self.path, self.out = place, path, out
        self.seconds: dict[str, float] = {}
        self.actions: dict[str, int] = {}
        self.gaps: dict[str, list[float]] = {}
        self.work: dict[str, list[float]] = {}
        self.told: dict[str, float] = {}
        self._part, self._began = "", time.perf_counter()
        self._left = self._worked = 0.0
        self._waits: Condition = lambda: True
        self._until = 0.0
        self._truth: Any = None
        self._story = self._tell()

    # -- turns -------------------------------------------------------------------------------------------------------

    def turn(self) -> bool:
        """What the timer calls; False at the end."""
        now = time.perf_counter()
        if self._left:
            self.gaps.setdefault(self._part, []).append(1000.0 * (now - self._left))
            self.work.setdefault(self._part, []).append(1000.0 * (time.thread_time() - self._worked))
        going = self._go_on(now)
        self._left, self._worked = time.perf_counter(), time.thread_time()
        return going

    def _go_on(self, now: float) -> bool:
        try:
            if now > self._until:
                raise TimeoutError(f"nothing happened for {PATIENCE:.0f} s: {self._part}")
            if self._waits():
                self._waits = next(self._story)
                self._until = time.perf_counter() + PATIENCE
        except StopIteration:
            self.place.end(self.report())
            return False
        except BaseException as error:
            import traceback

            traceback.print_exc()
            print(f"FAILED in {self._part}: {error}", flush=True)
            self.place.end(2)
            return False
        return True

    def begin(self) -> None:
        """Starts the story."""
        self._until = time.perf_counter() + PATIENCE
        self.place.start(self.turn)

    def _is(self, part: str) -> None:
        """Another part of the story begins here."""
        now = time.perf_counter()
        if self._part:
            self.seconds[self._part] = self.seconds.get(self._part, 0.0) + now - self._began
        self._part, self._began = part, now

    def _act(self) -> None:
        self.actions[self._part] = self.actions.get(self._part, 0) + 1

    # -- the story ---------------------------------------------------------------------------------------------------

    @property
    def session(self) -> Any:
        return self.place.widget().session

    def _rest(self, seconds: float = 0.0) -> Condition:
        """Until nothing is being computed, and what was done is drawn."""
        end, turns = time.perf_counter() + seconds, [0]

        def rested() -> bool:
            turns[0] = 0 if self.session.isBusy else turns[0] + 1
            return turns[0] > 3 and time.perf_counter() >= end

        return rested

    def _key(self, letter: str) -> Iterator[Condition]:
        self._act()
        before = self._state()
        self.place.key(letter)
        yield lambda: self._state() != before
        yield self._rest()

    def _state(self) -> tuple[Any, ...]:
        session = self.session
        return session.selectedId, session.history.undoText, tuple(row.status for row in session.review.rows())

    def _tell(self) -> Iterator[Condition]:
        self._is("the panel")
        self.told["panel"] = self.place.open()
        yield self._pause(0.5)
        volume = self._volume()
        yield self._pause(0.5)
        ui = self.place.widget().ui
        self._is(LOADING)
        ui.volumeSelector.setCurrentNode(volume)
        self.session.showVolume()
        self.session.preload()
        yield self._rest(0.5)
        self._is("Segment all")
        self._act()
        self.place.press(ui.segmentAllButton)
        yield lambda: self.session.finding.isRunning
        yield self._rest()
        self._is("accepting five")
        yield from self._accept()
        self.told["found"] = len(self.session.review.rows())
        self._is("five clicks, each accepted")
        yield from self._click(volume)
        self._is("dragging a point")
        yield from self._drag()
        self._is("")

    @staticmethod
    def _pause(seconds: float) -> Condition:
        end = time.perf_counter() + seconds
        return lambda: time.perf_counter() >= end

    def _volume(self) -> Any:
        if self.path:
            return self.place.load(self.path)
        from SAMMed3DLib.gui.sample_data import addPhantom
        from SAMMed3DLib.synthesis.phantom import chest_phantom

        self._truth = chest_phantom(0)
        return addPhantom(self._truth)

    def _accept(self) -> Iterator[Condition]:
        while self._accepted() < NODULES:
            selected = self.session.selectedId
            if selected is None:
                raise RuntimeError(f"{self._accepted()} nodules were accepted and none is left")
            yield from self._key("A" if self._is_true(selected) else "X")

    def _accepted(self) -> int:
        return sum(row.status == "reviewed" for row in self.session.review.rows())

    def _is_true(self, segment_id: str) -> bool:
        if self._truth is None:
            return True
        block = self.session.volume.writer.read(segment_id)
        place = tuple(slice(a, a + n) for a, n in zip(block.offset_kji, block.mask.shape, strict=True))
        return bool(np.any(self._truth.labels_kji[place][block.mask != 0]))

    def _click(self, volume: Any) -> Iterator[Condition]:
        """The places of the nodules that were accepted, clicked in a segmentation of their own."""
        import slicer

        session = self.session
        rows = [row for row in session.review.rows() if row.status == "reviewed"]
        places = [self._inside(row.segmentId) for row in rows]
        old, self._began = session.segmentationNode, time.perf_counter()
        new = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Clicked")
        new.CreateDefaultDisplayNodes()
        old.SetDisplayVisibility(False)
        session.setSegmentation(new)
        yield self._rest(0.3)
        self._began = time.perf_counter()
        for place in places:
            slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *place, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
            yield self._pause(0.1)
            self._act()
            self.place.key("N")
            yield self._armed
            count = len(session.review.rows())
            self._act()
            self.place.click(place)
            yield lambda count=count: len(session.review.rows()) > count
            yield self._rest()
            if place is not places[-1]:
                yield from self._key("A")

    def _armed(self) -> bool:
        return self.place.widget().clicks.armed and self.session.selectedId is None

    def _inside(self, segment_id: str) -> Any:
        """The voxel of a nodule that lies nearest to its middle, world RAS."""
        block = self.session.volume.writer.read(segment_id)
        voxels = np.argwhere(block.mask) + block.offset_kji
        nearest = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))]
        r, a, s, _one = self.session.volume.geometry.ijkToWorld @ [*nearest[::-1], 1.0]
        return [float(r), float(a), float(s)]

    def _drag(self) -> Iterator[Condition]:
        """The point of the last nodule is moved to and fro."""
        session = self.session
        node = session.promptsNode
        start = np.array(node.GetNthControlPointPositionWorld(node.GetNumberOfControlPoints() - 1))
        for place in (start + [15.0, 15.0, 0.0], start):  # a pointer that is there already would not be noticed
            self.place.move(place)
            yield self._pause(0.3)
        self.place.hold(start, True)
        yield self._pause(0.1)
        masks: set[int] = set()
        moved, began = 0, time.perf_counter()
        while (now := time.perf_counter()) < began + DRAG_SECONDS:
            if (now - began) * MOVES_PER_SECOND > moved:
                moved += 1
                self.place.move(start + 4.0 * np.sin(moved / 12.0) * np.array([1.0, 0.6, 0.0]))
            image = session.segmentationNode.GetSegmentation().GetSegment(session.selectedId)
            masks.add(image.GetRepresentation("Binary labelmap").GetMTime())
            yield lambda: True
        self.told["updates"] = (len(masks) - 1) / (time.perf_counter() - began)
        self.place.hold(start, False)
        yield self._rest(0.2)

    # -- the end -----------------------------------------------------------------------------------------------------

    def report(self) -> int:
        """Prints what was measured; 1 where a target was missed."""
        import torch
        from encoder import GEMM, gemm_calls, seconds
        from targets import print_targets

        calls = gemm_calls(torch.float32).values()
        rate = 2e-9 * float(np.prod(GEMM)) / min(seconds(call) for _round in range(20) for call in calls)
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        print(f"\n{self.place.name}; {os.cpu_count()} cores, {rate:.0f} GFLOP/s{load}")
        print(
            "\n| part | s | actions | gap, ms: median, p95, most | of it computed: p95, most |\n|---|---|---|---|---|"
        )
        for part, value in self.seconds.items():
            gaps, work = (np.percentile(each[part], (50, 95, 100)) for each in (self.gaps, self.work))
            print(
                f"| {part} | {value:.2f} | {self.actions.get(part, 0)} | {gaps[0]:.0f}, {gaps[1]:.0f}, {gaps[2]:.0f} "
                f"| {work[1]:.0f}, {work[2]:.0f} |"
            )
        found = self.seconds["Segment all"] + self.seconds["accepting five"]
        others = max(max(gaps) for part, gaps in self.gaps.items() if part in self.seconds and part != LOADING)
        checks = [
            ("opened module to five accepted, s", self.seconds[LOADING] + found, "<=", SECONDS),
            ("actions a nodule after the search", self.actions["accepting five"] / NODULES, "<=", ACTIONS),
            ("the panel is drawn, s", self.told["panel"], "<=", PAINT),
            ("longest gap but the loading's, ms", others, "<=", GAP_MS),
            ("updates a second while dragging", self.told["updates"], ">=", UPDATES),
        ]
        reached = print_targets(checks)
        if self.out is not None:
            told = {"place": self.place.name, "gflops": rate, "seconds": self.seconds, "actions": self.actions}
            told |= {"gaps_ms": self.gaps, "work_ms": self.work, "told": self.told}
            self.out.write_text(json.dumps(told), encoding="utf-8")
        sys.stdout.flush()
        return 0 if reached else 1


def main() -> None:
    """Chooses where to read, and begins."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", nargs="?", help="a CT that Slicer reads")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    try:
        import slicer

        isSlicer = hasattr(slicer.app, "layoutManager")
    except (ImportError, AttributeError):
        isSlicer = False
    place = Slicer() if isSlicer else Simulation()
    reading = Reading(place, options.ct, options.out)
    globals()["_reading"] = reading  # a timer of a script that has ended would end with it
    reading.begin()


main()
