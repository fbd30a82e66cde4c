"""Reverb and limiter as streams with constant memory.

The reverb is a convolution with decaying noise, different for each channel, by overlap-add in blocks of fixed
length. The limiter keeps every sample below `CEILING`: its gain falls within the frame (12 ms) before a peak
and recovers over about half a second, which avoids clipping and pumping.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from coma_gen.audio.piano import Reals, Samples
from coma_gen.core.seeding import generator

BLOCK = 16_384
"""Samples per call of `Reverb.process`."""
FRAME = 256
"""Samples over which the limiter's gain is interpolated linearly."""
CEILING = 0.96
RECOVERY_FRAMES = 40.0


class Reverb:
    """A small hall, as a streaming convolution.

    Args:
        sample_rate: Samples per second.
        channels: 1 or 2; each has its own impulse response.
        wet: Level of the reverb relative to the direct sound.
    """

    def __init__(self, *, sample_rate: int, channels: int, wet: float = 0.30) -> None:
        impulse = _make_impulse(sample_rate, channels) * wet
        impulse[:, 0] += 1.0
        self.tail = impulse.shape[1] - 1
        self._size = 1 << (BLOCK + self.tail - 1).bit_length()
        self._spectrum = np.fft.rfft(impulse, self._size, axis=1)
        self._pending = np.zeros((channels, self._size - BLOCK))

    def process(self, block: Samples) -> Samples:
        """Adds reverb to one block (channels, BLOCK); the output has the same shape."""
        if not block.any() and not self._pending.any():
            return np.zeros_like(block)
        full = np.fft.irfft(np.fft.rfft(block, self._size, axis=1) * self._spectrum, self._size, axis=1)
        full[:, : self._pending.shape[1]] += self._pending
        self._pending = full[:, BLOCK:]
        return full[:, :BLOCK].astype(np.float32)


def _make_impulse(sample_rate: int, channels: int) -> Reals:
    """Returns noise (channels, about 1 s) that decays, treble before bass, after 12 ms of silence."""
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
    """A look-ahead limiter with a latency of one frame.

    With t[i] = min(1, CEILING / peak of frame i), the gain at the border between frames i - 1 and i is at
    most min(t[i - 1], t[i]) and is linear between borders. Hence it is at most t[i] everywhere in frame i.
    """

    def __init__(self) -> None:
        self._held: Samples | None = None
        self._allowed = 1.0
        self._border = 1.0

    def process(self, block: Samples) -> Samples:
        """Limits (channels, a multiple of FRAME) samples; the output is one frame behind the input."""
        frames = block.reshape(len(block), -1, FRAME)
        allowed = (CEILING / np.maximum(CEILING, np.abs(frames).max(axis=(0, 2)))).tolist()
        if self._held is None:
            self._border = allowed[0]
        else:
            frames = np.concatenate([self._held[:, None], frames], axis=1)
            allowed.insert(0, self._allowed)
        borders = [self._border]
        for before, after in pairwise(allowed):
            borders.append(min(self._recover(borders[-1]), before, after))
        self._held, self._allowed, self._border = frames[:, -1], allowed[-1], borders[-1]
        return _apply_gains(frames[:, :-1], borders)

    def flush(self) -> Samples:
        """Returns the last frame, which `process` has not returned yet."""
        if self._held is None:
            raise RuntimeError("nothing was passed on before the end")
        end = min(self._recover(self._border), self._allowed)
        return _apply_gains(self._held[:, None], [self._border, end])

    @staticmethod
    def _recover(gain: float) -> float:
        return gain + (1.0 - gain) / RECOVERY_FRAMES


def _apply_gains(frames: Samples, borders: list[float]) -> Samples:
    """Applies the gains at F + 1 borders to frames (channels, F, FRAME) -> (channels, F * FRAME)."""
    gains = np.asarray(borders)
    way = np.arange(FRAME) / FRAME
    ramps = gains[:-1, None] * (1.0 - way) + gains[1:, None] * way
    return np.asarray((frames * ramps).reshape(len(frames), -1), np.float32)
