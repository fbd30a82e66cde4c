"""`coma-gen play`: the local page on which pianists try a model."""
