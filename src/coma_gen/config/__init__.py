"""The settings: typed sections of params.yaml, rules across them, reading YAML as DVC reads it."""
