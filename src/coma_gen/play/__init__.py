"""`coma-gen play`: a local web page to try a model."""
