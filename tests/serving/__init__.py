"""Answers of one process, and of the real application over HTTP."""
