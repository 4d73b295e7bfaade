"""Side-by-side measurements; each compares results before it compares times."""
