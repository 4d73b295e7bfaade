"""The mathematics of the two towers; nothing here knows where it runs."""
