"""`coma-gen express`: add expression to a mechanical MIDI file, as exported by notation programs."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.workspace.paths import Workspace
from coma_gen.workspace.pretrained import MODEL_HELP, name_of_model

EXAMPLES = """examples:
  coma-gen express my.mid                      write my-expressed.mid beside it, with a random seed
  coma-gen express my.mid --seed 7             the same seed gives the same result
  coma-gen express my.mid --num 4              four versions to choose from
  coma-gen express my.mid --temperature 0.7    more even
  coma-gen express my.mid --timing 0           keep all onsets
  coma-gen express my.mid --keep-lengths       keep all note lengths

The model samples the velocity, length and exact onset of each note. Pitches, pedals, drums, tempi and texts
are preserved. Existing files are not overwritten: the next free name is used.
"""
SEEDS = 1_000_000
"""Random seeds are below this, so that they are short to type."""
MAX_STEM_BYTES = 200
"""Longer file names are truncated to this when they name the output."""


def add_command(commands: Any) -> None:
    """Adds `express` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "express",
        help="add expression to a MIDI file: velocities, lengths and timing from the model",
        description="Sample velocities, lengths and small timing offsets for the notes of a MIDI file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", help="a MIDI file")
    add("--out", metavar="FOLDER", help="output folder (default: that of the file)")
    add("--num", type=int, default=1, metavar="N", help="number of versions (default: 1)")
    add(
        "--seed",
        type=int,
        metavar="N",
        help="random seed; the same seed gives the same result (default: random)",
    )
    add("--temperature", type=float, default=1.0, metavar="T", help="lower is more even (default: 1)")
    add("--top-p", type=float, default=0.95, metavar="P", help="nucleus sampling probability (default: 0.95)")
    add(
        "--timing",
        type=float,
        default=25.0,
        metavar="MS",
        help="maximum shift of an onset in milliseconds, in steps of the model's grid (default: 25)",
    )
    add("--keep-lengths", action="store_true", help="keep the written note lengths")
    add("--model", metavar="MODEL", help=MODEL_HELP)
    parser.set_defaults(run=run, anywhere=True)


def run(workspace: Workspace | None, options: argparse.Namespace, _rest: list[str]) -> int:
    """Writes the files and prints a summary."""
    if "numpy" not in sys.modules:  # it chooses its kernels while it is imported
        from coma_gen.core.seeding import pin_cpu

        pin_cpu(pin=True, threads=1)

    from coma_gen.core.free_names import move_files
    from coma_gen.core.io import check_file
    from coma_gen.generation.express import express_midi
    from coma_gen.generation.music_generator import MusicGenerator
    from coma_gen.generation.touch import TouchRequest
    from coma_gen.midi.io import read_bytes
    from coma_gen.model.device import deterministic
    from coma_gen.tracking.model_store import named_model

    seed = secrets.randbelow(SEEDS) if options.seed is None else options.seed
    given = (options.num, options.temperature, options.top_p, options.timing, options.keep_lengths)
    request = TouchRequest(seed, *given)
    if faults := request.faults():
        raise UserError(*(replace(each, where=f"--{each.where.replace('_', '-')}") for each in faults))
    source = Path(options.file)
    folder = Path(options.out) if options.out else source.parent
    if folder.exists() and not folder.is_dir():
        raise UserError(Fault("--out", "must be a folder", f"{folder}, which is a file"))
    check_file(source, options.file)
    content = read_bytes(source, options.file)
    with named_model(options.model, workspace) as model:
        options.model = name_of_model(options.model, model)
        print(f"model: {options.model or 'data/model'}")
        composer = MusicGenerator.load(model)
    with deterministic(1):
        touches = express_midi(composer, content, name=options.file, request=request)
    folder.mkdir(parents=True, exist_ok=True)
    for played in touches:
        with tempfile.TemporaryDirectory(prefix=".express.", dir=folder) as temporary:
            made = Path(temporary) / "piece.mid"
            made.write_bytes(played.midi)
            (written,) = move_files([made], folder, f"{_shorten(source.stem)}-expressed")
        print(f"{written}: {len(played.notes):,} notes")
    if played.unchanged:
        print(f"unchanged: {played.unchanged:,} notes outside of the model's pitch range")
    if played.endless:
        print(f"left out: {played.endless:,} notes without an end")
    print(f"to reproduce {'it' if request.num == 1 else 'them'}: --seed {seed}")
    return 0


def _shorten(stem: str) -> str:
    while len(os.fsencode(stem)) > MAX_STEM_BYTES:
        stem = stem[:-1]
    return stem
