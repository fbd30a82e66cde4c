"""Evaluation: likelihood scores, n-gram baselines, music measures and memorization."""
