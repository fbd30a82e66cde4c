"""Renders pieces as audio, and packs them as ZIP files."""

from __future__ import annotations

import base64
import binascii
import io
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coma_gen.audio.synth import SAMPLE_RATE, Pcm, sound_blocks
from coma_gen.audio.writers import write_blocks
from coma_gen.core.errors import Fault, UserError
from coma_gen.midi.io import read_notes
from coma_gen.midi.notes import Notes
from coma_gen.midi.playback import read_sounding_notes
from coma_gen.play.jobs import Event, Report, Work
from coma_gen.report.gallery import file_names
from coma_gen.serving.schema import Limits

KINDS = {"flac": "audio/flac", "wav": "audio/wav"}
MAX_SOUND_SECONDS = 1800.0
"""Maximum length of a sound, since it is held in memory."""


@dataclass(frozen=True)
class Excerpt:
    """Part of a MIDI file to render as audio.

    Attributes:
        name: File name.
        midi: Content of the MIDI file.
        start: Notes that begin before this second are omitted.
        end: Notes that begin at or after this second are omitted.
        kind: Audio format, one of `KINDS`.
    """

    name: str
    midi: bytes
    start: float = 0.0
    end: float = float("inf")
    kind: str = "flac"

    def notes(self) -> Notes:
        """Reads the notes of the excerpt, shifted to start at 0 s.

        Raises:
            UserError: If it is not a MIDI file, or too long.
        """
        all_notes = read_sounding_notes(self.midi, name=self.name)
        notes = all_notes.between(self.start, self.end).shifted(-self.start)
        if notes.end > MAX_SOUND_SECONDS:
            rule = f"must last at most {MAX_SOUND_SECONDS:,.0f} s to be played here"
            remedy = "save its MIDI file and run `coma-gen render` on it"
            raise UserError(Fault(self.name, rule, f"{notes.end:,.0f}", remedy))
        return notes


def parse_sound(body: Mapping[str, Any], limits: Limits) -> Excerpt:
    """Parses a request {midi, name, from, to, kind}.

    Raises:
        UserError: If a value is invalid.
    """
    name = _parse_name(body.get("name"))
    start, end = body.get("from") or 0.0, body.get("to")
    times = [start, *([] if end is None else [end])]
    if not all(isinstance(time, int | float) and 0 <= time < 1e6 for time in times):
        raise UserError(Fault("from, to", "must be seconds of the file"))
    kind = body.get("kind") or "flac"
    if kind not in KINDS:
        raise UserError(Fault("kind", f"must be one of {', '.join(KINDS)}"))
    end = float("inf") if end is None else float(end)
    return Excerpt(name, _parse_midi(body.get("midi"), name, limits), float(start), end, kind)


def sound_of(excerpt: Excerpt) -> Work:
    """Creates a job that renders an excerpt and returns {"type", "content"}."""

    def work(report: Report) -> Event:
        return {"type": KINDS[excerpt.kind], "content": _render(excerpt, report)}

    return work


def _render(excerpt: Excerpt, report: Report) -> bytes:
    def blocks() -> Iterator[Pcm]:
        for block in sound_blocks(excerpt.notes()):
            report({})
            yield block

    with tempfile.TemporaryDirectory(prefix="coma-gen-play-") as folder:
        path = Path(folder) / f"sound.{excerpt.kind}"
        write_blocks(path, blocks(), sample_rate=SAMPLE_RATE, channels=2)
        return path.read_bytes()


@dataclass(frozen=True)
class Archive:
    """The content of a ZIP file.

    Attributes:
        pieces: The pieces.
        prompt_ends: Time of the splice of each piece; None for unprompted music.
        command: Command that reproduces the pieces.
    """

    pieces: Sequence[Excerpt]
    prompt_ends: Sequence[float | None]
    command: str


def parse_archive(body: Mapping[str, Any], limits: Limits) -> Archive:
    """Parses a request {pieces: [{midi, name, splice}], command}.

    Raises:
        UserError: If a value is invalid.
    """
    rows, command = body.get("pieces"), body.get("command") or ""
    if not isinstance(rows, list) or not 1 <= len(rows) <= limits.max_pieces:
        raise UserError(Fault("pieces", f"must be a list of 1 to {limits.max_pieces}"))
    if not all(isinstance(row, dict) for row in rows) or not isinstance(command, str):
        raise UserError(Fault("pieces, command", "must be objects with midi, name and splice; and a text"))
    prompt_ends = [row.get("splice") for row in rows]
    if not all(end is None or (isinstance(end, int | float) and 0 <= end < 1e6) for end in prompt_ends):
        raise UserError(Fault("splice", "must be a second of the piece"))
    return Archive([parse_sound(row, limits) for row in rows], prompt_ends, command[:10_000])


def archive_of(archive: Archive) -> Work:
    """Creates a job that packs MIDI, piano roll and audio of all pieces and returns {"type", "content"}."""

    def work(report: Report) -> Event:
        from coma_gen.report.piano_roll import roll_png  # imports matplotlib

        buffer = io.BytesIO()
        stems = file_names([re.sub(r"\.midi?$", "", piece.name, flags=re.I) for piece in archive.pieces])
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            for piece, prompt_end, stem in zip(archive.pieces, archive.prompt_ends, stems, strict=True):
                report({})
                notes = read_notes(piece.midi, name=piece.name)
                _store(file, f"{stem}.mid", piece.midi)
                _store(file, f"{stem}.png", roll_png(notes, title=stem, prompt_seconds=prompt_end))
                _store(file, f"{stem}.flac", _render(piece, report))
            _store(file, "command.txt", archive.command.encode(errors="backslashreplace") + b"\n")
        return {"type": "application/zip", "content": buffer.getvalue()}

    return work


def _store(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Adds a file without a timestamp, so that the same pieces give the same bytes."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_STORED if name.endswith((".flac", ".png")) else zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    file.writestr(entry, content)


def _parse_name(value: object) -> str:
    if value is not None and not (isinstance(value, str) and len(value) <= 120):
        raise UserError(Fault("name", "must be a text of at most 120 characters"))
    return value or "the piece"


def _parse_midi(text: object, name: str, limits: Limits) -> bytes:
    rule = "must be a MIDI file as base64 text"
    if not isinstance(text, str) or len(text) > limits.max_body_bytes:
        raise UserError(Fault(name, rule))
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UserError(Fault(name, rule, "other text")) from None
