"""A release behind HTTP: raycl's service beside hand-written ones."""
