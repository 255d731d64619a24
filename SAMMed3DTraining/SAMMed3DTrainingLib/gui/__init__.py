"""The panel: Qt only. What is shown is decided in state_view, what is done in the package session."""
