"""`coma-gen generate`: music from a trained model, from nothing or going on where a MIDI file ends."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coma_gen.audio.writers import AUDIO_WRITERS
from coma_gen.cli.piece_settings import option_of, piece_settings
from coma_gen.core.errors import Fault, UserError
from coma_gen.workspace.paths import Workspace
from coma_gen.workspace.pretrained import MODEL_HELP, name_of_model

if TYPE_CHECKING:
    from coma_gen.generation.generate import Continuation
    from coma_gen.generation.music_generator import MusicGenerator
    from coma_gen.generation.request import Request
    from coma_gen.midi.prompt import Prompt

EXAMPLES = """examples:
  coma-gen generate my.mid                           30 s more of my.mid, other music each time
  coma-gen generate my.mid --from 1:30               go on from there instead of from its end
  coma-gen generate my.mid --num 4 --only-new        four ways to go on, without what is there already
  coma-gen generate my.mid --seconds 60 --seed 7     a minute; the same seed gives the same music again
  coma-gen generate my.mid --instrument violin       the new notes on another instrument (General MIDI)
  coma-gen generate my.mid --audio mp3               another kind of sound file
  coma-gen generate my.mid --temperature 0.9 --top-p 0.9
                                                     more predictable; above 1 is less so
  coma-gen generate                                  from nothing, by the model that `dvc repro` trained
  coma-gen generate --model models:/coma-gen@champion
                                                     the best model in MLflow's registry

Each piece comes as MIDI, picture and sound, with a page to hear them (index.html) and settings.json, which
says how to repeat them: the same command with the same seed gives the same bytes. The prompt's tracks, drums,
tempi and bars stay as they are in its file. Nothing is overwritten: a second try takes the next free name.
"""
LONGEST_STEM = 200
"""Bytes of the prompt's name that pieces are named by."""
SEEDS = 1_000_000
"""A seed that nobody gave is one of so many: short enough to be typed."""


