"""Evaluation: cases, clicks, metrics, reports, comparison of two checkpoints, 2D and classic peers."""
