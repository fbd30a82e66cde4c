"""`coma-gen generate`: music from a trained model, from nothing or going on where a MIDI file ends."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.workspace.paths import Workspace

if TYPE_CHECKING:
    from coma_gen.generation.generate import Continuation
    from coma_gen.generation.music_generator import MusicGenerator
    from coma_gen.generation.request import Request
    from coma_gen.midi.prompt import Prompt

EXAMPLES = """examples:
  coma-gen generate                                  30 s from nothing, by the model that `dvc repro` trained
  coma-gen generate --prompt my.mid --seconds 60     a minute more of my.mid
  coma-gen generate --prompt my.mid --num 4 --seed 7 four ways to go on; another seed, other music
  coma-gen generate --prompt my.mid --from-second 30 --prompt-seconds 12
                                                     go on behind a part of it
  coma-gen generate --temperature 0.9 --top-p 0.9    tamer; above 1 is wilder
  coma-gen generate --seconds 600 --out long         ten minutes, into the folder long/
  coma-gen generate --model models:/coma-gen@champion
                                                     the best model in MLflow's registry

Each piece comes as MIDI, picture and sound, with settings.json beside them, which says how to repeat them:
the same command gives the same bytes. The prompt's notes, tempi and bars stay as they are in its file.
"""
LONGEST_STEM = 200
"""Bytes of the prompt's name that a folder of pieces is named by."""
VERSIONS = ("coma-gen", "torch", "numpy", "symusic", "matplotlib", "soundfile")
"""Packages that the bytes depend on."""


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
    add("--prompt", metavar="FILE", help="a MIDI file to go on with; without one, music from nothing")
    add("--from-second", type=float, metavar="S", help="the prompt begins at this second of the file")
    add(
        "--prompt-seconds",
        type=float,
        metavar="S",
        help="it lasts so long, from its first note (default: all)",
    )
    add("--seconds", type=float, metavar="S", help="of new music (default: 30, without --tokens)")
    add("--tokens", type=int, metavar="N", help="at most so many new tokens a piece")
    add("--num", type=int, metavar="N", help="how many pieces (default: 1)")
    add("--best-of", type=int, metavar="N", help="draw N, and keep the --num that are most like the prompt")
    add("--seed", type=int, metavar="N", help="another seed, other music (default: 0)")
    add("--temperature", type=float, metavar="T", help="0 takes the likeliest token (default: 1)")
    add("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens (default: all)")
    add("--top-p", type=float, metavar="P", help="from the likeliest that make up this share (default: 0.8)")
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
    add("--model", metavar="MODEL", help="a folder, or an MLflow URI (default: data/model)")
    add("--out", metavar="FOLDER", help="where to write (default: generated/<prompt>-<seed>)")
    add("--force", action="store_true", help="replace pieces that were generated there before")
    add("--audio", choices=("flac", "wav", "none"), default="flac", help="kind of sound file (default: flac)")
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

    request = requested(options)
    out = _default_folder(options) if options.out is None else Path(options.out)
    check_destination(out, replace=options.force)
    prompt = _prompt(options, request, open_pedal=False)  # first, as a model takes seconds to load
    with named_model(options.model, workspace) as folder:
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
    from coma_gen.generation.request import Request

    given = {name: getattr(options, name) for name in Request.__dataclass_fields__}
    request = Request.of(given)
    faults = [
        Fault(f"--{fault.where.replace('_', '-')}", fault.rule, fault.got, fault.remedy)
        for fault in request.faults()
    ]
    if not 1 <= options.threads <= 1024:
        faults.append(Fault("--threads", "must be 1 to 1024", str(options.threads)))
    if options.prompt is None:
        names = ("--from-second", "--prompt-seconds", "--best-of")
        cuts = [name for name in names if given[name[2:].replace("-", "_")]]
        faults += [Fault(name, "is for --prompt only") for name in cuts]
    if faults:
        raise UserError(*faults)
    return request


