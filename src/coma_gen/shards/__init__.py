"""Token shards: written once, read memory-mapped, sampled as training windows."""
