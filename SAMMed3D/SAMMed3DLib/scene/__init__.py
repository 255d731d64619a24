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
session, session_core  Session: the one object behind the panel, scripts and the self-test
states                 State: what the session can do, and the words for it
document               Document: the nodules of one volume, their segments and points
document_watch         DocumentWatch: what others do to these nodes
nodule_state           NoduleState, NoduleSnapshot, NoduleRecord: what is known of one nodule beside its segment
nodule_editor          NoduleEditor: steps of the history, requests, answers
prompt_events          PromptEvents: what clicks and control points mean
segment_all            SegmentAll: finding all nodules; candidate_run: which of them are shown
workbench              Workbench: what belongs to one open document, and small pieces of work
pipeline               Pipeline: model and volume on the worker, who waits for which answer
undo_stack             UndoStack: one history over points and masks
nodule_table           NoduleRow: the list and its text; nodule_rows: the rows of a document
scripting              segment, segmentAll: the calls for scripts
=====================  ====================================================================================
"""
