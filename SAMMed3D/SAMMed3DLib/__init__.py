"""SAMMed3D: from a click on a CT to a mask in 3D.

``model`` holds the networks, ``inference`` turns clicks into masks, ``synthesis`` makes training data and the chest
phantom, ``cli`` is the command line. Importing this package imports none of them: 3D Slicer loads it before PyTorch is
installed.
"""

__version__ = "0.1.0"
