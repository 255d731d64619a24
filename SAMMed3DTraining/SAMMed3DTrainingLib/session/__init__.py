"""What the panel, scripts and the self-test work with: data, run, comparison, next case. No Qt, no torch."""
