"""Errors of the engine: input that a user can mend, and a cancelled prediction."""

from __future__ import annotations


class InputError(ValueError):
    """The image, the prompts or their combination cannot be used; the message names the cure."""


class PredictionCancelled(RuntimeError):
    """The progress callback asked to stop; nothing was changed."""
