"""Beside the stages: the curves of a training run, for people and for the tools that they watch runs with."""
