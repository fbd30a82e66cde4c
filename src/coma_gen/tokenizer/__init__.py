"""Notes to tokens and back: REMI by miditok, grammar tables, fidelity."""
