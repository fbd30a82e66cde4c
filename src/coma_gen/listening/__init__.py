"""What a listener compares: continuations by models, by n-grams and by the composer, blind."""
