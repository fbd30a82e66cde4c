"""`coma-gen express`: a stiff MIDI file, as notation programs write them, played with a touch."""

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
  coma-gen express my.mid                      my-expressed.mid beside it; another touch each time
  coma-gen express my.mid --seed 7             the same seed gives the same touch again
  coma-gen express my.mid --num 4              four touches to choose from
  coma-gen express my.mid --temperature 0.7    more even
  coma-gen express my.mid --timing 0           every onset stays where it is
  coma-gen express my.mid --keep-lengths       notes last as they are written

The model draws how hard and how long each note is played, and whether it comes a little early or late. Every
pitch stays, and so do pedals, drums, tempi and texts. Nothing is overwritten: a second try takes the next
free name.
"""
SEEDS = 1_000_000
"""A seed that nobody gave is one of so many: short enough to be typed."""
LONGEST_STEM = 200
"""Bytes of the file's name that the new one begins with."""


def add_command(commands: Any) -> None:
    """Adds `express` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "express",
        help="play a stiff MIDI file with a touch: velocities, lengths and timing by the model",
        description="Draws velocities, lengths and small delays for the notes of a MIDI file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", help="a MIDI file")
    add("--out", metavar="FOLDER", help="where to write (default: beside the file)")
    add("--num", type=int, default=1, metavar="N", help="how many touches (default: 1)")
    add("--seed", type=int, metavar="N", help="the same seed, the same touch (default: another each time)")
    add("--temperature", type=float, default=1.0, metavar="T", help="lower is more even (default: 1)")
    add("--top-p", type=float, default=0.95, metavar="P", help="as for generate (default: 0.95)")
    add(
        "--timing",
        type=float,
        default=25.0,
        metavar="MS",
        help="an onset moves by at most so many milliseconds, in steps of the model's grid (default: 25)",
    )
    add("--keep-lengths", action="store_true", help="notes last as written; the rest is drawn")
    add("--model", metavar="MODEL", help=MODEL_HELP)
    parser.set_defaults(run=run, anywhere=True)


def run(workspace: Workspace | None, options: argparse.Namespace, _rest: list[str]) -> int:
    """Writes the file and tells what stayed as it was."""
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
            (written,) = move_files([made], folder, f"{_short(source.stem)}-expressed")
        print(f"{written}: {len(played.notes):,} notes")
    if played.unheard:
        print(f"as it was: {played.unheard:,} notes of pitches that the model does not know")
    if played.endless:
        print(f"left out: {played.endless:,} notes without an end")
    print(f"--seed {seed} makes {'it' if request.num == 1 else 'them'} again")
    return 0


def _short(stem: str) -> str:
    while len(os.fsencode(stem)) > LONGEST_STEM:
        stem = stem[:-1]
    return stem
