"""Sources of performances, the corpus built from them, and its splits."""
