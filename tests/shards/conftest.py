"""A small corpus, its split and its tokenizers, all made in code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coma_gen.config.schema import ShardParams, TokenizerParams
from coma_gen.core.artifact import write_manifest
from coma_gen.corpus.table import Performance, write_table
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.remi import Tokenizer

TRAIN = 64
"""Enough performances for two workers."""


def _notes(seed: int) -> Notes:
    draw = np.random.default_rng(seed)
    count = 20 + seed % 7
    slots = draw.choice(60 * 80, size=count, replace=False)
    onset, pitch = (slots // 80) * 0.1, 24 + slots % 80
    velocity = draw.integers(20, 110, count)
    return Notes.of(onset, draw.exponential(0.3, count), pitch, velocity, [[0.5, 1.5]])


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The split and the corpus."""
    root = tmp_path_factory.mktemp("music")
    split, corpus = root / "split", root / "corpus"
    split.mkdir()
    corpus.mkdir()
    tables: dict[str, list[Performance]] = {"train": [], "validation": [], "test": []}
    for seed in range(TRAIN + 4):
        name = "train" if seed < TRAIN else ("validation" if seed < TRAIN + 2 else "test")
        notes, file = _notes(seed), f"{seed:03d}.mid"
        (corpus / file).write_bytes(midi_bytes(notes))
        row = Performance("A / B", f"Étude {seed % 5}", name, "2004", file, notes.end, notes=len(notes))
        tables[name].append(row)
    for name, rows in tables.items():
        write_table(split / f"{name}.csv", rows)
    made = write_manifest(corpus, kind="corpus", made_from={}, settings={})
    write_manifest(split, kind="split", made_from={"corpus": made.digest}, settings={})
    return split, corpus


def _params(vocab_size: int | None) -> TokenizerParams:
    return TokenizerParams(
        positions_per_beat=24,
        duration_bins=((0, 1, 24), (1, 4, 12)),
        velocities=32,
        pitch_range=(21, 108),
        pedal="extend",
        vocab_size=vocab_size,
        fidelity_performances=1,
        max_onset_rms_ms=7.0,
        max_end_ratio_error=0.001,
    )


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.build(_params(None)).save(folder)
    return folder


@pytest.fixture(scope="session")
def byte_pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("byte-pairs")
    tokenizer = Tokenizer.build(_params(400))
    tokenizer.fit(_notes(seed) for seed in range(TRAIN))
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="session")
def make_params() -> Callable[..., ShardParams]:
    def make(**changes: Any) -> ShardParams:
        settings = {"transpose": 1, "velocity_shift": 1, "tempo_factors": (), "tokens_per_file": 1024}
        return ShardParams(**{**settings, **changes})

    return make
