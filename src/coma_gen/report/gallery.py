"""The gallery: each sample as a picture by day and by night, a sound and a MIDI file, all as data URIs.

The same files lie beside the page. Where a sample has a sound, the page's script makes a player of picture
and sound; `Card.roll` tells it where time is in the picture.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coma_gen.audio.synth import write_sound
from coma_gen.core.io import rounded, write_atomic
from coma_gen.report.content import ReportContent, SampleView
from coma_gen.report.layout import layout_of
from coma_gen.report.piano_roll import roll_png
from coma_gen.report.svg import figure
from coma_gen.report.tables import Table, listing
from coma_gen.report.theme import DARK, LIGHT


@dataclass(frozen=True)
class Card:
    """One sample of the gallery, ready to be shown.

    Attributes:
        name: what it is called.
        file: the name of its files, without an ending.
        about: what it is, in a line.
        description: what its picture shows, in words.
        length: of the music, such as "0:38".
        day: the address of the picture in light colors, for the page.
        night: the same in dark ones.
        picture: the address of the picture with its title, to be kept.
        sound: the address of the sound, or None for a page without.
        midi: the address of the MIDI file.
        roll: `RollLayout.shares` of the picture, the seconds of the music, and where the player starts, if
            that is not the beginning.
        settings: how it was sampled.
    """

    name: str
    file: str
    about: str
    description: str
    length: str
    day: str
    night: str
    picture: str
    sound: str | None
    midi: str
    roll: Mapping[str, float]
    settings: Table | None


def render_sample(folder: Path, content: ReportContent, sample: SampleView, file: str) -> Card:
    """Renders one sample: its files into the folder, the same for the page."""
    notes, prompt = sample.notes, sample.prompt_seconds
    origin = "from nothing" if prompt is None else f"continues {figure(prompt, 3)} s"
    origin += f" of {sample.source}" if sample.source else ""
    length = f"{round(notes.end) // 60}:{round(notes.end) % 60:02d}"
    end = f" · {len(notes):,} notes · {length}" + (" · synthetic corpus" if content.is_synthetic else "")
    about = origin + end
    picture = roll_png(notes, title=sample.name, prompt_seconds=prompt, detail=(origin, end))
    day, night = (roll_png(notes, title=None, prompt_seconds=prompt, theme=theme) for theme in (LIGHT, DARK))
    layout = layout_of(notes, prompt_seconds=prompt, heading=False)
    write_atomic(folder / f"{file}.png", picture)
    write_atomic(folder / f"{file}.mid", sample.midi)
    sound = None
    if content.audio:
        write_sound(folder / f"{file}.flac", notes)
        sound = data_uri("audio/flac", (folder / f"{file}.flac").read_bytes())
    return Card(
        name=sample.name,
        file=file,
        about=about,
        description=f"Piano roll of {sample.name}: {about}",
        length=length,
        day=data_uri("image/png", day),
        night=data_uri("image/png", night),
        picture=data_uri("image/png", picture),
        sound=sound,
        midi=data_uri("audio/midi", sample.midi),
        roll=rounded({"seconds": notes.end, **layout.shares()}),
        settings=listing(f"How {sample.name} was sampled", ("setting", "value"), sample.settings),
    )


def data_uri(kind: str, data: bytes) -> str:
    """Content as an address of its own, such as image/png."""
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
