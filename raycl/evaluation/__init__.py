"""Stage 3: what the towers retrieve from the full catalogue, measured on events that training never saw."""
