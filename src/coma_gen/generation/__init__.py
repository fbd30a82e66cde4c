"""From logits to music: filters, decoding, prompts and continuations."""
