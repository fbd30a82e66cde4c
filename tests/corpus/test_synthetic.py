"""Synthetic music: the same bytes on every machine, playable, and learnable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coma_gen.core.io import sha256_bytes, sha256_file
from coma_gen.corpus.synthetic import PROFILES, Dice, Profile, compose, write_synthetic
from coma_gen.midi.io import midi_bytes, read_notes

PINNED = "79b95cc5dfc62376d31d69a279a00b900ac38d0584992b830e39493db20c70f8"


def test_the_bytes_are_pinned(tmp_path: Path) -> None:
    # Another digest here means other music for everybody: a new seed would have been the way.
    rows = write_synthetic(tmp_path, performances=4, seconds=20.0, seed=0)
    digests = [sha256_file(tmp_path / row.midi_filename) for row in rows]
    assert sha256_bytes("".join(digests).encode()) == PINNED


def test_every_split_has_something_from_three_on(tmp_path: Path) -> None:
    rows = write_synthetic(tmp_path, performances=3, seconds=5.0, seed=1)
    assert sorted(row.split for row in rows) == ["test", "train", "validation"]
    rows = write_synthetic(tmp_path, performances=30, seconds=5.0, seed=1)
    splits = [row.split for row in rows]
    assert (splits.count("train"), splits.count("validation"), splits.count("test")) == (24, 3, 3)


def test_more_performances_leave_the_first_as_they_are_and_a_seed_changes_them(tmp_path: Path) -> None:
    few = write_synthetic(tmp_path / "few", performances=3, seconds=5.0, seed=2)
    many = write_synthetic(tmp_path / "many", performances=5, seconds=5.0, seed=2)
    other = write_synthetic(tmp_path / "other", performances=3, seconds=5.0, seed=3)
    assert many[:3] == few
    for row, differs in zip(few, other, strict=True):
        content = (tmp_path / "few" / row.midi_filename).read_bytes()
        assert content == (tmp_path / "many" / row.midi_filename).read_bytes()
        assert content != (tmp_path / "other" / differs.midi_filename).read_bytes()


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.form)
@pytest.mark.parametrize("seconds", [5.0, 61.7])
def test_a_piece_is_piano_music_of_the_length_asked_for(profile: Profile, seconds: float) -> None:
    for seed in range(5):
        title, notes = compose(profile, Dice(seed), number=7, seconds=seconds)
        assert notes == read_notes(midi_bytes(notes))
        assert abs(notes.end - seconds) < 1 / 3840
        assert notes.pitch.min() >= 21
        assert notes.pitch.max() <= 108
        assert len(np.unique(notes.velocity)) > 3
        assert title.startswith(f"{profile.form} No. 7 in ")


def test_composers_differ_and_keep_to_a_key() -> None:
    pieces = [compose(profile, Dice(profile.form), number=1, seconds=120.0)[1] for profile in PROFILES]
    density = [len(piece) / 120 for piece in pieces]
    assert max(density) > 2 * min(density)
    assert [bool(len(piece.pedal)) for piece in pieces] == [profile.pedal for profile in PROFILES]
    assert all(len(np.unique(piece.pitch % 12)) <= 7 for piece in pieces)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.form)
def test_a_bigram_learns_what_follows(profile: Profile) -> None:
    """Held out, a note is better foretold by the note before it than by how often it occurs."""
    train = [_pitches(profile, seed) for seed in range(30)]
    test = [_pitches(profile, seed) for seed in range(30, 36)]
    alone, pairs = np.full(128, 0.1), np.full((128, 128), 0.02)
    for pitch in train:
        np.add.at(alone, pitch, 1)
        np.add.at(pairs, (pitch[:-1], pitch[1:]), 1)
    unigram = np.concatenate([-np.log(alone / alone.sum())[pitch[1:]] for pitch in test]).mean()
    given = -np.log(pairs / pairs.sum(axis=1, keepdims=True))
    bigram = np.concatenate([given[pitch[:-1], pitch[1:]] for pitch in test]).mean()
    assert bigram < unigram - 0.15


def _pitches(profile: Profile, seed: int) -> np.ndarray:
    return compose(profile, Dice("learn", seed), number=1, seconds=120.0)[1].pitch.astype(int)
