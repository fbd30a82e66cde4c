"""The model behind the page: reads prompts and continues them.

The pieces are identical to those of `coma-gen generate` with the same settings, to the byte; `command_of`
writes that command.
"""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.generation.continuation import Continuation
from coma_gen.generation.generate import generate_request, piece_midi
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.request import Request
from coma_gen.midi.prompt import Prompt, read_prompt
from coma_gen.model.device import deterministic
from coma_gen.play.jobs import Event, Report, Work
from coma_gen.play.progress import follow, rows
from coma_gen.serving.schema import Limits, ParsedRequest, parse_row

MAX_NAME_LENGTH = 120
SHOWN_WHOLE, SHOWN_BEFORE = 20.0, 10.0
"""Prompts of up to the first number of seconds are shown whole; of longer ones, the last seconds only."""


@dataclass(frozen=True)
class Studio:
    """A model with the settings of the server.

    Attributes:
        composer: The model.
        model: Name of the model as given on the command line; None for the checkout's own.
        limits: Limits of one request.
        threads: CPU threads; results depend on it.
        device: cpu, cuda, mps or auto.
    """

    composer: MusicGenerator
    model: str | None
    limits: Limits
    threads: int = 1
    device: str = "cpu"

    @property
    def facts(self) -> dict[str, Any]:
        """Name, digest, size and conditions of the model."""
        loaded = self.composer.loaded
        return {
            "name": self.model or "data/model",
            "digest": loaded.manifest.digest,
            "parameters": sum(weight.numel() for weight in loaded.model.parameters()),
            "conditions": list(loaded.model.params.conditions),
        }

    def warm_up(self) -> None:
        """Generates a few tokens, so that the first request does not wait for one-time setup."""
        with deterministic(self.threads):
            generate_request(self.composer, None, Request(seconds=0.1, tokens=8), watch=lambda _pieces: None)

    def look(self, row: Mapping[str, Any], name: str) -> Event:
        """Reads the notes of a file, and counts those that the model ignores."""
        parsed = parse_row(row, self.limits, name=name)
        prompt = self._read_prompt(parsed)
        if prompt is None:
            raise UserError(Fault(name, "must be a MIDI file", "nothing"))
        notes = prompt.notes
        return {
            "notes": rows(notes),
            "end": round(notes.end, 4),
            "last": round(notes.end_of_onsets, 4),
            "drums": prompt.drum_notes,
            "endless": prompt.endless_notes,
            "outside": self.composer.tokenizer.vocabulary.count_outside(notes.pitch),
        }

    def work_on(self, row: Mapping[str, Any], name: str) -> Work:
        """Creates the job of a request.

        Raises:
            UserError: If the request is invalid.
        """
        parsed = parse_row(row, self.limits, name=name)

        def work(report: Report) -> Event:
            prompt = self._read_prompt(parsed)
            notes = None if prompt is None else prompt.notes
            prompt_end = 0.0 if notes is None else notes.end_of_onsets
            start = shown_from(prompt_end)
            shown = [] if notes is None else rows(notes.between(start, math.inf).shifted(-start))
            begun = {
                "start": start,
                "splice": None if notes is None else round(prompt_end, 4),
                "notes": shown,
            }
            report({"begun": begun | {"seconds": parsed.request.seconds}})
            report_notes = follow(report, start=start, prompt_end=prompt_end)

            def watch(pieces: Callable[[], Sequence[Continuation]]) -> None:
                report_notes(lambda: [piece.added for piece in pieces()])

            with deterministic(self.threads):
                pieces = generate_request(self.composer, prompt, parsed.request, watch=watch)
            command = command_of(self, parsed, name=name, reached=all(piece.reached for piece in pieces))
            return {
                "pieces": [_finished(piece, prompt, start, parsed.request) for piece in pieces],
                "command": command,
            }

        return work

    def _read_prompt(self, parsed: ParsedRequest) -> Prompt | None:
        if parsed.midi is None:
            return None
        return read_prompt(
            parsed.midi,
            name=parsed.name,
            **parsed.request.passage,
            open_pedal=self.composer.writes_pedal,
        )


def shown_from(prompt_end: float) -> float:
    """The time from which a piece is shown and played, given the end of its prompt."""
    return 0.0 if prompt_end <= SHOWN_WHOLE else float(math.floor(prompt_end - SHOWN_BEFORE))


def parse_body(body: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Splits the body of a request into its row and the name of its file, for error messages."""
    row = dict(body)
    name = row.pop("name", None) or "the prompt"
    if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH:
        raise UserError(Fault("name", f"must be a text of at most {MAX_NAME_LENGTH} characters"))
    return row, name


def _format_option(name: str, value: object) -> list[str]:
    """Formats a setting as an option of `coma-gen generate`."""
    named = {"until_second": "--from", "follow": "--no-follow"}
    option = named.get(name, f"--{name.replace('_', '-')}")
    if isinstance(value, bool):
        return [option]
    if isinstance(value, float) and value == int(value) < 1e6:
        return [option, f"{value:g}"]
    return [option, str(value)]


def command_of(studio: Studio, parsed: ParsedRequest, *, name: str, reached: bool) -> str:
    """Composes the `coma-gen generate` command that reproduces the pieces: the seed and non-default settings.

    Args:
        studio: The model.
        parsed: The request.
        name: File name of the prompt.
        reached: Whether all pieces reached their length; if the token limit ended one, it is included.
    """
    words = ["coma-gen", "generate"]
    if parsed.midi is not None:
        words.append(escape_dash(name))
    plain = Request()
    for field in fields(Request):
        value = getattr(parsed.request, field.name)
        is_default = value is None or value == getattr(plain, field.name)
        if field.name == "tokens":
            is_default = reached and value == studio.limits.max_tokens
        if not is_default or field.name == "seed":
            words += _format_option(field.name, value)
    for option, value, usual in (("device", studio.device, "cpu"), ("threads", studio.threads, 1)):
        if value != usual:
            words += [f"--{option}", str(value)]
    return quote_command(words, studio)


def escape_dash(name: str) -> str:
    """Prefixes a file name that would be parsed as an option."""
    return f"./{name}" if name.startswith("-") else name


def quote_command(words: Sequence[str], studio: Studio) -> str:
    """Quotes a command for the shell, with the model option."""
    model = [] if studio.model is None else ["--model", studio.model]
    return " ".join(map(shlex.quote, [*words, *model]))


def _finished(piece: Continuation, prompt: Prompt | None, start: float, request: Request) -> Event:
    return {
        "midi": base64.b64encode(piece_midi(piece, prompt, request)).decode("ascii"),
        "notes": rows(piece.added.shifted(-start)),
        "left_out": piece.left_out,
        "seconds": round(piece.notes.end, 2),
        "reached": piece.reached,
    }
