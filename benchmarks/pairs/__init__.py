"""Logs to packed, split sequences: raycl beside other engines that do the same job."""
