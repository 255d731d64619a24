"""Nodules, prompts and clicks in the MRML scene. Imports slicer, vtk and numpy, never Qt and never PyTorch.

=====================  ====================================================================================
volume_geometry        VolumeGeometry: coordinates and voxels of a volume
segment_writer         SegmentWriter, MaskBlock: every mask into and out of a segment
nodule_segmentation    createSegmentation, findSegmentation, addNodule; status, record and score of a segment
segment_snapshot       takeSnapshot, restoreSegment: a segment as it was, under its ID
prompt_store           PromptStore, Prompt: control points as prompts
prompt_list            createPrompts, findPrompts: the point list of a volume
shared_transform       SharedTransform: segmentation and points stay with their volume
slice_clicks           SliceClicks: clicks in slice views, without Place mode
views                  showPoint: all views to a place
=====================  ====================================================================================
"""
