"""Ablations: one thing changed at a time, as DVC experiments, and the table of what it cost."""
