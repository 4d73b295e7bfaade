"""The pairs stage, against a reference in plain Python and against a log cleaned and built in one go."""
