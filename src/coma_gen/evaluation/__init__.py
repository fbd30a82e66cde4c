"""What the numbers mean: likelihood scores, n-gram baselines, music measures."""
