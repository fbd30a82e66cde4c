"""Params and music for the tokenizer's tests, all made in code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from symusic import Note, Pedal, Score, Tempo, TimeSignature, Track

from coma_gen.config.schema import TokenizerParams
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.grid import Grid
from coma_gen.tokenizer.vocabulary import Vocabulary

MakeParams = Callable[..., TokenizerParams]
MakeMusic = Callable[..., Notes]


@pytest.fixture(scope="session")
def make_params() -> MakeParams:
    def make(**changes: Any) -> TokenizerParams:
        settings: dict[str, Any] = {
            "positions_per_beat": 24,
            "duration_bins": ((0, 1, 24), (1, 4, 12), (4, 16, 4)),
            "velocities": 32,
            "pitch_range": (21, 108),
            "pedal": "extend",
            "vocab_size": None,
            "fidelity_performances": 4,
            "max_onset_rms_ms": 7.0,
            "max_end_ratio_error": 0.001,
        }
        return TokenizerParams(**{**settings, **changes})

    return make


@pytest.fixture(scope="session")
def make_music() -> MakeMusic:
    """`count` notes and a few pedals, drawn over `seconds`; no key is struck twice within 50 ms."""

    def make(seed: int, count: int = 60, seconds: float = 20.0, low: int = 30, high: int = 100) -> Notes:
        draw = np.random.default_rng(seed)
        slots = draw.choice(int(seconds * 20) * (high - low + 1), size=count, replace=False)
        slot, pitch = np.divmod(slots, high - low + 1)
        onset = slot * 0.05 + draw.random(count) * 1e-3
        duration = draw.exponential(0.4, count)
        velocity = draw.integers(1, 128, count)
        down = np.sort(draw.choice(int(seconds * 5), size=6, replace=False)) * 0.2
        pedal = np.stack([down, down + draw.uniform(0.05, 0.19, 6)], axis=1)
        return Notes.of(onset, duration, pitch + low, velocity, pedal)

    return make


@pytest.fixture(scope="session")
def score_of() -> Callable[[Grid, Vocabulary], Score]:
    """A grid as miditok takes it: a score whose ticks are positions."""

    def score(grid: Grid, vocabulary: Vocabulary) -> Score:
        made = Score(vocabulary.positions_per_bar // 4)
        made.time_signatures.append(TimeSignature(0, 4, 4))
        made.tempos.append(Tempo(0, 120))
        track = Track()
        track.notes = Note.from_numpy(
            time=grid.onset.astype(np.int32),
            duration=np.asarray(vocabulary.durations, np.int32)[grid.duration],
            pitch=grid.pitch.astype(np.int8),
            velocity=np.asarray(vocabulary.velocities, np.int8)[grid.velocity],
        )
        down, up = grid.pedal.astype(np.int32).T
        track.pedals = Pedal.from_numpy(time=down.copy(), duration=up - down)
        made.tracks.append(track)
        return made

    return score
