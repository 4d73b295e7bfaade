"""Training beside a bare loop."""
