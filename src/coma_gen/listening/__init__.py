"""Blind listening tests: continuations by models, by n-grams and by the composer."""
