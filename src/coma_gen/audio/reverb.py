"""The room around the piano and the limiter behind the microphone: two streams of constant memory.

The room is a convolution with decaying noise, another one for each ear, done by overlap-add in blocks of one
fixed length. The limiter holds every sample below `CEILING` exactly: its gain goes down within the frame (12
ms) before a peak and comes back over about half a second, so nothing is clipped and nothing pumps.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from coma_gen.audio.piano import Reals, Samples
from coma_gen.core.seeding import generator

BLOCK = 16_384
"""Samples that `Room.hear` takes at a time."""
FRAME = 256
"""Samples over which the limiter's gain moves along a straight line."""
CEILING = 0.96
RECOVERY_FRAMES = 40.0


class Reverb:
    """A small hall, as a running convolution.

    Args:
        sample_rate: samples per second.
        channels: 1 or 2; two hear two sides of the room.
        wet: level of the room beside the piano's own sound.
    """

    def __init__(self, *, sample_rate: int, channels: int, wet: float = 0.30) -> None:
        impulse = _impulse(sample_rate, channels) * wet
        impulse[:, 0] += 1.0
        self.tail = impulse.shape[1] - 1
        self._size = 1 << (BLOCK + self.tail - 1).bit_length()
        self._spectrum = np.fft.rfft(impulse, self._size, axis=1)
        self._pending = np.zeros((channels, self._size - BLOCK))

    def hear(self, block: Samples) -> Samples:
        """What is heard during one block: (channels, BLOCK) in, the same shape out."""
        if not block.any() and not self._pending.any():
            return np.zeros_like(block)
        full = np.fft.irfft(np.fft.rfft(block, self._size, axis=1) * self._spectrum, self._size, axis=1)
        full[:, : self._pending.shape[1]] += self._pending
        self._pending = full[:, BLOCK:]
        return full[:, :BLOCK].astype(np.float32)


def _impulse(sample_rate: int, channels: int) -> Reals:
    """(channels, about 1 s) noise that decays, treble before bass, after 12 ms of nothing."""
    length, silence = int(1.0 * sample_rate), int(0.012 * sample_rate)
    seconds = np.arange(length) / sample_rate
    noise = generator(0, "room").random((channels, length)) * 2 - 1
    frequency = np.fft.rfftfreq(2 * length, 1 / sample_rate)
    impulse = np.zeros((channels, length))
    for low, high, decay in ((90.0, 900.0, 5.2), (900.0, 3800.0, 8.5)):
        gain = (frequency / low) ** 2 / (1 + (frequency / low) ** 2) / (1 + (frequency / high) ** 2)
        band = np.fft.irfft(np.fft.rfft(noise, 2 * length, axis=1) * gain, 2 * length, axis=1)[:, :length]
        impulse += band * np.exp(-decay * seconds)
    impulse[:, :silence] = 0.0
    impulse *= np.minimum(1.0, (length - np.arange(length)) / (0.2 * sample_rate))
    return np.asarray(impulse / np.sqrt((impulse**2).sum(axis=1, keepdims=True)), np.float64)


class Limiter:
    """Turns peaks down before they come; one frame late.

    With t[i] = min(1, CEILING / peak of frame i), the gain at the border between frames i - 1 and i is at
    most t[i - 1] and at most t[i], and moves linearly between borders: so it is at most t[i] everywhere in
    frame i.
    """

    def __init__(self) -> None:
        self._held: Samples | None = None
        self._allowed = 1.0
        self._border = 1.0

    def pass_on(self, block: Samples) -> Samples:
        """(channels, a multiple of FRAME) in; out comes what was held, then all of it but the last frame."""
        frames = block.reshape(len(block), -1, FRAME)
        allowed = (CEILING / np.maximum(CEILING, np.abs(frames).max(axis=(0, 2)))).tolist()
        if self._held is None:
            self._border = allowed[0]
        else:
            frames = np.concatenate([self._held[:, None], frames], axis=1)
            allowed.insert(0, self._allowed)
        borders = [self._border]
        for before, after in pairwise(allowed):
            borders.append(min(self._recovered(borders[-1]), before, after))
        self._held, self._allowed, self._border = frames[:, -1], allowed[-1], borders[-1]
        return _with_gain(frames[:, :-1], borders)

    def flush(self) -> Samples:
        """The last frame, which `pass_on` still held."""
        if self._held is None:
            raise RuntimeError("nothing was passed on before the end")
        end = min(self._recovered(self._border), self._allowed)
        return _with_gain(self._held[:, None], [self._border, end])

    @staticmethod
    def _recovered(gain: float) -> float:
        return gain + (1.0 - gain) / RECOVERY_FRAMES


def _with_gain(frames: Samples, borders: list[float]) -> Samples:
    """(channels, F, FRAME) frames and the gains at their F + 1 borders -> (channels, F * FRAME)."""
    gains = np.asarray(borders)
    way = np.arange(FRAME) / FRAME
    ramps = gains[:-1, None] * (1.0 - way) + gains[1:, None] * way
    return np.asarray((frames * ramps).reshape(len(frames), -1), np.float32)
