"""Checks which packages training lacks in this Python, and how to install them without replacing any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from .run_files import write_whole


@dataclass(frozen=True)
class Package:
    """A package of training.

    Attributes:
        optional: training runs without it.
    """

    name: str
    requirement: str
    purpose: str
    optional: bool = False


#: As in pyproject.toml: lower bounds only, Slicer brings its own numpy, scipy and SimpleITK.
PACKAGES = (
    Package("numpy", "numpy>=1.26", "arrays"),
    Package("scipy", "scipy>=1.11", "masks and their distances"),
    Package("torch", "torch>=2.5", "the networks"),
    Package("SimpleITK", "SimpleITK>=2.3", "reads NRRD, MetaImage and DICOM"),
    Package("nibabel", "nibabel>=5.1", "reads and writes NIfTI"),
    Package("pydicom", "pydicom>=2.4", "reads the headers of DICOM"),
    Package("matplotlib", "matplotlib>=3.8", "plots in the folders of runs and evaluations", optional=True),
)


@dataclass(frozen=True)
class PackageState:
    """The missing packages."""

    missing: tuple[Package, ...]
    optional_missing: tuple[Package, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether training can start."""
        return not self.missing

    @property
    def needs_torch(self) -> bool:
        """Whether PyTorch is missing; in Slicer its own extension installs the version that fits the GPU."""
        return any(each.name == "torch" for each in self.missing)

    @property
    def requirements(self) -> list[str]:
        """Requirements for pip, without PyTorch; pip is called with the file of :func:`write_constraints`."""
        return [each.requirement for each in (*self.missing, *self.optional_missing) if each.name != "torch"]

    @property
    def text(self) -> str:
        """Message for the user."""
        if self.ready:
            return "Everything that training needs is installed."
        lines = [f"{each.name}: {each.purpose}" for each in (*self.missing, *self.optional_missing)]
        head = "Training needs packages that this Python lacks; nothing that is installed is replaced:"
        return "\n".join([head, *lines])


def check_packages(find: Callable[[str], object | None] = find_spec) -> PackageState:
    """Looks for the packages of training; imports none of them.

    Args:
        find: gives None for a package that is not there.
    """
    missing = [each for each in PACKAGES if not _is_there(each.name, find)]
    return PackageState(
        tuple(each for each in missing if not each.optional), tuple(each for each in missing if each.optional)
    )


def write_constraints(path: Path) -> list[str]:
    """Writes a constraints file (``pip install -c``) that pins every installed package to its version.

    With it pip installs what is missing or says that it cannot, but changes nothing that is there. Takes some 0.1 s.

    Returns:
        the lines written.

    Raises:
        RunError: the file cannot be written.
    """
    pins: dict[str, str] = {}
    for each in metadata.distributions():
        # A package that was half removed has no name.
        name, version = each.metadata["Name"] if each.metadata is not None else None, each.version
        if name and version:
            pins.setdefault(name.lower().replace("_", "-"), f"{name}=={version}")
    lines = sorted(pins.values(), key=str.lower)
    write_whole(path, "\n".join(lines) + "\n")
    return lines


def _is_there(name: str, find: Callable[[str], object | None]) -> bool:
    try:
        return find(name) is not None
    except (ImportError, ValueError):  # a module in sys.modules without a spec, a broken parent package
        return False
