"""The small CT of the command line's tests."""

from commandline.conftest import ct, labels_file, scene

__all__ = ["ct", "labels_file", "scene"]
