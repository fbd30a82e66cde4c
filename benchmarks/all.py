"""Runs the main benchmarks one after the other, each in a separate process, and prints their tables.

    python -m benchmarks.all --short                         what `make bench` runs
    python -m benchmarks.all --into benchmarks/README.md     the long form; inserts the tables into the page

Run it on an otherwise idle machine. `many_files` is not included, since it writes thousands of files.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from coma_gen.core.io import write_atomic

SCRIPTS = ("train_step", "parts", "decode", "data")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the scripts and prints their output; exits if one fails."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.all",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--into", type=Path, help="a page with markers between which the tables are inserted")
    typed, others = parser.parse_known_args(arguments)
    printed = {}
    for name in SCRIPTS:
        command = [sys.executable, "-m", f"benchmarks.{name}", *others]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            sys.exit(f"benchmarks.{name} failed with status {done.returncode}; no page was written")
        printed[name] = done.stdout
    if typed.into is not None:
        write_atomic(typed.into, insert_tables(typed.into.read_text(encoding="utf-8"), printed))


def insert_tables(page: str, printed: Mapping[str, str]) -> str:
    """Replaces the text between each script's markers in a page with the script's output.

    Raises:
        ValueError: A marker is missing.
    """
    for name, text in printed.items():
        first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, found_first, rest = page.partition(f"{first}\n")
        _, found_last, after = rest.partition(last)
        if not (found_first and found_last):
            raise ValueError(f"the page has no section between {first} and {last}")
        page = f"{before}{first}\n{text.strip()}\n{last}{after}"
    return page


if __name__ == "__main__":
    main()
