"""HTML pages of music and metrics: piano rolls, charts, sample players, the report."""
