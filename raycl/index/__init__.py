"""Stage 4: the catalogue's vectors, the sharded FAISS index, the gate, and the release that binds index and tower."""
