"""Public names of reading and writing volumes: ``from SAMMed3DLib.volume_io import read_volume``."""

from .files.volume_io import READABLE, Volume, read_labels, read_volume, write_volume

__all__ = ["READABLE", "Volume", "read_labels", "read_volume", "write_volume"]
