"""Renders audio with FluidSynth and a SoundFont: all instruments of a file, including drums.

The level of FluidSynth depends on the SoundFont, so it is adjusted to that of the built-in piano. No stage
uses this module, because the pipeline's outputs must not depend on installed programs.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from coma_gen.audio import synth
from coma_gen.audio.level import MAX_GAIN, Pcm, amplify, measure_level
from coma_gen.audio.synth import sound_blocks
from coma_gen.audio.writers import write_blocks
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import check_file
from coma_gen.midi.playback import read_sounding_notes

SAMPLE_RATE = 44_100
FRAMES = 65_536
"""Samples per block."""
BYTES_PER_FRAME = 4
PROGRAM = "fluidsynth"


def check_soundfont(soundfont: Path) -> str:
    """Checks that a SoundFont can be played here, and returns FluidSynth's path.

    Raises:
        UserError: FluidSynth is not installed, or the file is not a SoundFont.
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
    """Renders a MIDI file to a sound file, in blocks, atomically, at the level of the built-in piano.

    A file without notes for the piano (drums only) keeps FluidSynth's level.

    Raises:
        UserError: See `check_soundfont`; also if FluidSynth fails or the format of the sound file is unknown.
    """
    program = check_soundfont(soundfont)
    with tempfile.TemporaryDirectory(prefix="coma-gen-") as folder:
        source = Path(folder) / "music.mid"
        source.write_bytes(midi)
        raw = Path(folder) / "raw"
        quiet = ["-q", "-n", "-i", "-T", "raw", "-O", "s16", "-E", "little", "-r", str(SAMPLE_RATE)]
        _run_fluidsynth([program, *quiet, "-F", "-", str(soundfont.resolve()), str(source)], raw)
        level = measure_level(_read_blocks(raw), SAMPLE_RATE)
        target = measure_level(sound_blocks(read_sounding_notes(midi, name=path.name)), synth.SAMPLE_RATE)
        gain = min(MAX_GAIN, target / level) if level and target else 1.0
        write_blocks(path, amplify(_read_blocks(raw), gain), sample_rate=SAMPLE_RATE, channels=2)


def _run_fluidsynth(command: list[str], raw: Path) -> None:
    """Runs FluidSynth, which writes raw samples to its standard output.

    Raises:
        UserError: FluidSynth fails.
    """
    with raw.open("wb") as sound:
        done = subprocess.run(
            command, stdout=sound, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False
        )
    errors = [line for line in done.stderr.decode(errors="replace").splitlines() if "error" in line]
    if done.returncode or errors:  # its exit status is 0, with silent output, if it cannot read the SoundFont
        got = errors[0] if errors else f"exit status {done.returncode}"
        raise UserError(Fault("--soundfont", f"{PROGRAM} must be able to play it", got))


def _read_blocks(raw: Path) -> Iterator[Pcm]:
    """Reads FluidSynth's output in blocks of (n, 2) samples."""
    with raw.open("rb") as sound:
        while block := sound.read(FRAMES * BYTES_PER_FRAME):
            whole = len(block) // BYTES_PER_FRAME * BYTES_PER_FRAME
            yield np.frombuffer(block[:whole], "<i2").astype(np.int16).reshape(-1, 2)
