"""Contrastive objectives, one a file: vectors, the column of each row's own item and log-probabilities to a scalar."""
