"""Renders notes to 16-bit audio with numpy, in constant memory.

Every note is a tone of `piano` with the loudness and brightness of its velocity, damped when its key is
released or, if the pedal is down, when the pedal is released. The keyboard is panned from left to right;
`reverb` adds a hall and a limiter. The level is fixed, not normalized, so that a velocity has the same
loudness in every piece, and the limiter, with a ceiling of 0.96, keeps dense music from clipping. A piece can
thus be rendered in one pass.

Every sample is the sum of its notes in order, so that the block size does not change the result.
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
"""Panning of the outermost keys, 0 (center) to 1 (one channel only)."""

Pcm = npt.NDArray[np.int16]


class NoteMixer:
    """Mixes the tones of notes, for any span of time.

    Args:
        notes: Notes to play, with their pedal.
        sample_rate: Samples per second.
        channels: 1 (mono) or 2 (left, right).
    """

    def __init__(self, notes: Notes, *, sample_rate: int, channels: int) -> None:
        sustained = apply_sustain(notes)
        self._piano = Piano(sample_rate)
        self._pitch = sustained.pitch
        self._start = np.rint(sustained.onset * sample_rate).astype(np.int64)
        self._off = np.rint((sustained.onset + sustained.duration) * sample_rate).astype(np.int64)
        self._gain = loudness(sustained.velocity) * np.float32(MASTER_GAIN)
        self._edge = brightness(sustained.velocity) * self._gain
        self._pan_gains = _compute_pan_gains(sustained.pitch, channels)
        self._reach = int(self._piano.longest_seconds * sample_rate) + 1
        self.length = max((self._stop(index) for index in range(len(sustained))), default=0)

    def _stop(self, index: int) -> int:
        """Returns the index after the last sample of a note."""
        tone = self._piano.tone(int(self._pitch[index]))
        damped = int(self._off[index]) + len(tone.release)
        return min(damped, int(self._start[index]) + len(tone.body))

    def play(self, begin: int, end: int) -> Samples:
        """Returns samples (channels, end - begin) of the piano without reverb, from sample `begin`."""
        mixture = np.zeros((self._pan_gains.shape[1], end - begin), np.float32)
        first, last = np.searchsorted(self._start, [begin - self._reach, end])
        for index in range(int(first), int(last)):
            start, left, right = int(self._start[index]), begin, min(end, self._stop(index))
            left = max(begin, start)
            if right <= left:
                continue
            sound = self._render_note(index, left - start, right - start)
            for channel, ear in enumerate(self._pan_gains[index]):
                mixture[channel, left - begin : right - begin] += sound * ear
        return mixture

    def _render_note(self, index: int, begin: int, end: int) -> Samples:
        """Returns samples [begin, end) of one note, relative to its onset."""
        tone = self._piano.tone(int(self._pitch[index]))
        sound: Samples = tone.body[begin:end] * self._gain[index]
        sound += tone.edge[begin:end] * self._edge[index]
        held = int(self._off[index] - self._start[index])
        if end > held:
            free = max(begin, held)
            sound[free - begin :] *= tone.release[free - held : end - held]
        return sound


def _compute_pan_gains(pitch: npt.NDArray[np.uint8], channels: int) -> Samples:
    """Returns the gains (N, channels) of each note: bass left, treble right, with equal power."""
    if channels == 1:
        return np.ones((len(pitch), 1), np.float32)
    pan = np.clip((pitch.astype(np.float64) - 64.5) / 43.5, -1, 1) * KEYBOARD_WIDTH
    angle = np.pi / 4 * (1 + pan)
    return np.asarray(np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=1), np.float32)


def sound_blocks(
    notes: Notes, *, sample_rate: int = SAMPLE_RATE, channels: int = 2, block: int = BLOCK
) -> Iterator[Pcm]:
    """Renders notes block by block.

    Args:
        notes: Notes to render; without notes the result is one second of silence.
        sample_rate: Samples per second, for example 22,050 or 32,000.
        channels: 1 or 2.
        block: Samples mixed at a time; affects memory only.

    Yields:
        Blocks (n, channels) of 16-bit samples, with n at most about 16,000.
    """
    performer = NoteMixer(notes, sample_rate=sample_rate, channels=channels)
    room, limiter = Reverb(sample_rate=sample_rate, channels=channels), Limiter()
    total = performer.length + room.tail + 1
    played = (performer.play(begin, begin + block) for begin in range(0, total + BLOCK, block))
    left = total
    for dry in _rechunk(played, BLOCK, -(-total // BLOCK)):
        limited = limiter.process(room.process(dry))[:, :left]
        left -= limited.shape[1]
        yield _to_pcm(limited)
    yield _to_pcm(limiter.flush()[:, :left])


def _rechunk(blocks: Iterable[Samples], size: int, number: int) -> Iterator[Samples]:
    """Regroups a stream of (channels, n) samples into `number` blocks of `size` samples."""
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


def _to_pcm(samples: Samples) -> Pcm:
    """Converts (channels, n) samples in [-1, 1] to (n, channels) 16-bit integers."""
    return np.ascontiguousarray(np.rint(samples * 32_767).astype(np.int16).T)


def sound(notes: Notes, *, sample_rate: int = SAMPLE_RATE, channels: int = 2) -> Pcm:
    """Renders short music at once to (n, channels) samples; see `sound_blocks`."""
    return np.concatenate(list(sound_blocks(notes, sample_rate=sample_rate, channels=channels)))


def write_sound(path: Path, notes: Notes, *, sample_rate: int = SAMPLE_RATE, channels: int = 2) -> None:
    """Renders notes to a sound file, in blocks, atomically, byte-stable.

    Raises:
        UserError: See `write_blocks`.
    """
    blocks = sound_blocks(notes, sample_rate=sample_rate, channels=channels)
    write_blocks(path, blocks, sample_rate=sample_rate, channels=channels)
