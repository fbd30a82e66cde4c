"""The sub-commands of `coma-gen`, one a file: its options, and a call or two of the library."""
