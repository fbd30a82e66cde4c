"""The page beside generated pieces: each with its picture and a player that starts shortly before the splice.

The page holds no sounds: they, the pictures and the MIDI files are those that lie beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from coma_gen.core.io import rounded, write_atomic
from coma_gen.midi.notes import Notes
from coma_gen.report.gallery import Card, data_uri
from coma_gen.report.layout import layout_of
from coma_gen.report.page import PAGE, STYLE, render_page
from coma_gen.report.piano_roll import roll_png
from coma_gen.report.theme import DARK

LEAD_IN_SECONDS = 5.0
"""Seconds of the prompt that a player begins with."""


@dataclass(frozen=True)
class PieceView:
    """One piece whose files lie beside the page.

    Attributes:
        title: of its picture.
        notes: what the picture shows.
        prompt_seconds: the splice; None where the piece has none.
        new_notes: how many.
        files: by kind: midi, picture, and sound where there is one.
    """

    title: str
    notes: Notes
    prompt_seconds: float | None
    new_notes: int
    files: Mapping[str, str]


def write_pieces_page(folder: Path, pieces: Sequence[PieceView], *, title: str, command: str) -> None:
    """Writes index.html into the folder of the pieces.

    Args:
        folder: where their files are.
        pieces: in the order of the page.
        title: the heading.
        command: what makes the pieces again.
    """
    has_prompt = any(piece.prompt_seconds is not None for piece in pieces)
    lead = "Blue is the prompt, vermilion is what the model made" if has_prompt else "Made by the model"
    cards = [_card(piece) for piece in pieces]
    page = render_page(
        "pieces.html.j2",
        sheets=(STYLE,),
        has_script=any(card.sound for card in cards),
        title=title,
        lead=f"{lead}; the darker a note, the louder.",
        command=command,
        cards=cards,
    )
    write_atomic(folder / PAGE, page)


def _card(piece: PieceView) -> Card:
    notes, prompt_end = piece.notes, piece.prompt_seconds
    length = f"{round(notes.end) // 60}:{round(notes.end) % 60:02d}"
    about = f"{piece.new_notes:,} new notes · {length}"
    night = roll_png(notes, title=piece.title, prompt_seconds=prompt_end, theme=DARK)
    start = max(0.0, prompt_end - LEAD_IN_SECONDS) if prompt_end is not None else 0.0
    links = {kind: quote(name) for kind, name in piece.files.items()}
    stem = piece.files["midi"].removesuffix(".mid")
    return Card(
        name=stem,
        file=stem,
        about=about,
        description=f"Piano roll of {stem}: {about}",
        length=length,
        day=links["picture"],
        night=data_uri("image/png", night),
        picture=links["picture"],
        sound=links.get("sound"),
        midi=links["midi"],
        roll=rounded(
            {
                "seconds": notes.end,
                "start": start,
                **layout_of(notes, prompt_seconds=prompt_end, heading=True).shares(),
            }
        ),
        settings=None,
    )