def add_command(commands: Any) -> None:
    """Adds `generate` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "generate",
        help="make music: from nothing, or going on with your MIDI file",
        description="Makes music with a trained model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("prompt", nargs="?", metavar="FILE", help="a MIDI file to go on with; without it, music from nothing")
    add("--prompt", dest="named_prompt", metavar="FILE", help="the same by name, as earlier commands have it")
    add(
        "--from",
        dest="until_second",
        type=_seconds,
        metavar="TIME",
        help="go on from this time of the file, such as 1:30 or 90 (default: its end)",
    )
    add("--from-second", type=float, metavar="S", help="the prompt begins at this second of the file")
    add(
        "--prompt-seconds",
        type=float,
        metavar="S",
        help="it lasts so long, from its first note; with --from, so long before that (default: all)",
    )
    add("--only-new", action="store_true", help="leave the prompt out of MIDI, picture and sound")
    add(
        "--instrument",
        metavar="NAME",
        help="that plays the new notes: a General MIDI program, by name or from 0 (default: the prompt's)",
    )
    add("--seconds", type=float, metavar="S", help="of new music (default: 30, without --tokens)")
    add("--tokens", type=int, metavar="N", help="at most so many new tokens a piece")
    add("--num", type=int, metavar="N", help="how many pieces (default: 1)")
    add("--best-of", type=int, metavar="N", help="draw N, and keep the --num that are most like the prompt")
    add("--seed", type=int, metavar="N", help="the same seed, the same music (default: another each time)")
    add("--temperature", type=float, metavar="T", help="lower is more predictable, higher less (default: 1)")
    add("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens (default: all)")
    add("--top-p", type=float, metavar="P", help="from the likeliest that make up this share (default: 0.85)")
    add("--min-p", type=float, metavar="P", help="from those at least P times as likely as the likeliest")
    add(
        "--truncate",
        metavar="TYPES",
        help="tokens that these three cut, such as pitch,position (default: pitch)",
    )
    add(
        "--max-empty-bars", type=int, metavar="N", help="bars of 2 s without an event, in a row (default: 20)"
    )
    add("--max-rewinds", type=int, metavar="N", help="go back so often where a piece is stuck (default: 4)")
    add("--density", type=float, metavar="X", help="more notes a second (above 0) or fewer (below): -3 to 3")
    add("--loudness", type=float, metavar="X", help="louder or softer notes: -3 to 3")
    add("--register", type=float, metavar="X", help="higher or lower notes: -3 to 3")
    add("--polyphony", type=float, metavar="X", help="more notes at once or fewer: -3 to 3")
    add("--target", metavar="VALUES", help="such as density=5,loudness=60; needs a model with conditions")
    add("--no-follow", dest="follow", action="store_const", const=False, help="need not be like FILE")
    add("--key", metavar="KEY", help='mostly notes of it: such as "C major", "f# minor", or prompt')
    add("--model", metavar="MODEL", help=MODEL_HELP)
    add("--out", metavar="FOLDER", help="a new folder (default: generated/<prompt>, or the next free name)")
    add("--force", action="store_true", help="replace pieces that were generated there before")
    add("--audio", choices=(*AUDIO_WRITERS, "none"), default="flac", help="kind of sound (default: flac)")
    add("--device", choices=("cpu", "cuda", "mps", "auto"), default="cpu", help="(default: cpu)")
    add("--threads", type=int, default=1, metavar="N", help="of the CPU; results depend on it (default: 1)")
    parser.set_defaults(run=run, anywhere=True)


def run(workspace: Workspace | None, options: argparse.Namespace, _rest: list[str]) -> int:
    """Generates, writes and tells what came out."""
    if "numpy" not in sys.modules:  # it chooses its kernels while it is imported
        from coma_gen.core.seeding import pin_cpu

        pin_cpu(pin=True, threads=max(1, options.threads))

    from coma_gen.report.export import check_destination
    from coma_gen.tracking.model_store import named_model

    if options.named_prompt is not None:
        if options.prompt is not None:
            raise UserError(Fault("--prompt", "must not be given beside another file", options.named_prompt))
        options.prompt = options.named_prompt
    request = requested(options)
    out = _folder(options)
    check_destination(out, replace=options.force)
    prompt = _prompt(options, request, open_pedal=False)  # first, as a model takes seconds to load
    with named_model(options.model, workspace) as folder:
        options.model = name_of_model(options.model, folder)
        print(f"model: {options.model or 'data/model'}")
        from coma_gen.generation.music_generator import MusicGenerator

        composer = MusicGenerator.load(folder, device=options.device)
    if composer.writes_pedal:
        prompt = _prompt(options, request, open_pedal=True)
    return _written(out, options, request, composer, prompt, _pieces(composer, prompt, options, request))


def requested(options: argparse.Namespace) -> Request:
    """What the options ask for.

    Raises:
        UserError: one fault for each option that is out of range.
    """
    from coma_gen.generation.request import PROMPT_SETTINGS, Request
    from coma_gen.generation.settings import read_instrument

    given = {name: getattr(options, name) for name in Request.__dataclass_fields__}
    if options.seed is None:
        given["seed"] = secrets.randbelow(SEEDS)
    faults = []
    if options.instrument is not None:
        given["instrument"] = read_instrument(options.instrument)
        if isinstance(given["instrument"], Fault):
            faults.append(replace(given["instrument"], where="--instrument"))
            given["instrument"] = None
    request = Request.of(given)
    faults += [replace(fault, where=option_of(fault.where)) for fault in request.faults()]
    if not 1 <= options.threads <= 1024:
        faults.append(Fault("--threads", "must be 1 to 1024", str(options.threads)))
    if options.prompt is None:
        faults += [Fault(option_of(name), "is for a prompt only") for name in PROMPT_SETTINGS if given[name]]
    if faults:
        raise UserError(*faults)
    return request


def _seconds(text: str) -> float:
    """A time such as 90, 1:30 or 1:02:03.5 in seconds."""
    seconds = 0.0
    for index, part in enumerate(text.split(":")):
        if not re.fullmatch(r"\d+(\.\d*)?", part) or (index and float(part) >= 60):
            raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 1:30 or 90")
        seconds = 60 * seconds + float(part)
    return seconds


def _stem(options: argparse.Namespace) -> str:
    """What pieces are named by: the prompt's name, in plain characters."""
    name = "" if options.prompt is None else Path(options.prompt).stem
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    while len(os.fsencode(stem)) > LONGEST_STEM:
        stem = stem[:-1]
    return stem or "from-nothing"


