"""Configuration: typed sections of params.yaml, validation rules, and YAML parsing compatible with DVC."""
