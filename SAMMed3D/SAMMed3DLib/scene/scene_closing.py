"""Tells when the scene is closed: after that no node may be touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class SceneClosing:
    """Calls ``before`` when a scene begins to close and ``after`` when it is empty."""

    def __init__(self, scene: Any, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._scene = scene
        self._tags = [
            scene.AddObserver(scene.StartCloseEvent, lambda _caller, _event: before()),
            scene.AddObserver(scene.EndCloseEvent, lambda _caller, _event: after()),
        ]

    def close(self) -> None:
        """Stop watching."""
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags = []
