"""Finds the files that come with the package: the bundled models and the library of nodule shapes."""

from __future__ import annotations

from pathlib import Path

DEFAULT_CHECKPOINT = "Models/sammed3d_nodule.pth"
CLASSIFIER = "Models/nodule_classifier.pth"
#: Weights of the regressions with which nodules are found (:mod:`SAMMed3DLib.finding.regression`).
FITTED = "Models/finding.json"

_PACKAGE = Path(__file__).resolve().parents[1]
#: In a wheel Resources lies inside the package; in a checkout and in an installed Slicer extension beside it.
_RESOURCE_FOLDERS = (_PACKAGE / "Resources", _PACKAGE.parent / "Resources")


def resource_path(name: str) -> Path:
    """A file that comes with the package, such as ``"Models/sammed3d_nodule.pth"``.

    Raises:
        FileNotFoundError: it is not there; the message says where it was looked for and what to do.
    """
    for folder in _RESOURCE_FOLDERS:
        path = folder / name
        if path.is_file():
            return path
    places = " and ".join(str(folder) for folder in _RESOURCE_FOLDERS)
    raise FileNotFoundError(
        f"{name} does not come with this installation (looked in {places}). Install SAMMed3D again"
        + (", or name a checkpoint of your own." if name == DEFAULT_CHECKPOINT else ".")
    )


def default_checkpoint() -> Path:
    """The bundled nodule model, in a checkout, an installed wheel or an installed extension.

    Raises:
        FileNotFoundError: it is missing; the message names the cure.
    """
    return resource_path(DEFAULT_CHECKPOINT)
