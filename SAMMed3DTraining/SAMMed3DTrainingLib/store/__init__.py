"""Data sets in nnU-Net's layout, written and kept: no Slicer, no PyTorch; nibabel only while files are written or read.

==================  ==================================================================================================
export_case         ExportCase: what is written of one CT; StoredCase, WrittenCase: what there is, what was done
dataset_writer      DatasetWriter: the one owner of what is written into a data set
dataset_files       which cases a folder holds; dataset.json; sammed3d_export.json: what was written here, from what
file_moves          several files change together or not at all, also when the process is killed; one writer at a time
nifti_file          voxels into a NIfTI file, with progress and cancel
stepwise_export     StepwiseExport: many cases, one small step at a time
folder_import       which files of a folder are an image and its label map, and such pairs as cases
==================  ==================================================================================================
"""
