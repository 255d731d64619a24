"""Volumes, segmentations and data sets in the MRML scene. Imports slicer, vtk and numpy, never Qt and never PyTorch.

==================  ==================================================================================================
export_table        ExportTable, ExportRow: what can be exported, and what stands in the way, before anything is written
scene_export        sceneExport, caseData: the rows into a data set, one small step at a time
volume_pairs        which segmentation belongs to which volume
nodule_labels       the segments of a volume as one label map
volume_facts        whether a volume is a CT, and which image it is
patient             whose volume it is
==================  ==================================================================================================
"""
