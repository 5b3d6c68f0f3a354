"""Data sets: Parquet splits in the Hugging Face image convention. Read ``images``, ``splits``, then ``validate``."""
