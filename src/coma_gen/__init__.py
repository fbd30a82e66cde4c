"""coma-gen: a reproducible data-and-training pipeline for symbolic piano music."""
