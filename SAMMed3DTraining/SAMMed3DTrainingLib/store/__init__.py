"""Data sets in nnU-Net's layout, written and kept: no Slicer, no PyTorch; nibabel only while files are open."""
