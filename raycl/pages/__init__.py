"""Pages for people: one file each, that needs no network."""
