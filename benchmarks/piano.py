"""Compares the built-in piano with SoundFonts: spectrum, attack and decay of the same notes.

    python -m benchmarks.piano TimGM6mb.sf2 FluidR3_GM.sf2 --picture docs/pictures/piano.png

Every piano plays single notes of three seconds, with reverb; SoundFonts are rendered as by
`coma-gen render --soundfont`, which needs FluidSynth. The figures:

    attack      ms from 10% to 50% of the maximum of the envelope
    decay       dB per second, in the half second after the peak, and from 1 to 2.5 s after the onset
    brightness  centroid of the power spectrum of the first 0.4 s, in multiples of the fundamental
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import numpy.typing as npt
import soundfile
from matplotlib import pyplot as plt

from coma_gen.audio.piano import hertz
from coma_gen.audio.soundfont import write_soundfont_sound
from coma_gen.audio.synth import write_sound
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes

Wave = npt.NDArray[np.float64]
Player = Callable[[int, int], Wave]
PITCHES, VELOCITIES = (33, 45, 57, 69, 81, 93), (32, 80, 120)
NOTE_SECONDS, FRAME, RATE = 3.0, 0.004, 44_100
OURS = "built-in piano"


@cache
def render_note(path: Path | None, pitch: int, velocity: int) -> Wave:
    """Renders a note with a SoundFont, or with the built-in piano: mono, at RATE."""
    notes = Notes.of([0.0], [NOTE_SECONDS], [pitch], [velocity])
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "note.wav"
        if path is None:
            write_sound(wav, notes, sample_rate=RATE)
        else:
            write_soundfont_sound(wav, midi_bytes(notes), path)
        samples, rate = soundfile.read(wav)
    assert rate == RATE
    return np.asarray(samples.mean(axis=1), np.float64)


def envelope(wave: Wave) -> Wave:
    """Computes the root mean square of each frame."""
    size = int(FRAME * RATE)
    whole = wave[: len(wave) // size * size].reshape(-1, size)
    return np.asarray(np.sqrt((whole**2).mean(axis=1)) + 1e-9)


def figures(wave: Wave, pitch: int) -> dict[str, float]:
    """Computes the figures of one note."""
    loud = envelope(wave)
    peak = int(loud[: int(0.5 / FRAME)].argmax())
    rise = loud[: peak + 1]
    start, full = (int(np.argmax(rise >= share * loud[peak])) for share in (0.1, 0.5))
    decibels = 20 * np.log10(loud / loud[peak])
    power = np.abs(np.fft.rfft(wave[: int(0.4 * RATE)] * np.hanning(int(0.4 * RATE)))) ** 2
    center = float((power * np.fft.rfftfreq(int(0.4 * RATE), 1 / RATE)).sum() / power.sum())
    return {
        "attack, ms": 1000 * FRAME * (full - start),
        "initial decay, dB/s": -_slope(decibels, peak, 0.0, 0.5),
        "later decay, dB/s": -_slope(decibels, start, 1.0, 2.5),
        "brightness": center / hertz(pitch),
    }


def _slope(decibels: Wave, start: int, since: float, until: float) -> float:
    frames = np.arange(start + int(since / FRAME), start + int(until / FRAME))
    return float(np.polyfit(frames * FRAME, decibels[frames], 1)[0])


def table(players: dict[str, Player]) -> str:
    """Formats the figures at velocity 80 for each pitch, and brightness by velocity at A3."""
    names = list(figures(render_note(None, 69, 80), 69))
    lines = ["| note | piano | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for pitch in PITCHES:
        for name, play in players.items():
            values = figures(play(pitch, 80), pitch)
            cells = [
                f"{values[each]:.0f}" if "brightness" not in each else f"{values[each]:.1f}" for each in names
            ]
            lines.append(f"| A{pitch // 12 - 1} | {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| A3, velocity | " + " | ".join(map(str, VELOCITIES)) + " | louder by, dB |",
        "|---|---|---|---|---|",
    ]
    for name, play in players.items():
        waves = [play(57, velocity) for velocity in VELOCITIES]
        bright = [f"{figures(wave, 57)['brightness']:.1f}" for wave in waves]
        levels = [20 * np.log10(envelope(wave)[: int(0.5 / FRAME)].max()) for wave in waves]
        steps = ", ".join(f"{b - a:.0f}" for a, b in pairwise(levels))
        lines.append(f"| {name}, brightness | {' | '.join(bright)} | {steps} |")
    return "\n".join(lines)


def draw_picture(players: dict[str, Player], path: Path) -> None:
    """Draws spectra (top) and envelopes (bottom) of three notes."""
    notes = (33, 57, 81)
    figure, axes = plt.subplots(2, len(notes), figsize=(12, 6), layout="constrained")
    for column, pitch in enumerate(notes):
        top, bottom = axes[0, column], axes[1, column]
        for (name, play), color in zip(players.items(), ("#b8301c", "#1d5487", "#7f8c9b"), strict=False):
            wave = play(pitch, 80)
            size = int(0.4 * RATE)
            power = np.abs(np.fft.rfft(wave[:size] * np.hanning(size))) + 1e-9
            level = 20 * np.log10(power / power.max())
            top.plot(np.fft.rfftfreq(size, 1 / RATE) / 1000, level, color=color, lw=0.8, label=name)
            loud = 20 * np.log10(envelope(wave) / envelope(wave).max())
            bottom.plot(np.arange(len(loud)) * FRAME, loud, color=color, lw=0.9)
        top.set(
            title=f"A{pitch // 12 - 1}", xlabel="kHz", ylim=(-90, 3), xlim=(0, min(10, 0.025 * hertz(pitch)))
        )
        bottom.set(xlabel="seconds; released at 3", ylim=(-60, 3), xlim=(0, 4))
    axes[0, 0].set_ylabel("spectrum of 0.4 s, dB")
    axes[1, 0].set_ylabel("envelope, dB")
    axes[0, -1].legend(frameon=False)
    figure.savefig(path, dpi=75)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables, and draws the picture if `--picture` is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("soundfonts", nargs="+", type=Path, help=".sf2 files")
    parser.add_argument("--picture", type=Path, help="a PNG file to write")
    options = parser.parse_args(arguments)
    players: dict[str, Player] = {OURS: partial(render_note, None)}
    players |= {path.stem: partial(render_note, path) for path in options.soundfonts}
    print(table(players))
    if options.picture:
        draw_picture(players, options.picture)


if __name__ == "__main__":
    main()
