"""Stage 2: pairs to trained towers; the loop, the exchange between processes, and Ray Train."""
