"""Reading data sets and turning their cases into training samples."""
