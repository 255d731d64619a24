"""Describes options of commands once (name, default, range, help: for parser and checks), and presets of training."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: Of every command that computes.
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
LIBRARIES = ("auto", "torch", "onednn")
DEVICES = "auto, cpu, cuda, cuda:1, mps"


@dataclass(frozen=True)
class Range:
    """The values that an option may have: what to say of others, and a test."""

    text: str
    holds: Callable[[float], bool]


POSITIVE = Range("must be positive", lambda value: 0 < value < math.inf)
PROCESSES = Range("must be from 0 to 256", lambda value: 0 <= value <= 256)
NOT_NEGATIVE = Range("must be 0 or more", lambda value: value >= 0)
SEED = Range("must be from 0 to 4294967295", lambda value: 0 <= value < 2**32)
SHARE = Range("must be in [0, 1)", lambda value: 0 <= value < 1)
ONE_CLICK = Range("needs one click a nodule at least", lambda value: value >= 1)
PART = Range("must be between 0 and 1", lambda value: 0 < value < 1)


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        group: heading in the help; "" for none.
        name: without dashes.
        help: what it means; the default is told behind it, unless the text speaks of it.
        field: of the configuration, where the default stands; "" = the name.
        flags: shorter names, with their dashes.
        kind: makes a value of a word; None = the type of the default, or text.
        range: of numbers; None = any. An empty value is not checked.
        switch: the option takes no value and sets the field to this.
        required, choices, nargs, metavar: as argparse has them.
    """

    group: str
    name: str
    help: str
    field: str = ""
    flags: tuple[str, ...] = ()
    kind: Callable[[str], Any] | None = None
    range: Range | None = None
    switch: bool | None = None
    required: bool = False
    choices: Sequence[str] | None = None
    nargs: str | int | None = None
    metavar: str | tuple[str, ...] | None = None

    @property
    def target(self) -> str:
        """The field of the configuration."""
        return self.field or self.name

    def takes(self, value: Any) -> bool:
        """Whether a value of a configuration file is of the kind that the option has; null is its default."""
        if value is None or self.switch is not None:
            return value is None or isinstance(value, bool)
        several = value if self.nargs is not None and isinstance(value, list) else [value]
        return all(
            isinstance(each, (str, int, float)) and not isinstance(each, bool) and not str(each).startswith("--")
            for each in several
        )

    def add_to(self, group: Any, defaults: Any) -> None:
        """Adds it to a parser or to a group of one; ``defaults`` has the configuration's fields."""
        default = getattr(defaults, self.target, None)
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        silent = shown in (None, "") or isinstance(shown, bool) or "default" in self.help
        text = self.help if silent else f"{self.help} (default {shown})"
        more: dict[str, Any] = {
            "dest": self.target,
            "help": text.replace("%", "%%"),
            "required": self.required,
            "default": list(default) if isinstance(default, tuple) else default,
        }
        if self.switch is not None:
            more["action"] = "store_true" if self.switch else "store_false"
        else:
            usual = str if default is None or isinstance(default, tuple) else type(default)
            more |= {
                "type": self.kind or usual,
                "choices": self.choices,
                "nargs": self.nargs,
                "metavar": self.metavar or (None if self.choices else self.name.upper()),
            }
        group.add_argument(*self.flags, f"--{self.name}", **more)


def option(group: str, help: str, default: Any = dataclasses.MISSING, *, name: str = "", **how: Any) -> Any:
    """A field of a configuration together with its option.

    Args:
        group, help: see :class:`Option`.
        default: of the field; a required option has none.
        name: of the option, where it is another than the field's.
        how: further attributes of :class:`Option`.
    """
    return dataclasses.field(default=default, metadata={"group": group, "help": help, "name": name, **how})


