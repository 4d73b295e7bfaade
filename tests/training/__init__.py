"""The training loop: interrupted, spread over processes, and run by Ray Train, it ends where one process does."""