def _folder(options: argparse.Namespace) -> Path:
    """Where to write, or beside it.

    Raises:
        UserError: it has no name.
    """
    if options.out is None:
        return Path("generated") / _stem(options)
    out = Path(options.out)
    if out.name in ("", ".."):
        raise UserError(Fault("--out", "must name a new folder", options.out or "nothing"))
    return out


def _prompt(options: argparse.Namespace, request: Request, *, open_pedal: bool) -> Prompt | None:
    from coma_gen.core.io import check_file
    from coma_gen.midi.prompt import read_prompt

    if options.prompt is None:
        return None
    path, until = Path(options.prompt), request.until_second
    check_file(path, options.prompt)
    if until is not None and until > (end := read_prompt(path, name=options.prompt).notes.end):
        raise UserError(Fault("--from", "must be before the file's end", f"{until:g} s of {end:.1f} s"))
    return read_prompt(path, name=options.prompt, open_pedal=open_pedal, **request.passage)


def _pieces(
    composer: MusicGenerator, prompt: Prompt | None, options: argparse.Namespace, request: Request
) -> list[Continuation]:
    from coma_gen.generation.generate import generate_request
    from coma_gen.model.device import deterministic

    with deterministic(options.threads):
        return generate_request(composer, prompt, request)


def _written(
    out: Path,
    options: argparse.Namespace,
    request: Request,
    composer: MusicGenerator,
    prompt: Prompt | None,
    pieces: list[Continuation],
) -> int:
    from coma_gen.core.io import shown_name
    from coma_gen.generation.generate import piece_midi
    from coma_gen.report.export import PieceStyle, write_pieces

    source = None if options.prompt is None else shown_name(Path(options.prompt))
    style = PieceStyle(
        stem="piece" if source is None else f"{_stem(options)}-continued",
        title=f"{source}, continued" if source else "Music from nothing",
        audio=None if options.audio == "none" else options.audio,
        only_new=request.only_new,
    )
    folder, described = write_pieces(
        out,
        pieces,
        [piece_midi(piece, prompt, request) for piece in pieces],
        style=style,
        settings=piece_settings(options, request, composer, prompt),
        replace=options.force,
    )
    for line in _told(folder, composer, prompt, request, described):
        print(line)
    return 0


def _told(
    folder: Path,
    composer: MusicGenerator,
    prompt: Prompt | None,
    request: Request,
    described: list[dict[str, Any]],
) -> list[str]:
    """What came out, and what was left out on the way, as lines."""
    from coma_gen.midi.instruments import INSTRUMENTS
    from coma_gen.report.export import SETTINGS
    from coma_gen.report.page import PAGE

    lines = _told_of_prompt(composer, prompt) if prompt is not None else []
    for piece in described:
        minutes, seconds = divmod(round(piece["seconds"]), 60)
        line = f"{folder / piece['files'][0]}: {piece['new_notes']:,} new notes, {minutes}:{seconds:02d}"
        out_of = piece["left_out"]
        lines.append(line + (f" ({out_of} left out: the prompt still holds their key)" if out_of else ""))
    if request.instrument is not None:
        lines.append(f"the new notes are played by {INSTRUMENTS[request.instrument]}")
    lines.append(f"to hear and see them: {folder / PAGE}")
    lines.append(f"--seed {request.seed} makes them again, as {folder / SETTINGS} says")
    return lines


def _told_of_prompt(composer: MusicGenerator, prompt: Prompt) -> list[str]:
    """What the model heard of the prompt, and what not."""
    vocabulary = composer.tokenizer.vocabulary
    low, high = vocabulary.pitch_range
    outside = vocabulary.count_outside(prompt.notes.pitch)
    lines = [f"prompt: {len(prompt.notes):,} notes, {prompt.notes.end:.1f} s"]
    if prompt.drum_notes:
        lines.append(f"  not heard by the model: {prompt.drum_notes:,} notes of drums (they stay there)")
    if outside:
        lines.append(f"  not heard by the model: {outside:,} notes outside of pitch {low} to {high}")
    if prompt.endless_notes:
        lines.append(f"  left out: {prompt.endless_notes:,} notes without an end")
    return lines
