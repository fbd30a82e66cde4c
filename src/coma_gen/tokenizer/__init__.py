"""Tokenizer: REMI with miditok's vocabulary, BPE, grammar tables and round-trip errors."""
