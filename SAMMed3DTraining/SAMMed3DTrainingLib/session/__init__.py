"""The session behind the panel, scripts and the self-test: data, run, comparison, next case. No Qt, no torch."""
