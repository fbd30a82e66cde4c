"""The causal conformer with multi-scale local attention, hyper-connections and an exact decoding state."""
