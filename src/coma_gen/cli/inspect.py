"""`coma-gen inspect`: show a MIDI file as the tokenizer sees it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.workspace.paths import Workspace

if TYPE_CHECKING:
    from coma_gen.tokenizer.remi import Tokenizer

EXAMPLES = """examples:
  coma-gen inspect my.mid                 tracks, tempi, tokens, and the loss of tokenization
  coma-gen inspect my.mid --tokens 100    print more tokens
  coma-gen inspect my.mid --json          print JSON

Uses the tokenizer of data/model or data/tokenizer, or else the one that params.yaml defines, unless --model
is given.
"""
MAX_TOKENS = 1_000_000


def add_command(commands: Any) -> None:
    """Adds `inspect` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "inspect",
        help="show a MIDI file as the tokenizer sees it",
        description="Show a MIDI file as the tokenizer sees it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", help="a MIDI file")
    parser.add_argument(
        "--model", metavar="FOLDER", help="folder of a model or a tokenizer (default: see below)"
    )
    parser.add_argument("--tokens", type=int, default=24, metavar="N", help="tokens to print (default: 24)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, anywhere=True)


def run(workspace: Workspace | None, options: argparse.Namespace, _rest: list[str]) -> int:
    """Prints the facts."""
    from coma_gen.core.io import check_file, rounded
    from coma_gen.midi.io import read_bytes

    if not 0 <= options.tokens <= MAX_TOKENS:
        raise UserError(Fault("--tokens", f"must be 0 to {MAX_TOKENS:,}", str(options.tokens)))
    check_file(Path(options.file), options.file)
    content = read_bytes(Path(options.file), options.file)
    tokenizer = _load_tokenizer(options.model, workspace)

    from coma_gen.tokenizer.inspect import inspect_tokens

    facts = rounded(inspect_tokens(content, tokenizer, name=options.file, shown=options.tokens))
    if options.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_format_lines(options.file, facts)))
    return 0


def _load_tokenizer(named: str | None, workspace: Workspace | None) -> Tokenizer:
    """Loads the tokenizer.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    from coma_gen.tokenizer.remi import Tokenizer

    if named is not None:
        folder = Path(named)
        return Tokenizer.load(folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder)
    if workspace is None:
        remedy = "give a model folder with --model, or change to the folder that you cloned coma-gen into"
        raise UserError(Fault("--model", "must be given outside of a coma-gen checkout", "none", remedy))
    for folder in (workspace.data("model") / "tokenizer", workspace.data("tokenizer")):
        if folder.is_dir():
            return Tokenizer.load(folder)

    from coma_gen.config.load import load_params

    return Tokenizer.build(load_params(workspace.params).tokenizer.model_copy(update={"vocab_size": None}))


def _format_lines(name: str, facts: dict[str, Any]) -> Iterator[str]:
    """Formats the facts as a plain-text table."""
    of_file = facts["file"]
    yield f"{name}: {facts['summary']}\n"
    yield f"MIDI of format {of_file['format']}, {of_file['ticks_per_quarter']} ticks per quarter note"
    yield "\n  track                          channel  program  instrument              notes"
    for track in of_file["tracks"]:
        left_out = "  not read" if track["instrument"] == "drums" else ""
        port = f"  port {track['port']}" if track["port"] else ""
        yield (
            f"  {_strip_controls(track['name'])[:30]:<30} {track['channel']:>7}  {track['program']:>7}  "
            f"{track['instrument']:<20} {track['notes']:>8,}{left_out}{port}"
        )
    tempo = of_file["tempo_bpm"]
    span = f", {tempo['lowest']:g} to {tempo['highest']:g} in {tempo['changes']} changes"
    yield f"\n  {'tempo':<36} {tempo['first']:g} per minute{span if tempo['changes'] else ''}"
    yield f"  {'time signatures':<36} {', '.join(of_file['time_signatures']) or '4/4 (none written)'}"
    for section in ("music", "tokens", "lost"):
        yield f"\n{section}"
        yield from (f"  {label:<36} {value}" for label, value in _flatten(facts[section]))
    if facts["first_tokens"]:
        yield "\nfirst tokens"
        yield from (f"  {number:>4}  {token}" for number, token in enumerate(facts["first_tokens"]))


def _flatten(section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (label, value) for each fact of a section."""
    for key, value in section.items():
        label = key.replace("_", " ")
        if isinstance(value, dict):
            yield label, ", ".join(f"{part} {_format_value(number)}" for part, number in value.items())
        else:
            yield label, _format_value(value)


def _strip_controls(text: str) -> str:
    """Replaces unprintable characters of untrusted text, which could control the terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _format_value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_format_value(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
