"""Losses against loops over pairs of rows."""
