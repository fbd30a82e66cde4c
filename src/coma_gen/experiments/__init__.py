"""DVC experiments: ablations, and tables that compare finished runs."""
