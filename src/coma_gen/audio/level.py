"""Measures and changes the level of audio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from coma_gen.audio.reverb import FRAME, Limiter

Pcm = npt.NDArray[np.int16]
BLOCK_SECONDS = 0.4
QUIET_DECIBELS = 20.0
"""Blocks that are this much softer than the mean count as rests and are ignored."""
MAX_GAIN = 20.0


class Meter:
    """Measures the level of a stream of audio: the root mean square of its blocks without rests.

    Blocks and gate follow ITU-R BS.1770, without its filter.
    """

    def __init__(self, sample_rate: int) -> None:
        self._size = int(BLOCK_SECONDS * sample_rate)
        self._pending: npt.NDArray[np.float64] = np.zeros(0)
        self._powers: list[npt.NDArray[np.float64]] = []

    def add(self, block: Pcm) -> None:
        """Adds the next (n, channels) samples."""
        power = (block.astype(np.float64) ** 2).mean(axis=1)
        power = np.concatenate([self._pending, power])
        whole = len(power) // self._size * self._size
        self._powers.append(power[:whole].reshape(-1, self._size).mean(axis=1))
        self._pending = power[whole:]

    @property
    def level(self) -> float:
        """Level of the audio so far, in units of 16-bit samples; 0 for silence."""
        last = [self._pending.mean(keepdims=True)] if len(self._pending) and not self._has_powers else []
        powers = np.concatenate([*self._powers, *last]) if self._powers or last else np.zeros(0)
        loud = powers[powers > powers.mean() * 10 ** (-QUIET_DECIBELS / 10)] if len(powers) else powers
        return float(np.sqrt(loud.mean())) if len(loud) else 0.0

    @property
    def _has_powers(self) -> bool:
        return any(len(part) for part in self._powers)


def measure_level(blocks: Iterable[Pcm], sample_rate: int) -> float:
    """Measures the level of a whole stream; see `Meter`."""
    meter = Meter(sample_rate)
    for block in blocks:
        meter.add(block)
    return meter.level


def amplify(blocks: Iterable[Pcm], gain: float) -> Iterator[Pcm]:
    """Amplifies (n, channels) blocks by a factor; peaks are limited, not clipped."""
    limiter, pending, length = Limiter(), np.zeros((0, 2), np.float32), 0
    for block in blocks:
        pending = np.concatenate([pending, block.astype(np.float32) * np.float32(gain / 32_767)])
        length += len(block)
        whole = len(pending) // FRAME * FRAME
        if whole:
            yield _to_pcm(limiter.process(pending[:whole].T))
            pending = pending[whole:]
    if length:
        rest = np.zeros((FRAME, pending.shape[1]), np.float32)
        rest[: len(pending)] = pending
        yield _to_pcm(np.concatenate([limiter.process(rest.T), limiter.flush()], axis=1))[
            : FRAME + len(pending)
        ]


def _to_pcm(samples: npt.NDArray[np.float32]) -> Pcm:
    return np.ascontiguousarray(np.rint(samples * 32_767).astype(np.int16).T)
