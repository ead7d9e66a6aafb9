"""Programs compiled for accelerators that are not there, and counted."""
