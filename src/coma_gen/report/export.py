"""Generated pieces as a folder for people: each as MIDI, picture and sound, a page that plays them, and the
settings that repeat them.

The folder is complete or absent, and takes the first free name. One that is there already is replaced only
when asked for, and only when it holds nothing but what was written here before: nobody's own files go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from coma_gen.audio.synth import write_sound
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.free_names import free_folder
from coma_gen.core.io import atomic_dir, read_json, rounded, write_atomic
from coma_gen.midi.notes import Notes
from coma_gen.midi.playback import read_sounding_notes
from coma_gen.report.page import PAGE
from coma_gen.report.piano_roll import write_roll
from coma_gen.report.pieces_page import PieceView, write_pieces_page

if TYPE_CHECKING:
    from coma_gen.generation.generate import Continuation

SETTINGS = "settings.json"


@dataclass(frozen=True)
class PieceStyle:
    """How pieces are written.

    Attributes:
        stem: what the names of their files begin with; a number follows.
        title: of the page and the pictures.
        audio: ending of the sound files, such as "flac", or None for no sound.
        only_new: whether the prompt is left out of picture and sound, as it is of the MIDI files.
    """

    stem: str
    title: str
    audio: str | None = "flac"
    only_new: bool = False


def check_destination(folder: Path, *, replace: bool) -> None:
    """Refuses a folder that must not be written.

    Args:
        folder: where the pieces are to be, or beside it, where it is taken.
        replace: whether pieces that were written there before must go.

    Raises:
        UserError: it is a file, is in one, or holds something else and was to be replaced.
    """
    if not folder.exists():
        above = next(parent for parent in folder.absolute().parents if parent.exists())
        if not above.is_dir():
            raise UserError(Fault(str(folder), "must be in a folder", f"{above}, which is a file"))
        return
    if not folder.is_dir():
        raise UserError(Fault(str(folder), "must be a folder to write", "a file", "name another one"))
    if not replace:
        return
    present = {path.name for path in folder.iterdir()}
    ours = _ours(folder / SETTINGS) if SETTINGS in present else set()
    if present - ours:
        strange = sorted(present - ours)[0]
        rule = "must hold nothing but generated pieces, to be replaced"
        raise UserError(Fault(str(folder), rule, f"{strange} in it", "leave --force out for a new folder"))


def _ours(path: Path) -> set[str]:
    """The files of a folder that were written here, by what its settings say; none where they are others."""
    content = read_json(path)
    if not isinstance(content, dict) or not {"command", "pieces"} <= set(content):
        return set()
    pieces = content["pieces"] if isinstance(content["pieces"], list) else []
    files = [name for piece in pieces if isinstance(piece, dict) for name in piece.get("files", [])]
    return {SETTINGS, PAGE, *map(str, files)}


def write_pieces(
    folder: Path,
    pieces: Sequence[Continuation],
    midi: Sequence[bytes],
    *,
    style: PieceStyle,
    settings: Mapping[str, Any],
    replace: bool = False,
    play: Callable[[Path, bytes], None] | None = None,
) -> tuple[Path, list[dict[str, Any]]]:
    """Writes each piece as MIDI, picture and sound, `settings.json` and `index.html`.

    Args:
        folder: as `check_destination` accepts it.
        pieces: the music.
        midi: each piece as a MIDI file.
        style: how they are written.
        settings: plain data that repeats the pieces, with their `command`.
        replace: whether they take the place of what is there; otherwise they take the first free name.
        play: writes the sound of a MIDI file; the built-in piano does by default.

    Returns:
        The folder, and what each piece is: its files, and figures.
    """
    described, views = [], []
    with _destination(folder, replace) as paths:
        building = paths[0]
        numbered = list(enumerate(zip(pieces, midi, strict=True), start=1))
        for number, (piece, content) in tqdm(numbered, desc="pictures, sound", disable=None):
            title = f"{style.title} ({number} of {len(pieces)})" if len(pieces) > 1 else style.title
            view = _view(piece, title, f"{style.stem}-{number:02d}", style)
            files = view.files
            write_atomic(building / files["midi"], content)
            picture = building / files["picture"]
            write_roll(picture, view.notes, title=title, prompt_seconds=view.prompt_seconds)
            sounding = read_sounding_notes(content, name=files["midi"])
            if sound := files.get("sound"):
                if play is None:
                    write_sound(building / sound, sounding)
                else:
                    play(building / sound, content)
            described.append({"files": list(files.values()), **_figures(piece, sounding)})
            views.append(view)
        write_pieces_page(building, views, title=style.title, command=settings["command"])
        text = json.dumps({**settings, "pieces": described}, indent=2, ensure_ascii=False, allow_nan=False)
        write_atomic(building / SETTINGS, text + "\n")
    return paths[-1], described


@contextmanager
def _destination(folder: Path, replace: bool) -> Iterator[list[Path]]:
    """As `free_folder`; or `folder` itself, whatever is there."""
    if not replace:
        with free_folder(folder) as paths:
            yield paths
        return
    with atomic_dir(folder) as building:
        paths = [building]
        yield paths
    paths.append(folder)


def _view(piece: Continuation, title: str, stem: str, style: PieceStyle) -> PieceView:
    files = {"midi": f"{stem}.mid", "picture": f"{stem}.png"}
    if style.audio is not None:
        files["sound"] = f"{stem}.{style.audio}"
    return PieceView(
        title=title,
        notes=piece.new if style.only_new else piece.notes,
        prompt_seconds=None if style.only_new else piece.prompt_end,
        new_notes=len(piece.added),
        files=files,
    )


def _figures(piece: Continuation, sounding: Notes) -> dict[str, Any]:
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
            "splice_seconds": piece.prompt_end,
            "seconds": sounding.end,
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