def options_of(config: type) -> tuple[Option, ...]:
    """The options of a configuration, by heading and in the order of its fields."""
    options = [
        Option(**{**each.metadata, "name": each.metadata["name"] or each.name, "field": each.name})
        for each in dataclasses.fields(config)
        if each.metadata
    ]
    groups = list(dict.fromkeys(each.group for each in options))
    return tuple(sorted(options, key=lambda each: groups.index(each.group)))


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option], defaults: Any) -> None:
    """Adds options to a parser, under their headings."""
    groups: dict[str, Any] = {"": parser}
    for option in options:
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        option.add_to(groups[option.group], defaults)


def values_of(parsed: argparse.Namespace, options: Iterable[Option]) -> dict[str, Any]:
    """The configuration's fields from parsed options; lists become tuples."""
    values = {option.target: getattr(parsed, option.target) for option in options}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def words_of(config: Mapping[str, Any], without: Collection[str] = ()) -> Iterator[str]:
    """The command line of a configuration as config.json has it, each value named, so that defaults do not matter.

    Args:
        config: field -> value; None, empty lists and switches that are off are left to the default.
        without: fields that are left out.
    """
    for name, value in config.items():
        if name in without or value is None:
            continue
        if name == "augment":
            if not value:
                yield "--no_augment"
        elif isinstance(value, (list, tuple)):
            if value:  # an option without values is refused
                yield from (f"--{name}", *map(str, value))
        elif isinstance(value, bool):
            if value:
                yield f"--{name}"
        elif not isinstance(value, dict):
            yield f"--{name}={value!r}" if isinstance(value, float) else f"--{name}={value}"


def check_ranges(config: Any, options: Iterable[Option], error: type[Exception]) -> None:
    """Raises ``error`` for the first option whose value lies outside its range; the message names both."""
    for option in options:
        value = getattr(config, option.target, None)
        if option.range is not None and value is not None and not option.range.holds(value):
            raise error(f"{(option.flags or (f'--{option.name}',))[0]} {option.range.text}, not {value}")


# -- presets of training -----------------------------------------------------------------------------------------------

Encoder = Literal["frozen", "lora", "full"]
Preset = Literal["5min", "15min", "60min", "quick", "standard", "full"]


@dataclass(frozen=True)
class PresetValues:
    """The values of a preset, which the command line overrides.

    Attributes:
        minutes: time that the run may take on this machine; it has as many epochs as fit.
        encoder: "frozen" (its embeddings are computed once), "lora" or "full".
        decoder_lr: learning rate of prompt encoder and mask decoder, as a factor of ``lr``.
        samples_per_nodule: views of each nodule per epoch.
        text: for --help.
    """

    minutes: float
    encoder: Encoder
    lr: float
    decoder_lr: float
    samples_per_nodule: int
    text: str


PRESETS: dict[str, PresetValues] = {
    "5min": PresetValues(5, "lora", 4e-4, 0.5, 2, "small updates of the image encoder (LoRA), the rest in full"),
    "15min": PresetValues(15, "lora", 4e-4, 0.5, 4, "the same for longer"),
    "60min": PresetValues(60, "full", 2e-4, 1.0, 4, "everything learns"),
}
#: Default number of samples in a step, and of batches whose gradients make one update.
BATCH_SIZE, ACCUMULATION_STEPS = 4, 1
#: Former names of the presets.
ALIASES = {"quick": "5min", "standard": "15min", "full": "60min"}
#: Treatment of the image encoder by presets of former names; configurations of that time do not say it.
FORMER_ENCODERS = {"quick": "frozen", "standard": "lora", "full": "full"}
#: Largest number of epochs, however many minutes there are.
MOST_EPOCHS = 200
#: Number of epochs from scratch, where minutes are too few.
SCRATCH_EPOCHS = 50


def epochs_in(minutes: float, encoding_s: float, epoch_s: float) -> int:
    """Computes how many epochs, at least one, fit into some minutes.

    Args:
        minutes: for the whole run.
        encoding_s: seconds before the first step.
        epoch_s: seconds of an epoch with its validation.
    """
    return min(max(1, int((60 * minutes - encoding_s) / max(epoch_s, 1e-6))), MOST_EPOCHS)
