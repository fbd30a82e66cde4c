"""Writes the prompts in examples/prompts: three openings of about ten seconds.

    python examples/make_prompts.py [FOLDER]

They are composed by `coma_gen.play.prompts`, which `coma-gen play` uses too. They are free to use, and every
machine writes the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from coma_gen.midi.io import midi_bytes
from coma_gen.play.prompts import PROMPTS

FOLDER = Path(__file__).parent / "prompts"


def main(folder: Path = FOLDER) -> None:
    """Writes the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, compose in PROMPTS.items():
        path = folder / f"{name}.mid"
        notes = compose()
        path.write_bytes(midi_bytes(notes))
        print(f"{path.name}: {len(notes)} notes, {notes.end:.1f} s")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
