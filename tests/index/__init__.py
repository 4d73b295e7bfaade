"""The sharded index against one index, and a release against what can happen to its files."""
