"""Exact top-k of the full catalogue: raycl, and plain `torch.topk` by blocks."""
