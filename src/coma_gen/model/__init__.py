"""Causal conformer with multi-scale local attention, hyper-connections and an exact decoding cache."""
