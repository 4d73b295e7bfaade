"""Tests on Ray as it runs outside pytest: a head of its own, jobs submitted to it, and runs that are killed."""
