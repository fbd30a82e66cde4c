"""Exports generated pieces to a folder: MIDI, piano roll and audio of each, a page that plays them, and the
settings that reproduce them.

The folder is written atomically under the first free name. An existing folder is replaced only on request,
and only if it contains nothing but an earlier export, so that no user's file is ever deleted.
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
    from coma_gen.generation.continuation import Continuation

SETTINGS = "settings.json"


@dataclass(frozen=True)
class PieceStyle:
    """How pieces are exported.

    Attributes:
        stem: Prefix of the file names, followed by a number.
        title: Title of the page and the piano rolls.
        audio: Extension of the audio files, such as "flac", or None for no audio.
        only_new: Whether the prompt is omitted from piano roll and audio, as it is from the MIDI files.
    """

    stem: str
    title: str
    audio: str | None = "flac"
    only_new: bool = False


def check_destination(folder: Path, *, replace: bool) -> None:
    """Checks that a folder may be written.

    Args:
        folder: The destination; if it exists and `replace` is false, a free name beside it is used.
        replace: Whether to replace an earlier export.

    Raises:
        UserError: If the path is a file or inside one, or if a folder to replace contains other files.
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
    exported = _list_exported(folder / SETTINGS) if SETTINGS in present else set()
    if present - exported:
        other = sorted(present - exported)[0]
        rule = "must contain nothing but generated pieces to be replaced"
        raise UserError(Fault(str(folder), rule, f"{other} in it", "omit --force to write a new folder"))


def _list_exported(path: Path) -> set[str]:
    """Lists the files of an earlier export by its settings file; empty if that is not ours."""
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
    """Writes MIDI, piano roll and audio of each piece, `settings.json` and `index.html`.

    Args:
        folder: Destination accepted by `check_destination`.
        pieces: The music.
        midi: The MIDI file of each piece.
        style: How to export the pieces.
        settings: JSON-compatible settings that reproduce the pieces, including their `command`.
        replace: Whether to replace an existing folder; otherwise the first free name is used.
        play: Renders a MIDI file to an audio file; the built-in piano by default.

    Returns:
        The folder, and the files and figures of each piece.
    """
    described, views = [], []
    with _open_destination(folder, replace) as paths:
        building = paths[0]
        numbered = list(enumerate(zip(pieces, midi, strict=True), start=1))
        for number, (piece, content) in tqdm(numbered, desc="pictures, sound", disable=None):
            title = f"{style.title} ({number} of {len(pieces)})" if len(pieces) > 1 else style.title
            view = _make_view(piece, title, f"{style.stem}-{number:02d}", style)
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
            described.append({"files": list(files.values()), **_measure(piece, sounding)})
            views.append(view)
        write_pieces_page(building, views, title=style.title, command=settings["command"])
        text = json.dumps({**settings, "pieces": described}, indent=2, ensure_ascii=False, allow_nan=False)
        write_atomic(building / SETTINGS, text + "\n")
    return paths[-1], described


@contextmanager
def _open_destination(folder: Path, replace: bool) -> Iterator[list[Path]]:
    """Like `free_folder`, but replaces `folder` itself if `replace` is true."""
    if not replace:
        with free_folder(folder) as paths:
            yield paths
        return
    with atomic_dir(folder) as building:
        paths = [building]
        yield paths
    paths.append(folder)


def _make_view(piece: Continuation, title: str, stem: str, style: PieceStyle) -> PieceView:
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


def _measure(piece: Continuation, sounding: Notes) -> dict[str, Any]:
    figures: dict[str, Any] = rounded(
        {
            "prompt_notes": 0 if piece.prompt is None else len(piece.prompt),
            "new_notes": len(piece.added),
            "left_out": piece.left_out,
            "tokens": piece.tokens,
            "rewinds": piece.rewinds,
            "tokens_redrawn": piece.redrawn,
            **({} if piece.draw is None else _describe_draw(piece)),
            "reached_its_seconds": piece.reached,
            "splice_seconds": piece.prompt_end,
            "seconds": sounding.end,
        }
    )
    return figures


def _describe_draw(piece: Continuation) -> dict[str, Any]:
    """The index and distance of a draw selected for closeness to the prompt, and the tokens of all draws."""
    distance = piece.distance if piece.distance is not None and isfinite(piece.distance) else None
    return {
        "draw": piece.draw,
        "distance_from_prompt": distance,
        "tokens_of_all_draws": piece.tokens_of_all_draws,
    }