def _default_folder(options: argparse.Namespace) -> Path:
    stem = (
        re.sub(r"[^\w.-]+", "-", Path(options.prompt).stem).strip("-.") if options.prompt is not None else ""
    )
    while len(os.fsencode(stem)) > LONGEST_STEM:
        stem = stem[:-1]
    return Path("generated") / f"{stem or 'from-nothing'}-{options.seed or 0}"


def _prompt(options: argparse.Namespace, request: Request, *, open_pedal: bool) -> Prompt | None:
    from coma_gen.core.io import check_file
    from coma_gen.midi.prompt import read_prompt

    if options.prompt is None:
        return None
    check_file(Path(options.prompt), options.prompt)
    cut = {"from_second": request.from_second, "seconds": request.prompt_seconds}
    return read_prompt(Path(options.prompt), name=options.prompt, open_pedal=open_pedal, **cut)


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
    from coma_gen.report.export import write_pieces

    source = None if options.prompt is None else shown_name(Path(options.prompt))
    title = f"{source}, continued" if source else "Music from nothing"
    described = write_pieces(
        out.resolve(),
        pieces,
        [piece_midi(piece, prompt) for piece in pieces],
        title=title,
        audio=None if options.audio == "none" else options.audio,
        settings=_settings(options, request, composer, prompt),
    )
    for line in _told(out, composer, prompt, described):
        print(line)
    return 0


def _settings(
    options: argparse.Namespace, request: Request, composer: MusicGenerator, prompt: Prompt | None
) -> dict[str, Any]:
    """What repeats the pieces: no dates, and no paths of this machine."""
    from coma_gen.core.io import shown_name
    from coma_gen.tracking.model_store import is_uri

    settings = {
        **asdict(request),
        "audio": options.audio,
        "device": options.device,
        "threads": options.threads,
    }
    words = ["coma-gen", "generate"]
    if prompt is not None:
        words += ["--prompt", Path(options.prompt).name]
    if options.model is not None and is_uri(options.model):
        words += ["--model", options.model]
    for name, value in settings.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    manifest = composer.loaded.manifest
    return {
        "command": " ".join(map(_typed, words)),
        "model": {"digest": manifest.digest, "tokenizer": composer.tokenizer.digest},
        "prompt": prompt and {"file": shown_name(Path(options.prompt)), "sha256": prompt.digest},
        "settings": settings,
        "versions": {name: _version(name) for name in VERSIONS},
    }


def _typed(word: str) -> str:
    """A word as one types it in a shell; by its bytes where they are not UTF-8."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        return "$'" + "".join(f"\\x{byte:02x}" for byte in os.fsencode(word)) + "'"
    return shlex.quote(word)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _told(
    out: Path, composer: MusicGenerator, prompt: Prompt | None, described: list[dict[str, Any]]
) -> list[str]:
    """What came out, and what was left out on the way, as lines."""
    lines = []
    if prompt is not None:
        low, high = composer.tokenizer.vocabulary.pitch_range
        outside = composer.tokenizer.vocabulary.count_outside(prompt.notes.pitch)
        lines.append(f"prompt: {len(prompt.notes):,} notes, {prompt.notes.end:.1f} s")
        if prompt.drum_notes:
            lines.append(f"  left out: {prompt.drum_notes:,} notes of drums")
        if prompt.endless_notes:
            lines.append(f"  left out: {prompt.endless_notes:,} notes without an end")
        if outside:
            lines.append(f"  not heard by the model: {outside:,} notes outside of pitch {low} to {high}")
    for piece in described:
        minutes, seconds = divmod(round(piece["seconds"]), 60)
        line = f"{out / piece['files'][0]}: {piece['new_notes']:,} new notes, {minutes}:{seconds:02d}"
        out_of = piece["left_out"]
        lines.append(line + (f" ({out_of} left out: the prompt still holds their key)" if out_of else ""))
    lines.append(f"pictures and sound beside them; {out / 'settings.json'} says how to repeat them")
    return lines
