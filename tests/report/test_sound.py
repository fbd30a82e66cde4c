"""The synthesizer: in tune, no clicks, no clipping, correct pedal, and the same for any block size."""

from __future__ import annotations

import time
import wave
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from coma_gen.audio.level import amplify, measure_level
from coma_gen.audio.piano import Piano
from coma_gen.audio.reverb import BLOCK, CEILING, FRAME, Limiter, Reverb
from coma_gen.audio.synth import SAMPLE_RATE, sound, sound_blocks, write_sound
from coma_gen.core.errors import UserError
from coma_gen.midi.notes import Notes


def level(samples: np.ndarray, start: float, end: float) -> float:
    """Root mean square between two seconds."""
    part = samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)].astype(float)
    return float(np.sqrt(np.mean(part**2)))


@pytest.mark.parametrize("rate", [22_050, 32_000])
@pytest.mark.parametrize(("pitch", "hertz"), [(69, 440.0), (57, 220.0), (84, 1046.5)])
def test_notes_are_in_tune(rate: int, pitch: int, hertz: float) -> None:
    samples = sound(Notes.of([0], [2], [pitch], [90]), sample_rate=rate, channels=1)[: 2 * rate, 0]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(hertz, abs=0.6)


def test_louder_touches_are_louder_and_brighter() -> None:
    levels, centroids = [], []
    for velocity in (20, 60, 120):
        samples = sound(Notes.of([0], [1], [60], [velocity]), channels=1)[:SAMPLE_RATE, 0].astype(float)
        spectrum = np.abs(np.fft.rfft(samples)) ** 2
        levels.append(level(samples, 0, 1))
        centroids.append((spectrum * np.arange(len(spectrum))).sum() / spectrum.sum())
    assert levels == sorted(levels)
    assert centroids == sorted(centroids)
    assert levels[2] > 10 * levels[0]


