"""The sample gallery: for each sample a piano roll (light and dark theme), audio and MIDI, as data URIs.

The same files are saved beside the page. For samples with audio, the page's script turns the piano roll into
a player; `Card.roll` maps time to positions in the image.
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
from coma_gen.report.layout import compute_layout
from coma_gen.report.piano_roll import roll_png
from coma_gen.report.svg import figure
from coma_gen.report.tables import Table, list_values
from coma_gen.report.theme import DARK, LIGHT


@dataclass(frozen=True)
class Card:
    """One sample of the gallery, ready for the template.

    Attributes:
        name: Sample name shown as the heading.
        file: Name of the sample's files, without extension.
        about: One-line summary.
        description: Text alternative of the piano roll.
        length: Length of the music, such as "0:38".
        light: URL of the piano roll in the light theme.
        dark: URL of the piano roll in the dark theme.
        picture: URL of the piano roll with its title, for download.
        sound: URL of the sound, or None for a page without audio.
        midi: URL of the MIDI file.
        roll: `RollLayout.shares` of the piano roll, the length in `seconds`, and optionally the `start` time
            of the player.
        settings: Sampling settings, or None.
    """

    name: str
    file: str
    about: str
    description: str
    length: str
    light: str
    dark: str
    picture: str
    sound: str | None
    midi: str
    roll: Mapping[str, float]
    settings: Table | None


def render_sample(folder: Path, content: ReportContent, sample: SampleView, file: str) -> Card:
    """Writes the files of one sample into the folder and returns its card for the page."""
    notes, prompt = sample.notes, sample.prompt_seconds
    origin = "unprompted" if prompt is None else f"continues {figure(prompt, 3)} s"
    origin += f" of {sample.source}" if sample.source else ""
    length = f"{round(notes.end) // 60}:{round(notes.end) % 60:02d}"
    end = f" · {len(notes):,} notes · {length}" + (" · synthetic corpus" if content.is_synthetic else "")
    about = origin + end
    picture = roll_png(notes, title=sample.name, prompt_seconds=prompt, detail=(origin, end))
    light, dark = (roll_png(notes, title=None, prompt_seconds=prompt, theme=theme) for theme in (LIGHT, DARK))
    layout = compute_layout(notes, prompt_seconds=prompt, heading=False)
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
        light=data_uri("image/png", light),
        dark=data_uri("image/png", dark),
        picture=data_uri("image/png", picture),
        sound=sound,
        midi=data_uri("audio/midi", sample.midi),
        roll=rounded({"seconds": notes.end, **layout.shares()}),
        settings=list_values(f"How {sample.name} was sampled", ("setting", "value"), sample.settings),
    )


def data_uri(media_type: str, data: bytes) -> str:
    """Encodes data of a media type, such as image/png, as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def file_names(names: Sequence[str]) -> list[str]:
    """Derives a portable file name (without extension) for each sample, unique even if case is ignored."""
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
