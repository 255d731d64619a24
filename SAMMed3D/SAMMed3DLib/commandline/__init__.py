"""The commands of ``sammed3d`` and what they print and write."""
