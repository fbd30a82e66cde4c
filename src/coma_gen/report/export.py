"""Generated pieces as a folder for people: each as MIDI, picture and sound, and the settings that repeat it.

The folder is complete or absent. One that is there already is replaced only when asked for, and only when it
holds nothing but what was written here before: nobody's own files go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from coma_gen.audio.synth import write_sound
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import atomic_dir, read_json, rounded, write_atomic
from coma_gen.midi.notes import Notes
from coma_gen.midi.playback import read_sounding_notes
from coma_gen.report.piano_roll import write_roll

if TYPE_CHECKING:
    from coma_gen.generation.generate import Continuation

SETTINGS = "settings.json"


def check_destination(folder: Path, *, replace: bool) -> None:
    """Refuses a folder that must not be written.

    Args:
        folder: where the pieces are to be.
        replace: whether pieces that were written there before may go.

    Raises:
        UserError: it is there and may not be replaced, or holds something else.
    """
    if not folder.exists():
        above = next(parent for parent in folder.absolute().parents if parent.exists())
        if not above.is_dir():
            raise UserError(Fault(str(folder), "must be in a folder", f"{above}, which is a file"))
        return
    if not folder.is_dir():
        raise UserError(Fault(str(folder), "must be a folder to write", "a file", "name another one"))
    present = {path.name for path in folder.iterdir()}
    ours = _ours(folder / SETTINGS) if SETTINGS in present else set()
    if present - ours:
        strange = sorted(present - ours)[0]
        rule = "must be a new folder, or hold nothing but generated pieces"
        raise UserError(Fault(str(folder), rule, f"{strange} in it", "name another one with --out"))
    if present and not replace:
        remedy = "name another one with --out, or replace them with --force"
        raise UserError(Fault(str(folder), "must be a new folder", "one with generated pieces", remedy))


def _ours(path: Path) -> set[str]:
    """The files of a folder that were written here, by what its settings say; none where they are others."""
    content = read_json(path)
    if not isinstance(content, dict) or not {"command", "pieces"} <= set(content):
        return set()
    pieces = content["pieces"] if isinstance(content["pieces"], list) else []
    files = [name for piece in pieces if isinstance(piece, dict) for name in piece.get("files", [])]
    return {SETTINGS, *map(str, files)}


def write_pieces(
    folder: Path,
    pieces: Sequence[Continuation],
    midi: Sequence[bytes],
    *,
    title: str,
    audio: str | None,
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Writes piece-01.mid, piece-01.png, piece-01.flac and so on, and `settings.json`.

    Args:
        folder: as `check_destination` accepts it.
        pieces: the music.
        midi: each piece as a MIDI file.
        title: of the pictures.
        audio: "flac", "wav", or None for no sound.
        settings: plain data that repeats the pieces.

    Returns:
        What each piece is: its files, and figures.
    """
    described = []
    with atomic_dir(folder) as building:
        progress = tqdm(
            zip(pieces, midi, strict=True), total=len(pieces), desc="pictures, sound", disable=None
        )
        for number, (piece, content) in enumerate(progress, start=1):
            name = f"piece-{number:02d}"
            files = [f"{name}.mid", f"{name}.png", *([f"{name}.{audio}"] if audio else [])]
            write_atomic(building / files[0], content)
            heading = f"{title} ({number} of {len(pieces)})" if len(pieces) > 1 else title
            write_roll(building / files[1], piece.notes, title=heading, prompt_seconds=piece.prompt_end)
            heard = read_sounding_notes(content, name=files[0])
            if audio:
                write_sound(building / files[2], heard)
            described.append({"files": files, **_figures(piece, heard)})
        content_of = {**settings, "pieces": described}
        text = json.dumps(content_of, indent=2, ensure_ascii=False, allow_nan=False)
        write_atomic(building / SETTINGS, text + "\n")
    return described


def _figures(piece: Continuation, heard: Notes) -> dict[str, Any]:
    given = 0 if piece.prompt is None else len(piece.prompt)
    figures: dict[str, Any] = rounded(
        {
            "prompt_notes": given,
            "new_notes": len(piece.added),
            "left_out": piece.left_out,
            "tokens": piece.tokens,
            "rewinds": piece.rewinds,
            "tokens_redrawn": piece.redrawn,
            **({} if piece.draw is None else _ranked(piece)),
            "reached_its_seconds": piece.reached,
            "joint_seconds": piece.prompt_end,
            "seconds": heard.end,
        }
    )
    return figures


def _ranked(piece: Continuation) -> dict[str, Any]:
    """Which draw a piece is, where the nearest to the prompt were kept, and what all of them cost."""
    distance = piece.distance if piece.distance is not None and isfinite(piece.distance) else None
    return {
        "draw": piece.draw,
        "distance_from_prompt": distance,
        "tokens_of_all_draws": piece.tokens_of_all_draws,
    }
