"""Nodules, prompts and clicks in the MRML scene. Imports slicer, vtk and numpy, never Qt and never PyTorch.

A click: SliceClicks -> Session -> NoduleEditor -> OpenVolume (segments, points), UndoStack and Pipeline -> the worker.

=====================  ====================================================================================
volume_geometry        VolumeGeometry: coordinates and voxels of a volume; SceneError; matrices
beside_volume          nodes that belong to a volume: made, found again, kept under its transform
mask_block             MaskBlock: a small mask and its place
segment_writer         SegmentWriter: every mask into and out of a segment, and a segment as it was
nodule_segmentation    NoduleSegmentation: names, status, record and score of the segments
prompt_store           PromptStore, Prompt: control points as prompts
nodule_state           NoduleState, NoduleSnapshot, SegmentRecord: what is known of one nodule beside its segment
undo_stack             UndoStack: one history over points and masks
open_volume            OpenVolume: the nodules of one volume, the only one who changes them
nodule_editor          NoduleEditor: what clicks and points mean, requests, answers
review                 Review, NoduleRow: the list, what is done with its rows, and its text
finding                Finding: the search for all nodules, and which of them are shown
pipeline               Pipeline: model and volume on the worker, who waits for which answer
states                 State: what the session can do, and the words for it
session                Session: the one object behind the panel, scripts and the self-test
scripting              segment, segmentAll: the calls for scripts
slice_clicks           SliceClicks: clicks in slice views, without Place mode
views                  showPoint: all views to a place
=====================  ====================================================================================
"""
