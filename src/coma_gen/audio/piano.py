"""A piano by additive synthesis: the tone of each key, soft and hard.

Each string is a sum of partials. Partial k of a stiff string is slightly sharp of k times the fundamental
(inharmonicity, Fletcher 1964). Higher partials decay faster. Each decays in two stages, first quickly and
then slowly, because the strings of a key are slightly detuned (Weinreich 1977). A harder touch is louder and
brighter. A sum of decaying sines is a sum of powers z**n, so a whole tone is one small matrix product: z**(i
* width + j) = z**(i * width) * z**j.

Shapes: K waves, N samples of a tone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]

MAX_TONE_SECONDS = 12.0
GOLDEN = 0.6180339887498949
HIGHEST_PARTIAL_HZ = 9500.0
"""Higher partials are omitted; a key with a higher fundamental (a piano's highest: 4,186 Hz) is silent."""
FIRST_DECAY, LATER_DECAY, LATER = 4.4, 0.55, 0.24
"""Decay of the two stages relative to a partial's rate, and the later's amplitude (benchmarks/piano.py)."""
FIRST_UNDAMPED = 89
"""From this pitch on (F6) a piano has no dampers: a released tone fades over 0.9 s."""


@dataclass(frozen=True, slots=True)
class Tone:
    """One key of the piano.

    Attributes:
        body: (N,) samples of the softest touch, at full loudness.
        edge: (N,) difference between the hardest and the softest touch, at full loudness.
        release: (R,) gain after the damper falls, from 1 to 0.
    """

    body: Samples
    edge: Samples
    release: Samples


def hertz(pitch: int) -> float:
    """Returns the fundamental of a MIDI pitch in equal temperament, A4 (69) = 440 Hz."""
    return float(440.0 * 2.0 ** ((pitch - 69) / 12))


def loudness(velocity: npt.NDArray[np.uint8]) -> Samples:
    """Returns the gain of a velocity: 1 at 127, -10 dB at 64, -31 dB at 16."""
    return ((velocity.astype(np.float64) / 127) ** 1.7).astype(np.float32)


def brightness(velocity: npt.NDArray[np.uint8]) -> Samples:
    """Returns the gain of a tone's edge for a velocity, 0 to 1."""
    return ((velocity.astype(np.float64) / 127) ** 1.3).astype(np.float32)


class Piano:
    """The tones of a piano, each computed on first use."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._tones: dict[int, Tone] = {}

    def tone(self, pitch: int) -> Tone:
        """Returns the tone of a MIDI pitch, 0 to 127."""
        if pitch not in self._tones:
            self._tones[pitch] = _compute_tone(pitch, self.sample_rate)
        return self._tones[pitch]

    @property
    def longest_seconds(self) -> float:
        """Maximum length of a tone after its onset."""
        return MAX_TONE_SECONDS


def _compute_tone(pitch: int, rate: int) -> Tone:
    """Synthesizes the tone of one key."""
    fundamental = hertz(pitch)
    frequency = _compute_partials(pitch, min(HIGHEST_PARTIAL_HZ, 0.45 * rate))
    decay = _compute_decay(fundamental, frequency)
    soft, hard = (_compute_spectrum(fundamental, frequency, touch) for touch in (0.0, 1.0))
    seconds = min(MAX_TONE_SECONDS, math.log(1000.0) / (LATER_DECAY * float(decay[0])))
    number = int(seconds * rate)
    phase = 2 * np.pi * np.modf(np.arange(1, len(frequency) + 1) * GOLDEN)[0]
    detuned = frequency * 2 ** (0.9 / 1200)
    waves = np.concatenate([frequency, detuned]), np.concatenate([FIRST_DECAY * decay, LATER_DECAY * decay])
    levels = np.stack([np.concatenate([(1 - LATER) * level, LATER * level]) for level in (soft, hard)])
    body, hardest = _mix_decaying_sines(*waves, levels, np.concatenate([phase, phase]), number, rate)
    body, hardest = (
        body + _make_hammer_noise(number, rate, 0.10),
        hardest + _make_hammer_noise(number, rate, 0.25),
    )
    shape = _make_envelope(number, rate, attack=0.0015 + 0.5 / max(fundamental, 150.0))
    audible = fundamental < min(HIGHEST_PARTIAL_HZ, 0.45 * rate)
    target = 0.125 * (fundamental / 440.0) ** -0.12 if audible else 0.0
    body *= shape * target / _compute_rms_level(body, rate)
    hardest *= shape * target / _compute_rms_level(hardest, rate)
    return Tone(body.astype(np.float32), (hardest - body).astype(np.float32), _compute_release(pitch, rate))


def _compute_partials(pitch: int, highest: float) -> Reals:
    """Returns the frequencies (K,) of a key's partials up to `highest`, the first one exactly in tune."""
    key = pitch - 20
    stiffness = math.exp(-0.0847 * key - 5.82) + math.exp(0.0926 * key - 13.64)
    k = np.arange(1, 41)
    frequency = hertz(pitch) * k * np.sqrt((1 + stiffness * k**2) / (1 + stiffness))
    return np.asarray(frequency[(frequency < highest) | (k == 1)], np.float64)


def _compute_decay(fundamental: float, frequency: Reals) -> Reals:
    """Returns decay rates (K,) per second: bass notes last many seconds, treble notes less than one."""
    lowest = 0.42 * (fundamental / 110.0) ** 0.62
    excess = (frequency - fundamental) / 1000.0
    return np.asarray(lowest * (1.0 + 0.25 * excess) + 0.75 * excess**1.2, np.float64)


def _compute_spectrum(fundamental: float, frequency: Reals, touch: float) -> Reals:
    """Returns the amplitudes (K,) of the partials for a touch from 0 (softest) to 1 (hardest).

    The hammer strikes at an eighth of the string, which weakens every eighth partial; its felt dampens high
    frequencies; the soundboard radiates little below 70 Hz.
    """
    k = np.arange(1, len(frequency) + 1)
    strike = 0.35 + 0.65 * np.abs(np.sin(np.pi * k / 8.0))
    height = fundamental / 440.0
    cutoff = (650.0 + 2600.0 * touch) * max(1.0, height) ** 0.35 * min(1.0, height) ** 0.05
    slope = (1.15 - 0.45 * touch) * min(1.0, height) ** 0.25
    felt = np.exp(-(frequency - fundamental) / cutoff) * k**-slope
    board = frequency**2 / (frequency**2 + 70.0**2)
    return np.asarray(strike * felt * board, np.float64)


def _mix_decaying_sines(
    frequency: Reals, decay: Reals, levels: Reals, phase: Reals, number: int, rate: int
) -> tuple[Reals, Reals]:
    """Computes two mixtures of `number` samples of the same K decaying sines.

    Args:
        frequency: (K,) Hz.
        decay: (K,) decay rates per second.
        levels: (2, K) amplitudes in each mixture.
        phase: (K,) radians.
        number: N, samples to compute.
        rate: Samples per second.
    """
    width = math.isqrt(number) + 1
    exponent = (-decay + 2j * np.pi * frequency) / rate
    coarse = np.exp(np.outer(np.arange(math.ceil(number / width)) * width, exponent))
    fine = np.exp(np.outer(exponent, np.arange(width)) - 1j * (np.pi / 2 - phase[:, None]))
    left = np.concatenate([coarse.real, coarse.imag], axis=1)
    mixtures = []
    for level in levels:
        right = np.concatenate([fine.real * level[:, None], -fine.imag * level[:, None]])
        mixtures.append((left @ right).reshape(-1)[:number])
    return mixtures[0], mixtures[1]


def _make_hammer_noise(number: int, rate: int, level: float) -> Reals:
    """Returns the noise (N,) of hammer and key: a few low modes that last some hundredths of a second."""
    modes = np.array([96.0, 151.0, 233.0, 367.0])
    decay = np.array([38.0, 52.0, 70.0, 95.0])
    phase = 2 * np.pi * np.modf(np.arange(1, 5) * GOLDEN)[0]
    levels = level * np.array([1.0, 0.8, 0.6, 0.4])
    length = min(number, rate // 4)
    thud, _ = _mix_decaying_sines(modes, decay, np.stack([levels, levels]), phase, length, rate)
    return np.concatenate([thud, np.zeros(number - length)])


def _make_envelope(number: int, rate: int, *, attack: float) -> Reals:
    """Returns an envelope (N,) that rises to 1 in `attack` seconds and falls to 0 over the last 50 ms."""
    shape = np.ones(number)
    rise, fall = min(number, max(2, int(attack * rate))), min(number, rate // 20)
    shape[:rise] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(rise) / rise)
    shape[number - fall :] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(1, fall + 1) / fall)
    return shape


def _compute_rms_level(samples: Reals, rate: int) -> float:
    """Returns the root mean square of the first 0.3 s, a measure of perceived loudness."""
    return float(np.sqrt(np.mean(samples[: int(0.3 * rate)] ** 2)))


def _compute_release(pitch: int, rate: int) -> Samples:
    """Returns the gain (R,) after a release: damped tones end within 0.33 s, undamped ones in 0.9 s."""
    seconds = 0.9 if pitch >= FIRST_UNDAMPED else 0.11 + 0.22 * math.exp(-(pitch - 21) / 22.0)
    share = np.arange(int(seconds * rate)) / int(seconds * rate)
    return np.asarray((1.0 - share) ** 2 * np.exp(-3.0 * share), np.float32)
