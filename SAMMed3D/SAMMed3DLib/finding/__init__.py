"""Finding all nodules: lungs, candidates, the classifier of places, scores and the automatic mask generator."""
