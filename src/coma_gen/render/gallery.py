"""The gallery: each sample as a picture by day and by night, a sound and a MIDI file, all as data URIs."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coma_gen.files import write_atomic
from coma_gen.render.content import ReportContent, SampleView
from coma_gen.render.roll import roll_png
from coma_gen.render.sound import write_sound
from coma_gen.render.svg import figure
from coma_gen.render.tables import Table, listing
from coma_gen.render.theme import DARK, LIGHT


@dataclass(frozen=True)
class Card:
    """One sample of the gallery, ready to be shown."""

    name: str
    file: str
    about: str
    description: str
    day: str
    night: str
    sound: str | None
    midi: str
    settings: Table | None


def render_sample(folder: Path, content: ReportContent, sample: SampleView, file: str) -> Card:
    """Renders one sample: its files into the folder, the same for the page."""
    notes, prompt = sample.notes, sample.prompt_seconds
    origin = "from nothing" if prompt is None else f"continues {figure(prompt, 3)} s"
    origin += f" of {sample.source}" if sample.source else ""
    length = f"{round(notes.end) // 60}:{round(notes.end) % 60:02d}"
    about = f"{origin} · {len(notes):,} notes · {length}" + (
        " · synthetic corpus" if content.is_synthetic else ""
    )
    write_atomic(
        folder / f"{file}.png", roll_png(notes, title=sample.name, prompt_seconds=prompt, detail=about)
    )
    day, night = (roll_png(notes, title=None, prompt_seconds=prompt, theme=theme) for theme in (LIGHT, DARK))
    sound = None
    if content.audio:
        write_sound(folder / f"{file}.flac", notes)
        sound = _data_uri("audio/flac", (folder / f"{file}.flac").read_bytes())
    return Card(
        name=sample.name,
        file=file,
        about=about,
        description=f"Piano roll of {sample.name}: {about}",
        day=_data_uri("image/png", day),
        night=_data_uri("image/png", night),
        sound=sound,
        midi=_data_uri("audio/midi", sample.midi),
        settings=listing(f"How {sample.name} was sampled", ("setting", "value"), sample.settings),
    )


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def file_names(names: Sequence[str]) -> list[str]:
    """A file name, without its ending, for each sample: plain characters, no two alike on any file system."""
    taken: set[str] = set()
    files = []
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "sample"
        file, number = stem, 1
        while file.casefold() in taken:
            number += 1
            file = f"{stem}-{number}"
        taken.add(file.casefold())
        files.append(file)
    return files
