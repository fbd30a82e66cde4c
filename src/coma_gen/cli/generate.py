"""`coma-gen generate`: continue a MIDI file with a trained model, or generate music without a prompt."""

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
    from coma_gen.generation.continuation import Continuation
    from coma_gen.generation.music_generator import MusicGenerator
    from coma_gen.generation.request import Request
    from coma_gen.midi.prompt import Prompt

EXAMPLES = """examples:
  coma-gen generate my.mid                           continue my.mid by 30 s, with a random seed
  coma-gen generate my.mid --from 1:30               continue from 1:30 instead of from the end
  coma-gen generate my.mid --num 4 --only-new        four continuations, without the prompt
  coma-gen generate my.mid --seconds 60 --seed 7     one minute; the same seed gives the same music
  coma-gen generate my.mid --instrument violin       play the new notes on another General MIDI instrument
  coma-gen generate my.mid --audio mp3               another audio format
  coma-gen generate my.mid --temperature 0.9 --top-p 0.9
                                                     more predictable music
  coma-gen generate                                  no prompt; the model that `dvc repro` trained
  coma-gen generate --model models:/coma-gen@champion
                                                     the best model in MLflow's registry

Each piece is written as MIDI, piano roll and audio, with a page to listen to them (index.html) and
settings.json, which records how to reproduce them: the same command and seed give the same bytes. The tracks,
drums, tempi and bars of the prompt are preserved. Existing files are not overwritten: the next free name is
used.
"""
MAX_STEM_BYTES = 200
"""Longer prompt names are truncated to this when they name the output."""
SEEDS = 1_000_000
"""Random seeds are below this, so that they are short to type."""


def add_command(commands: Any) -> None:
    """Adds `generate` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "generate",
        help="continue a MIDI file, or generate music without a prompt",
        description="Generate music with a trained model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("prompt", nargs="?", metavar="FILE", help="MIDI file to continue (default: start without a prompt)")
    add("--prompt", dest="named_prompt", metavar="FILE", help="same as FILE (deprecated)")
    add(
        "--from",
        dest="until_second",
        type=_parse_seconds,
        metavar="TIME",
        help="continue from this time of the file, such as 1:30 or 90 (default: its end)",
    )
    add("--from-second", type=float, metavar="S", help="start of the prompt in seconds of the file")
    add(
        "--prompt-seconds",
        type=float,
        metavar="S",
        help="length of the prompt from its first note, or before --from (default: all)",
    )
    add("--only-new", action="store_true", help="omit the prompt from MIDI, piano roll and audio")
    add(
        "--instrument",
        metavar="NAME",
        help="General MIDI instrument of the new notes, by name or number from 0 (default: the prompt's)",
    )
    add("--seconds", type=float, metavar="S", help="seconds of new music (default: 30; none with --tokens)")
    add("--tokens", type=int, metavar="N", help="maximum number of new tokens per piece")
    add("--num", type=int, metavar="N", help="number of pieces (default: 1)")
    add("--best-of", type=int, metavar="N", help="generate N and keep the --num most similar to the prompt")
    add("--seed", type=int, metavar="N", help="the same seed gives the same music (default: random)")
    add("--temperature", type=float, metavar="T", help="0 to 5; lower is more predictable (default: 1)")
    add("--top-k", type=int, metavar="K", help="sample from the K most likely tokens (default: all)")
    add("--top-p", type=float, metavar="P", help="nucleus sampling: cumulative probability (default: 0.85)")
    add("--min-p", type=float, metavar="P", help="minimum probability relative to the most likely token")
    add(
        "--truncate",
        metavar="TYPES",
        help="token types that top-k, top-p and min-p apply to, such as pitch,position (default: pitch)",
    )
    add("--max-empty-bars", type=int, metavar="N", help="maximum consecutive empty bars of 2 s (default: 20)")
    add("--max-rewinds", type=int, metavar="N", help="how often to backtrack when stuck (default: 4)")
    add("--density", type=float, metavar="X", help="more (> 0) or fewer (< 0) notes per second: -3 to 3")
    add("--loudness", type=float, metavar="X", help="louder or softer notes: -3 to 3")
    add("--register", type=float, metavar="X", help="higher or lower notes: -3 to 3")
    add("--polyphony", type=float, metavar="X", help="more or fewer simultaneous notes: -3 to 3")
    add("--target", metavar="VALUES", help="such as density=5,loudness=60; needs a model with conditions")
    add("--no-follow", dest="follow", action="store_const", const=False, help="ignore FILE's conditions")
    add("--key", metavar="KEY", help='prefer notes of a key: "C major", "f# minor", or prompt')
    add("--model", metavar="MODEL", help=MODEL_HELP)
    add("--out", metavar="FOLDER", help="output folder (default: generated/<prompt>, or the next free name)")
    add("--force", action="store_true", help="replace pieces that were generated there before")
    add("--audio", choices=(*AUDIO_WRITERS, "none"), default="flac", help="audio format (default: flac)")
    add("--device", choices=("cpu", "cuda", "mps", "auto"), default="cpu", help="(default: cpu)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads; results depend on it (default: 1)")
    parser.set_defaults(run=run, anywhere=True)


def run(workspace: Workspace | None, options: argparse.Namespace, _rest: list[str]) -> int:
    """Generates the pieces, writes them and prints a summary."""
    if "numpy" not in sys.modules:  # it chooses its kernels while it is imported
        from coma_gen.core.seeding import pin_cpu

        pin_cpu(pin=True, threads=max(1, options.threads))

    from coma_gen.report.export import check_destination
    from coma_gen.tracking.model_store import named_model

    if options.named_prompt is not None:
        if options.prompt is not None:
            raise UserError(Fault("--prompt", "must not be given beside another file", options.named_prompt))
        options.prompt = options.named_prompt
    request = parse_request(options)
    out = _choose_folder(options)
    check_destination(out, replace=options.force)
    prompt = _read_prompt(options, request, open_pedal=False)  # before the model, which takes seconds to load
    with named_model(options.model, workspace) as folder:
        options.model = name_of_model(options.model, folder)
        print(f"model: {options.model or 'data/model'}")
        from coma_gen.generation.music_generator import MusicGenerator

        composer = MusicGenerator.load(folder, device=options.device)
    if composer.writes_pedal:
        prompt = _read_prompt(options, request, open_pedal=True)
    pieces = _generate(composer, prompt, options, request)
    return _write(out, options, request, composer, prompt, pieces)


def parse_request(options: argparse.Namespace) -> Request:
    """Builds the request from the options.

    Raises:
        UserError: With one fault for each option that is out of range.
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


