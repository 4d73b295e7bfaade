"""Stage 1: interaction logs in Parquet to contrastive pairs, kept as one packed sequence of events a user."""
