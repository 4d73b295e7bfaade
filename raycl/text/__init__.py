"""What items say in words, as vectors: before stage 1, where the config asks for it."""
