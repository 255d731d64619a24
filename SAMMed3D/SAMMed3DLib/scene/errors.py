"""The one error of this package that a user can cure."""

from __future__ import annotations


class SceneError(ValueError):
    """A node cannot be used as it is; the message names what to do."""
