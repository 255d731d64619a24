"""The module's panel: Qt only. Nothing here knows of torch, and no file writes a node except through the session."""
