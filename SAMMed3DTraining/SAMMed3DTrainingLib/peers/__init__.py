"""2D models to compare with: SAM, MedSAM and SAM-Med2D, their public checkpoints loaded strictly."""
