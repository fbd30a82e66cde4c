"""From logits to music: sampling, constrained decoding, prompts and continuations."""
