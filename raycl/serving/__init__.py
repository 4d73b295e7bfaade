"""Stage 5: the current release behind HTTP."""
