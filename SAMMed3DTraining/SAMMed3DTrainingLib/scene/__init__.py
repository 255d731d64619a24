"""Volumes, segmentations and data sets in the MRML scene. Imports slicer, vtk and numpy, never Qt and never PyTorch.

==================  ==================================================================================================
export_table        ExportTable, ExportRow: what can be exported, and what stands in the way, before anything is written
training_source     the scene as the session uses it; sceneExport: rows of the table into a data set, in small steps
nodule_labels       the segments of a volume as one label map
==================  ==================================================================================================
"""
