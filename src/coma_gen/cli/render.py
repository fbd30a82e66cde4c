"""`coma-gen render`: render a MIDI file as piano roll and audio."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from coma_gen.audio.writers import AUDIO_WRITERS
from coma_gen.core.errors import Fault, UserError
from coma_gen.workspace.paths import Workspace

EXAMPLES = """examples:
  coma-gen render my.mid                       write my.png and my.flac beside it
  coma-gen render my.mid --out pictures        write to the folder pictures/
  coma-gen render my.mid --audio none          piano roll only
  coma-gen render my.mid --soundfont piano.sf2 play all instruments with FluidSynth

Without a SoundFont, a built-in piano plays all notes except drums, with the sustain pedal; the same file
gives the same bytes on every machine.
"""


def add_command(commands: Any) -> None:
    """Adds `render` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "render",
        help="render a MIDI file as piano roll and audio",
        description="Render a MIDI file as piano roll and audio.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", help="a MIDI file")
    parser.add_argument("--out", metavar="FOLDER", help="output folder (default: that of the file)")
    parser.add_argument("--soundfont", metavar="FILE", help="play with FluidSynth and this .sf2 file")
    parser.add_argument("--audio", choices=(*AUDIO_WRITERS, "none"), default="flac", help="(default: flac)")
    parser.add_argument(
        "--force", action="store_true", help="replace existing files (default: use the next free name)"
    )
    parser.set_defaults(run=run, anywhere=True)


def run(_workspace: Workspace | None, options: argparse.Namespace, _rest: list[str]) -> int:
    """Writes the piano roll and the audio: both, or neither."""
    from coma_gen.audio.soundfont import check_soundfont, write_soundfont_sound
    from coma_gen.audio.synth import write_sound
    from coma_gen.core.free_names import move_files
    from coma_gen.core.io import check_file, shown_name
    from coma_gen.midi.io import notes_of, read_bytes, read_song
    from coma_gen.midi.playback import read_sounding_notes
    from coma_gen.midi.song import describe_missing_notes
    from coma_gen.report.piano_roll import write_roll

    source = Path(options.file)
    check_file(source, options.file)
    content = read_bytes(source, options.file)
    song = read_song(content, name=options.file)
    notes = notes_of(song)
    if not len(notes) and not options.soundfont:
        raise UserError(
            Fault(options.file, "must have notes that are not drums", describe_missing_notes(song))
        )
    soundfont = Path(options.soundfont) if options.soundfont else None
    if soundfont is not None:
        if options.audio == "none":
            raise UserError(Fault("--soundfont", "must not be combined with --audio none"))
        check_soundfont(soundfont)
    targets = _choose_targets(source, options)
    folder = targets[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".render.", dir=folder) as temporary:
        made = [Path(temporary) / target.name for target in targets]
        write_roll(made[0], notes, title=shown_name(source))
        for sound in made[1:]:
            if soundfont is None:
                write_sound(sound, read_sounding_notes(content, name=options.file))
            else:
                write_soundfont_sound(sound, content, soundfont)
        if options.force:
            for finished, target in zip(made, targets, strict=True):
                finished.replace(target)
        else:
            targets = move_files(made, folder, source.stem)
    for target in targets:
        print(target)
    return 0


def _choose_targets(source: Path, options: argparse.Namespace) -> list[Path]:
    """The preferred paths of the piano roll and, if requested, the audio.

    Raises:
        UserError: If a name is too long, or if a path to replace is a folder.
    """
    from coma_gen.core.free_names import MAX_NAME_BYTES
    from coma_gen.core.io import shown_name

    folder = Path(options.out) if options.out else source.parent
    if folder.exists() and not folder.is_dir():
        raise UserError(Fault("--out", "must be a folder", f"{folder}, which is a file"))
    endings = [".png"] + ([f".{options.audio}"] if options.audio != "none" else [])
    targets = [folder / f"{source.stem}{ending}" for ending in endings]
    long = [target for target in targets if len(os.fsencode(target.name)) > MAX_NAME_BYTES]
    if long:
        rule = f"must be short enough for the names of the output files ({MAX_NAME_BYTES} bytes at most)"
        got = f"{shown_name(source)}, which gives a name of {len(os.fsencode(long[0].name))} bytes"
        raise UserError(Fault("the file's name", rule, got, "give it a shorter one"))
    folders = [target for target in targets if options.force and target.is_dir()]
    if folders:
        raise UserError(*(Fault(str(target), "must not be a folder") for target in folders))
    return targets
