"""Where the performances come from, and how they are split."""