def _parse_seconds(text: str) -> float:
    """Parses a time such as 90, 1:30 or 1:02:03.5 to seconds."""
    seconds = 0.0
    for index, part in enumerate(text.split(":")):
        if not re.fullmatch(r"\d+(\.\d*)?", part) or (index and float(part) >= 60):
            raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 1:30 or 90")
        seconds = 60 * seconds + float(part)
    return seconds


def _get_stem(options: argparse.Namespace) -> str:
    """The base name of the output: the prompt's name in portable characters."""
    name = "" if options.prompt is None else Path(options.prompt).stem
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    while len(os.fsencode(stem)) > MAX_STEM_BYTES:
        stem = stem[:-1]
    return stem or "from-nothing"


def _choose_folder(options: argparse.Namespace) -> Path:
    """The requested output folder; a free name beside it is used if it exists.

    Raises:
        UserError: If `--out` has no name.
    """
    if options.out is None:
        return Path("generated") / _get_stem(options)
    out = Path(options.out)
    if out.name in ("", ".."):
        raise UserError(Fault("--out", "must name a new folder", options.out or "nothing"))
    return out


def _read_prompt(options: argparse.Namespace, request: Request, *, open_pedal: bool) -> Prompt | None:
    from coma_gen.core.io import check_file
    from coma_gen.midi.prompt import read_prompt

    if options.prompt is None:
        return None
    path, until = Path(options.prompt), request.until_second
    check_file(path, options.prompt)
    if until is not None and until > (end := read_prompt(path, name=options.prompt).notes.end):
        raise UserError(Fault("--from", "must be before the file's end", f"{until:g} s of {end:.1f} s"))
    return read_prompt(path, name=options.prompt, open_pedal=open_pedal, **request.passage)


def _generate(
    composer: MusicGenerator, prompt: Prompt | None, options: argparse.Namespace, request: Request
) -> list[Continuation]:
    from coma_gen.generation.generate import generate_request
    from coma_gen.model.device import deterministic

    with deterministic(options.threads):
        return generate_request(composer, prompt, request)


def _write(
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
        stem="piece" if source is None else f"{_get_stem(options)}-continued",
        title=f"{source}, continued" if source else "Unprompted music",
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
    for line in _summarize(folder, composer, prompt, request, described):
        print(line)
    return 0


def _summarize(
    folder: Path,
    composer: MusicGenerator,
    prompt: Prompt | None,
    request: Request,
    described: list[dict[str, Any]],
) -> list[str]:
    """Summarizes the pieces and the notes that were dropped, as lines."""
    from coma_gen.midi.instruments import INSTRUMENTS
    from coma_gen.report.export import SETTINGS
    from coma_gen.report.page import PAGE

    lines = _summarize_prompt(composer, prompt) if prompt is not None else []
    for piece in described:
        minutes, seconds = divmod(round(piece["seconds"]), 60)
        line = f"{folder / piece['files'][0]}: {piece['new_notes']:,} new notes, {minutes}:{seconds:02d}"
        dropped = piece["left_out"]
        lines.append(line + (f" ({dropped} left out: the prompt still holds their key)" if dropped else ""))
    if request.instrument is not None:
        lines.append(f"the new notes are played by {INSTRUMENTS[request.instrument]}")
    lines.append(f"to hear and see them: {folder / PAGE}")
    lines.append(f"to reproduce them: --seed {request.seed} (all settings: {folder / SETTINGS})")
    return lines


def _summarize_prompt(composer: MusicGenerator, prompt: Prompt) -> list[str]:
    """Summarizes the prompt and the notes of it that the model does not see."""
    vocabulary = composer.tokenizer.vocabulary
    low, high = vocabulary.pitch_range
    outside = vocabulary.count_outside(prompt.notes.pitch)
    lines = [f"prompt: {len(prompt.notes):,} notes, {prompt.notes.end:.1f} s"]
    if prompt.drum_notes:
        lines.append(f"  ignored by the model: {prompt.drum_notes:,} notes of drums (they stay in the file)")
    if outside:
        lines.append(f"  ignored by the model: {outside:,} notes outside of pitch {low} to {high}")
    if prompt.endless_notes:
        lines.append(f"  left out: {prompt.endless_notes:,} notes without an end")
    return lines
