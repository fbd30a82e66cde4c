"""The sub-commands of `coma-gen`, one per file: command-line options and calls of the library."""
