"""Runs the command line: `python -m coma_gen.cli`."""

from coma_gen.cli.main import main

main()