@pytest.mark.parametrize(
    ("pitch", "first", "brightness"), [(33, (4, 14), 4.5), (57, (11, 31), 1.6), (69, (11, 25), 1.0)]
)
def test_a_tone_falls_in_two_stages_and_the_bass_is_bright(
    pitch: int, first: tuple[float, float], brightness: float
) -> None:
    """As of recorded pianos: benchmarks/piano.py."""
    wave = sound(Notes.of([0.0], [3.0], [pitch], [80]), channels=1)[:, 0].astype(float)
    frames = wave[: 3 * SAMPLE_RATE].reshape(30, -1)
    level = 10 * np.log10((frames**2).mean(axis=1))
    early, late = (level[0] - level[5]) / 0.5, (level[10] - level[25]) / 1.5
    assert first[0] < early < first[1] and late < 7
    power = np.abs(np.fft.rfft(wave[: SAMPLE_RATE // 2] * np.hanning(SAMPLE_RATE // 2))) ** 2
    centroid = (power * np.arange(len(power)) * 2).sum() / power.sum()
    assert brightness < centroid / (440 * 2 ** ((pitch - 69) / 12))


def test_the_pedal_holds_notes_until_it_rises() -> None:
    dry = sound(Notes.of([0], [0.3], [60], [90]), channels=1)[:, 0]
    held = sound(Notes.of([0], [0.3], [60], [90], [(0.1, 2.0)]), channels=1)[:, 0]
    assert level(held, 1.5, 1.9) > 20 * level(np.pad(dry, (0, SAMPLE_RATE)), 1.5, 1.9)
    assert level(held, 2.6, 2.9) < level(held, 1.5, 1.9) / 5


def test_blocks_change_nothing(etude: Callable[..., Notes]) -> None:
    notes = etude(6)
    whole = sound(notes)
    for block in (1_000, 7_777, 200_000):
        assert np.array_equal(np.concatenate(list(sound_blocks(notes, block=block))), whole)


@pytest.mark.parametrize("channels", [1, 2])
def test_sixty_loud_notes_at_once_do_not_clip(channels: int) -> None:
    notes = Notes.of([0.5] * 60, [2.0] * 60, range(30, 90), [127] * 60)
    samples = sound(notes, channels=channels)
    assert np.abs(samples).max() <= round(CEILING * 32_767) + 1
    assert np.abs(samples).max() > 0.9 * 32_767
    assert level(samples, 0.5, 1.0) > 1_000


@pytest.mark.parametrize("pitch", [28, 60, 96])
def test_no_click_at_either_end(pitch: int) -> None:
    samples = sound(Notes.of([0.5], [1.0], [pitch], [110]), channels=1)[:, 0].astype(float)
    bend = np.abs(np.diff(samples, 2))
    steady = bend[int(0.52 * SAMPLE_RATE) : int(0.9 * SAMPLE_RATE)].max()
    onset, release = int(0.5 * SAMPLE_RATE), int(1.5 * SAMPLE_RATE)
    assert np.abs(samples[: onset + 3]).max() < 0.02 * np.abs(samples).max()
    assert bend[onset - 10 : onset + 400].max() < 2.5 * steady
    assert bend[release - 10 : release + 400].max() < 1.2 * steady
    assert np.abs(samples[-20:]).max() <= 1


def test_silence_is_silent() -> None:
    samples = sound(Notes.empty())
    assert samples.shape[1] == 2
    assert len(samples) > SAMPLE_RATE // 2
    assert not samples.any()


def test_a_note_of_no_length_and_notes_outside_the_piano() -> None:
    samples = sound(Notes.of([0.0, 0.2, 0.4], [0.0, 0.1, 0.1], [60, 0, 127], [90, 90, 90]))
    assert samples.any()
    assert level(samples, 0.0, 0.1) > 10


def test_bass_is_left_and_treble_right() -> None:
    for pitch, nearer in ((24, 0), (100, 1)):
        samples = sound(Notes.of([0], [1], [pitch], [100]))
        assert level(samples[:, nearer], 0, 1) > 1.2 * level(samples[:, 1 - nearer], 0, 1)


def test_the_limiter_leaves_quiet_music_alone_and_is_exact() -> None:
    rng = np.random.default_rng(0)
    for gain in (0.1, 20.0):
        blocks = [rng.uniform(-gain, gain, (2, 4 * FRAME)).astype(np.float32) for _ in range(5)]
        limiter = Limiter()
        out = np.concatenate([*(limiter.process(block) for block in blocks), limiter.flush()], axis=1)
        whole = np.concatenate(blocks, axis=1)
        assert out.shape == whole.shape
        assert np.abs(out).max() <= CEILING * (1 + 1e-6)
        assert gain > CEILING or np.array_equal(out, whole)


def test_the_room_is_a_convolution() -> None:
    room = Reverb(sample_rate=8_000, channels=2)
    rng = np.random.default_rng(1)
    dry = rng.uniform(-1, 1, (2, 3 * BLOCK)).astype(np.float32)
    wet = np.concatenate([room.process(dry[:, at : at + BLOCK]) for at in range(0, 3 * BLOCK, BLOCK)], axis=1)
    click = np.zeros((2, BLOCK), np.float32)
    click[:, 0] = 1.0
    impulse = Reverb(sample_rate=8_000, channels=2).process(click)
    at = 2 * BLOCK + 77
    for channel in range(2):
        past = dry[channel, at - BLOCK + 1 : at + 1][::-1].astype(float)
        assert wet[channel, at] == pytest.approx(float(past @ impulse[channel]), abs=1e-4)


def test_tones_end_in_nothing() -> None:
    piano = Piano(SAMPLE_RATE)
    for pitch in (21, 64, 108):
        tone = piano.tone(pitch)
        assert abs(tone.body[-1]) < 1e-4
        assert tone.release[0] == 1.0
        assert tone.release[-1] < 1e-4
        assert len(tone.body) <= piano.longest_seconds * SAMPLE_RATE


def test_files_hold_the_sound_and_repeat(etude: Callable[..., Notes], tmp_path) -> None:
    notes = etude(3)
    expected = sound(notes)
    for suffix in (".wav", ".flac"):
        paths = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
        for path in paths:
            write_sound(path, notes)
        assert paths[0].read_bytes() == paths[1].read_bytes()
        samples, rate = soundfile.read(paths[0], dtype="int16")
        assert rate == SAMPLE_RATE
        assert np.array_equal(samples, expected)
    with wave.open(str(tmp_path / "one.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getnframes()) == (2, 2, len(expected))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.flac", "one.wav", "two.flac", "two.wav"]


def test_the_level_is_that_of_what_is_no_rest() -> None:
    tone = np.rint(1000 * np.sqrt(2) * np.sin(np.arange(44_100) / 10))[:, None].repeat(2, 1).astype(np.int16)
    assert measure_level([tone], 44_100) == pytest.approx(1000, rel=0.01)
    assert measure_level(np.array_split(np.concatenate([tone, 0 * tone, tone]), 7), 44_100) == pytest.approx(
        1000, rel=0.1
    )
    assert measure_level([tone[:900]], 44_100) == pytest.approx(1000, rel=0.05)
    assert measure_level([], 44_100) == measure_level([0 * tone], 44_100) == 0.0


def test_louder_is_the_same_sound_and_never_clipped() -> None:
    tone = np.rint(1000 * np.sin(np.arange(10_001) / 10))[:, None].repeat(2, 1).astype(np.int16)
    louder = np.concatenate(list(amplify(np.array_split(tone, 9), 4.0)))
    assert louder.shape == tone.shape and np.abs(louder - 4 * tone.astype(int)).max() <= 1
    loudest = np.concatenate(list(amplify([tone], 100.0)))
    assert np.abs(loudest).max() <= CEILING * 32_767 + 1
    assert list(amplify([], 2.0)) == []


@pytest.mark.parametrize("ending", ["mp3", "ogg"])
def test_smaller_files_hold_nearly_the_sound_and_repeat(
    ending: str, etude: Callable[..., Notes], tmp_path
) -> None:
    notes = etude(3)
    expected = sound(notes)
    paths = [tmp_path / f"{name}.{ending}" for name in ("one", "two")]
    for path in paths:
        write_sound(path, notes)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    samples, rate = soundfile.read(paths[0])  # libvorbis holds the checksum of every page against it
    assert rate == SAMPLE_RATE and len(samples) == pytest.approx(len(expected), abs=2500)
    length = min(len(samples), len(expected))
    assert np.corrcoef(samples[:length, 0], expected[:length, 0])[0, 1] > 0.99
    assert level(samples * 32768, 0, 3) == pytest.approx(level(expected, 0, 3), rel=0.02)


def test_another_ending_is_refused(etude: Callable[..., Notes], tmp_path) -> None:
    with pytest.raises(UserError, match=r"\.flac or \.wav or \.mp3 or \.ogg, got \.aiff"):
        write_sound(tmp_path / "music.aiff", etude(1))


def test_it_is_much_faster_than_real_time(etude: Callable[..., Notes]) -> None:
    notes = etude(30, per_second=16)
    started = time.process_time()
    sound(notes)
    assert time.process_time() - started < 30 / 6
