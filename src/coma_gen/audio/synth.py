"""Music as sound, from numpy alone: notes in, 16-bit audio out; an hour takes the memory of a minute.

Every note is a tone of `piano`, as loud and as bright as its velocity, damped when its key is let go or,
where the pedal is down, when the pedal comes up; the keyboard is spread from left to right; `room` adds a
hall and a limiter. The level is fixed, not normalized: a touch is as loud in one piece as in another. The
limiter, with a ceiling of 0.96, keeps dense music from clipping. So nothing needs to be known about a piece
before it is played.

Every sample of the mixture is the sum of its notes in their order, whatever the blocks: the block size
changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from coma_gen.audio.piano import Piano, Samples, brightness, loudness
from coma_gen.audio.reverb import BLOCK, Limiter, Reverb
from coma_gen.audio.writers import write_blocks
from coma_gen.midi.notes import Notes
from coma_gen.midi.sustain import apply_sustain

SAMPLE_RATE: Final = 22_050
MASTER_GAIN = 0.85
KEYBOARD_WIDTH = 0.38
"""How far the outer keys stand from the middle, 0 (mono) to 1 (one ear only)."""

Pcm = npt.NDArray[np.int16]


class Performer:
    """Plays notes on a piano, any span of time at a time.

    Args:
        notes: the music; its pedal is honored.
        sample_rate: samples per second.
        channels: 1 (mono) or 2 (left, right).
    """

    def __init__(self, notes: Notes, *, sample_rate: int, channels: int) -> None:
        held = apply_sustain(notes)
        self._piano = Piano(sample_rate)
        self._pitch = held.pitch
        self._start = np.rint(held.onset * sample_rate).astype(np.int64)
        self._off = np.rint((held.onset + held.duration) * sample_rate).astype(np.int64)
        self._gain = loudness(held.velocity) * np.float32(MASTER_GAIN)
        self._edge = brightness(held.velocity) * self._gain
        self._ears = _ears(held.pitch, channels)
        self._reach = int(self._piano.longest_seconds * sample_rate) + 1
        self.length = max((self._stop(index) for index in range(len(held))), default=0)

    def _stop(self, index: int) -> int:
        """The sample after a note's last."""
        tone = self._piano.tone(int(self._pitch[index]))
        damped = int(self._off[index]) + len(tone.release)
        return min(damped, int(self._start[index]) + len(tone.body))

    def play(self, begin: int, end: int) -> Samples:
        """(channels, end - begin) samples of the dry piano, from sample `begin` of the piece."""
        mixture = np.zeros((self._ears.shape[1], end - begin), np.float32)
        first, last = np.searchsorted(self._start, [begin - self._reach, end])
        for index in range(int(first), int(last)):
            start, left, right = int(self._start[index]), begin, min(end, self._stop(index))
            left = max(begin, start)
            if right <= left:
                continue
            sound = self._note(index, left - start, right - start)
            for channel, ear in enumerate(self._ears[index]):
                mixture[channel, left - begin : right - begin] += sound * ear
        return mixture

    def _note(self, index: int, begin: int, end: int) -> Samples:
        """Samples [begin, end) of one note, counted from its onset."""
        tone = self._piano.tone(int(self._pitch[index]))
        sound: Samples = tone.body[begin:end] * self._gain[index]
        sound += tone.edge[begin:end] * self._edge[index]
        held = int(self._off[index] - self._start[index])
        if end > held:
            free = max(begin, held)
            sound[free - begin :] *= tone.release[free - held : end - held]
        return sound


def _ears(pitch: npt.NDArray[np.uint8], channels: int) -> Samples:
    """(N, channels) gains of each note: bass to the left, treble to the right, of equal power everywhere."""
    if channels == 1:
        return np.ones((len(pitch), 1), np.float32)
    pan = np.clip((pitch.astype(np.float64) - 64.5) / 43.5, -1, 1) * KEYBOARD_WIDTH
    angle = np.pi / 4 * (1 + pan)
    return np.asarray(np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=1), np.float32)


def sound_blocks(
    notes: Notes, *, sample_rate: int = SAMPLE_RATE, channels: int = 2, block: int = BLOCK
) -> Iterator[Pcm]:
    """The sound of some music, piece by piece.

    Args:
        notes: the music; silence gives a second of silence.
        sample_rate: samples per second, 22,050 or 32,000 for instance.
        channels: 1 or 2.
        block: samples mixed at a time; it changes memory, never the sound.

    Yields:
        (n, channels) 16-bit samples, of a few thousand each.
    """
    performer = Performer(notes, sample_rate=sample_rate, channels=channels)
    room, limiter = Reverb(sample_rate=sample_rate, channels=channels), Limiter()
    total = performer.length + room.tail + 1
    played = (performer.play(begin, begin + block) for begin in range(0, total + BLOCK, block))
    left = total
    for dry in _rechunked(played, BLOCK, -(-total // BLOCK)):
        limited = limiter.pass_on(room.hear(dry))[:, :left]
        left -= limited.shape[1]
        yield _pcm(limited)
    yield _pcm(limiter.flush()[:, :left])


def _rechunked(blocks: Iterable[Samples], size: int, number: int) -> Iterator[Samples]:
    """The same stream of (channels, n) samples as `number` blocks of `size` samples each."""
    pending: list[Samples] = []
    waiting = 0
    for block in blocks:
        pending.append(block)
        waiting += block.shape[1]
        while waiting >= size and number > 0:
            joined = np.concatenate(pending, axis=1)
            yield joined[:, :size]
            number -= 1
            pending, waiting = [joined[:, size:]], waiting - size
        if number == 0:
            return


def _pcm(samples: Samples) -> Pcm:
    """(channels, n) in [-1, 1] -> (n, channels) 16-bit integers."""
    return np.ascontiguousarray(np.rint(samples * 32_767).astype(np.int16).T)


def sound(notes: Notes, *, sample_rate: int = SAMPLE_RATE, channels: int = 2) -> Pcm:
    """All of `sound_blocks` at once: (n, channels); for short music."""
    return np.concatenate(list(sound_blocks(notes, sample_rate=sample_rate, channels=channels)))


def write_sound(path: Path, notes: Notes, *, sample_rate: int = SAMPLE_RATE, channels: int = 2) -> None:
    """Writes music as sound, in blocks, atomically, byte-stable.

    Raises:
        UserError: as `write_blocks`.
    """
    blocks = sound_blocks(notes, sample_rate=sample_rate, channels=channels)
    write_blocks(path, blocks, sample_rate=sample_rate, channels=channels)
