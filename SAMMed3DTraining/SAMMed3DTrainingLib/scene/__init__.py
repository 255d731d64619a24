"""Volumes, segmentations and data sets in the MRML scene. Imports slicer, vtk and numpy, never Qt and never PyTorch."""
