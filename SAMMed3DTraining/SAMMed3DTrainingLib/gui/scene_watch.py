"""Tells some moments after nodes came or went, once for many of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer

DELAY_MS = 400


class SceneWatch:
    """Watches the scene between :meth:`start` and :meth:`stop`."""

    def __init__(self, parent: qt.QObject, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._tags: list[int] = []
        self._timer = qt.QTimer(parent)
        self._timer.setSingleShot(True)
        self._timer.interval = DELAY_MS
        self._timer.connect("timeout()", self._onTimeout)

    def start(self) -> None:
        if not self._tags:
            scene = slicer.mrmlScene
            self._tags = [
                scene.AddObserver(event, self._onNode)
                for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndImportEvent)
            ]

    def stop(self) -> None:
        for tag in self._tags:
            slicer.mrmlScene.RemoveObserver(tag)
        self._tags = []
        self._timer.stop()

    def close(self) -> None:
        self.stop()
        self._timer.disconnect("timeout()", self._onTimeout)

    def _onNode(self, caller: Any, event: Any) -> None:
        self._timer.start()

    def _onTimeout(self) -> None:
        self._changed()
