"""A run's events for people and for programs that read standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from SAMMed3DLib.commandline.terminal import duration

#: Embeddings that are computed between two events.
EMBEDDED_AT_ONCE = 4


def accept_any_letters() -> None:
    """Lets standard output replace letters that it cannot show, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def show_as_json(event: dict[str, Any]) -> None:
    """Prints an event as one line of JSON, at once."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def show_as_text(event: dict[str, Any]) -> None:
    """Prints an event for people."""
    text = _TEXTS[event["event"]](event) if event["event"] in _TEXTS else ""
    if text:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _step_text(e: dict[str, Any]) -> str:
    if e["step"] % 10 and e["step"] != e["steps"]:
        return ""
    dice = f"{_number(e['dice_first'])} -> {_number(e['dice_last'])}"
    return (
        f"epoch {e['epoch']:3}  step {e['step']}/{e['steps']}  loss {_number(e['loss'])}  Dice {dice}  "
        f"{duration(e['left_s'])} left"
    )


def _validation_text(e: dict[str, Any]) -> str:
    dice = ", ".join(_number(d) for d in e["dice"])
    best = "  (best so far)" if e["best"] else ""
    change = ""
    if e.get("change") is not None:
        change = f", {e['change']:+.3f} +- {_number(e['change_error'])} since the start"
        sizes = e["sizes"].items() if len(e["sizes"]) > 1 else ()
        change += "".join(f"; {name} ({each['nodules']}) {each['change']:+.3f}" for name, each in sizes)
    return (
        f"epoch {e['epoch']:3}  validation: Dice by click {dice} on {e['nodules']} nodules, "
        f"loss {_number(e['loss'])}{change}{best}"
    )


def _start_text(e: dict[str, Any]) -> str:
    verb = "continuing" if e["resumed"] else "training"
    return (
        f"{verb} {e['task_name']}: {e['nodules']} nodules of {e['cases']} cases ({e['patients']} patients); "
        f"{e['split']}; {e['steps']} steps" + (f"\nnote: {e['caution']}" if e.get("caution") else "")
    )


def _encoding_text(e: dict[str, Any]) -> str:
    """The text of an encoding event, for ten events in all; one comes after every batch."""
    done, total = e["done"], e["total"]
    return f"embedding {done} of {total}" if done * 10 // total > (done - EMBEDDED_AT_ONCE) * 10 // total else ""


_TEXTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "start": _start_text,
    "reading": lambda e: f"reading case {e['done']} of {e['total']}",
    "encoding": _encoding_text,
    "step": _step_text,
    "validation": _validation_text,
    "paused": lambda e: "paused; write run or stop into the control file",
    "resumed": lambda e: "going on",
    "warning": lambda e: f"WARNING: {e['message']}",
    "end": lambda e: f"{e['reason']}: {e['message']}",
}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
