"""Sound by FluidSynth and a SoundFont, where the machine has them: every instrument of a file, drums too.

No stage uses it: what the pipeline writes must not depend on what a machine has installed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from coma_gen.audio.synth import Pcm
from coma_gen.audio.writers import write_blocks
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import check_file

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
    """Writes a MIDI file as sound, .wav or .flac, in blocks, atomically.

    Raises:
        UserError: as `check_soundfont`; FluidSynth fails; the file's name ends in something else.
    """
    program = check_soundfont(soundfont)
    with tempfile.TemporaryDirectory(prefix="coma-gen-") as folder:
        source = Path(folder) / "music.mid"
        source.write_bytes(midi)
        quiet = ["-q", "-n", "-i", "-T", "raw", "-O", "s16", "-E", "little", "-r", str(SAMPLE_RATE)]
        command = [program, *quiet, "-F", "-", str(soundfont.resolve()), str(source)]
        with (
            (Path(folder) / "said").open("w+b") as said,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=said, stdin=subprocess.DEVNULL
            ) as player,
        ):
            try:
                write_blocks(path, _blocks(player, said), sample_rate=SAMPLE_RATE, channels=2)
            finally:
                player.kill()


def _blocks(player: subprocess.Popen[bytes], said: IO[bytes]) -> Iterator[Pcm]:
    """The sound of a player that writes it to its standard output, and its complaints to `said`."""
    assert player.stdout is not None
    while block := player.stdout.read(FRAMES * BYTES_PER_FRAME):
        whole = len(block) // BYTES_PER_FRAME * BYTES_PER_FRAME
        yield np.frombuffer(block[:whole], "<i2").astype(np.int16).reshape(-1, 2)
    status = player.wait()
    said.seek(0)
    errors = [line for line in said.read().decode(errors="replace").splitlines() if "error" in line]
    if status or errors:  # it ends well, with silence, where it could not read the SoundFont
        got = errors[0] if errors else f"exit status {status}"
        raise UserError(Fault("--soundfont", f"{PROGRAM} must be able to play it", got))
