"""Catalogue vectors to a searchable index: raycl beside FAISS in one process, and beside autofaiss."""
