"""A small corpus from MIDI to shards, and an untrained model over its tokens, written by the library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coma_gen.config.load import load_params
from coma_gen.config.schema import Params
from coma_gen.core.artifact import write_manifest
from coma_gen.core.io import sha256_file
from coma_gen.corpus.table import Performance, write_table
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes
from coma_gen.model.conformer import Conformer
from coma_gen.model.serialization import save_model
from coma_gen.shards.read import ShardedSplit
from coma_gen.shards.stage import write_shards
from coma_gen.tokenizer.remi import Tokenizer
from coma_gen.tokenizer.vocabulary import Vocabulary

SMALL = {"dim": 16, "num_layers": 1, "num_heads": 2, "head_dim": 8, "window_sizes": (8, 16), "kernel_size": 5}
SPLITS = {"train": 4, "validation": 2, "test": 3}
COMPOSERS = ("Ada", "Ada", "Bo")
SECONDS = 13.0


def played(seed: int, *, seconds: float = SECONDS, per_second: float = 5.0) -> Notes:
    """Notes drawn from a seed; no key is struck twice within 100 ms."""
    draw = np.random.default_rng(seed)
    count = int(seconds * per_second)
    slots = draw.choice(int(seconds * 10) * 40, size=count, replace=False)
    onset = slots // 40 * 0.1 + draw.random(count) * 0.02
    return Notes.of(onset, draw.uniform(0.05, 1.0, count), 40 + slots % 40, draw.integers(20, 120, count))


@dataclass(frozen=True)
class Made:
    """Where everything lies.

    Attributes:
        params: the project's, with a small model.
        split: the split stage's folder.
        corpus: the MIDI files.
        tokenizer: the tokenizer's folder.
        shards: the tokens.
        model: an untrained model.
    """

    params: Params
    split: Path
    corpus: Path
    tokenizer: Path
    shards: Path
    model: Path

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.load(self.tokenizer)

    def sharded(self, name: str) -> ShardedSplit:
        return ShardedSplit.open(self.shards, name)


def _corpus(folder: Path) -> tuple[Path, Path]:
    split, corpus = folder / "split", folder / "corpus"
    split.mkdir()
    corpus.mkdir()
    seed = 0
    for name, count in SPLITS.items():
        rows = []
        for number in range(count):
            notes, file = played(seed), f"{name}-{number}.mid"
            (corpus / file).write_bytes(midi_bytes(notes))
            row = Performance(COMPOSERS[number % 3], f"Piece {number}", name, "", file, SECONDS)
            rows.append(
                Performance(**{**_fields(row), "sha256": sha256_file(corpus / file), "notes": len(notes)})
            )
            seed += 1
        write_table(split / f"{name}.csv", rows)
    made = write_manifest(corpus, kind="corpus", made_from={}, settings={})
    write_manifest(split, kind="split", made_from={"corpus": made.digest}, settings={})
    return split, corpus


def _fields(row: Performance) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def make(folder: Path) -> Made:
    """Writes everything into a folder."""
    params = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
    params = params.model_copy(
        update={
            "model": params.model.model_copy(update=SMALL),
            "shard": params.shard.model_copy(update={"transpose": 0, "velocity_shift": 0}),
        }
    )
    split, corpus = _corpus(folder)
    tokenizer = Tokenizer.build(params.tokenizer)
    sealed = tokenizer.save(folder / "tokenizer")
    write_shards(params.shard, split, corpus, folder / "tokenizer", folder / "shards")
    conformer = Conformer(params=params.model, vocab_size=tokenizer.vocab_size, seed=0)
    save_model(
        folder / "model",
        conformer,
        weights={name: conformer.state_dict() for name in ("best", "last")},
        tokenizer=folder / "tokenizer",
        made_from={"tokenizer": sealed.digest},
    )
    return Made(params, split, corpus, folder / "tokenizer", folder / "shards", folder / "model")
