"""Sound by FluidSynth and a SoundFont, where the machine has them: every instrument of a file, drums too.

It is as loud as the built-in piano would be: the level of FluidSynth depends on the SoundFont. No stage uses
it: what the pipeline writes must not depend on what a machine has installed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from coma_gen.audio import synth
from coma_gen.audio.level import LOUDEST_GAIN, Pcm, amplified, level_of
from coma_gen.audio.synth import sound_blocks
from coma_gen.audio.writers import write_blocks
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import check_file
from coma_gen.midi.playback import read_sounding_notes

SAMPLE_RATE = 44_100
FRAMES = 65_536
"""Samples that are passed on at a time."""
BYTES_PER_FRAME = 4
PROGRAM = "fluidsynth"


def check_soundfont(soundfont: Path) -> str:
    """Proves that a SoundFont can be played here; returns FluidSynth's path.

    Raises:
        UserError: there is no FluidSynth, or the file is no SoundFont.
    """
    check_file(soundfont)
    faults = []
    try:
        with soundfont.open("rb") as file:
            head = file.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"sfbk":
            faults.append(Fault(str(soundfont), "must be a SoundFont 2 file (.sf2)", "something else"))
    except OSError as error:
        faults.append(
            Fault(str(soundfont), "must be a readable SoundFont file", error.strerror or str(error))
        )
    program = shutil.which(PROGRAM)
    if program is None:
        remedy = "install it (`apt install fluidsynth`), or leave --soundfont out for the built-in piano"
        faults.append(Fault("--soundfont", "needs FluidSynth", f"no {PROGRAM} on this machine", remedy))
    if faults or program is None:
        raise UserError(*faults)
    return program


def write_soundfont_sound(path: Path, midi: bytes, soundfont: Path) -> None:
    """Writes a MIDI file as sound, in blocks, atomically, as loud as the built-in piano plays it. What the
    piano does not play (drums alone) is as loud as FluidSynth makes it.

    Raises:
        UserError: as `check_soundfont`; FluidSynth fails; the file's name ends in something else.
    """
    program = check_soundfont(soundfont)
    with tempfile.TemporaryDirectory(prefix="coma-gen-") as folder:
        source = Path(folder) / "music.mid"
        source.write_bytes(midi)
        played = Path(folder) / "played"
        quiet = ["-q", "-n", "-i", "-T", "raw", "-O", "s16", "-E", "little", "-r", str(SAMPLE_RATE)]
        _play([program, *quiet, "-F", "-", str(soundfont.resolve()), str(source)], played)
        level = level_of(_blocks(played), SAMPLE_RATE)
        wanted = level_of(sound_blocks(read_sounding_notes(midi, name=path.name)), synth.SAMPLE_RATE)
        gain = min(LOUDEST_GAIN, wanted / level) if level and wanted else 1.0
        write_blocks(path, amplified(_blocks(played), gain), sample_rate=SAMPLE_RATE, channels=2)


def _play(command: list[str], played: Path) -> None:
    """Lets FluidSynth write raw samples.

    Raises:
        UserError: it fails.
    """
    with played.open("wb") as sound:
        done = subprocess.run(
            command, stdout=sound, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False
        )
    errors = [line for line in done.stderr.decode(errors="replace").splitlines() if "error" in line]
    if done.returncode or errors:  # it ends well, with silence, where it could not read the SoundFont
        got = errors[0] if errors else f"exit status {done.returncode}"
        raise UserError(Fault("--soundfont", f"{PROGRAM} must be able to play it", got))


def _blocks(played: Path) -> Iterator[Pcm]:
    """What FluidSynth wrote: (n, 2) samples at a time."""
    with played.open("rb") as sound:
        while block := sound.read(FRAMES * BYTES_PER_FRAME):
            whole = len(block) // BYTES_PER_FRAME * BYTES_PER_FRAME
            yield np.frombuffer(block[:whole], "<i2").astype(np.int16).reshape(-1, 2)
