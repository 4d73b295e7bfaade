"""The towers and their parts: what they compute, and what is refused when they are loaded."""
