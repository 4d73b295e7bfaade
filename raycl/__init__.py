"""Contrastive retrieval for recommender systems on Ray: logs in Parquet to answers over HTTP."""

__version__ = "0.1.0"
