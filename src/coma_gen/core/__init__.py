"""What everything stands on: errors, files, artifacts, processes, random numbers."""
