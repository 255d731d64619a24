"""The engine of the SAMMed3D extension: promptable 3-D segmentation of lung nodules, without any Slicer import."""

__version__ = "0.1.0"
