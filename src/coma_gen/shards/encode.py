"""Encodes the copies of a performance to ids and index rows.

The result is a pure function of the performance and `ShardInputs`, so any process on any machine can encode
any part of the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coma_gen.config.schema import ShardParams
from coma_gen.core.artifact import read_manifest, verify_artifact
from coma_gen.core.errors import Fault, UserError
from coma_gen.corpus.read import read_performance
from coma_gen.corpus.table import Performance
from coma_gen.midi.augment import scale_tempo
from coma_gen.midi.notes import Notes
from coma_gen.shards.augment import IDENTITY, Augmentation, augmentations_for
from coma_gen.tokenizer.remi import Tokenizer
from coma_gen.tokenizer.vocabulary import Ids


class EncodedPerformance(NamedTuple):
    """One copy of one performance.

    Attributes:
        row: Index row (see `stage.SCHEMA`) without shard and offset.
        ids: (T,) u2, BOS and EOS included.
    """

    row: dict[str, Any]
    ids: Ids


@dataclass(frozen=True)
class ShardInputs:
    """Inputs of the shards; small enough to be pickled for every worker.

    Attributes:
        shard: Shard section.
        split: Artifact "split" with train.csv, validation.csv and test.csv.
        corpus: Folder that the tables' file names are relative to.
        tokenizer: Artifact "tokenizer".
        made_from: Digests of the tokenizer and the split.
    """

    shard: ShardParams
    split: Path
    corpus: Path
    tokenizer: Path
    made_from: dict[str, str]

    @classmethod
    def of(cls, shard: ShardParams, split: Path, corpus: Path, tokenizer: Path) -> ShardInputs:
        """Verifies the split and the tokenizer, and that corpus, split and tokenizer match.

        Raises:
            UserError: If an artifact is not intact or was made from other inputs.
        """
        tables = verify_artifact(split, kind="split")
        learned = verify_artifact(tokenizer, kind="tokenizer")
        faults = []
        if (digest := read_manifest(corpus, kind="corpus").digest) != tables.made_from.get("corpus", digest):
            faults.append(_mismatch(corpus, "the corpus that the split was made from"))
        if tables.digest != learned.made_from.get("split", tables.digest):
            faults.append(_mismatch(tokenizer, "a tokenizer that was made from this split"))
        if faults:
            raise UserError(*faults)
        return cls(shard, split, corpus, tokenizer, {"tokenizer": learned.digest, "split": tables.digest})

    def open_tokenizer(self) -> Tokenizer:
        """Loads the tokenizer, once per process.

        Raises:
            UserError: If the artifact is not intact or has changed since.
        """
        return _load_tokenizer(self.tokenizer, self.made_from["tokenizer"])


def encode(performance: Performance, *, source: ShardInputs) -> list[EncodedPerformance]:
    """Encodes all copies of a performance, the original first; only the train split has others.

    Raises:
        UserError: If its file cannot be read or differs from the one that was split.
    """
    tokenizer = source.open_tokenizer()
    notes = read_performance(source.corpus, performance)
    copies: tuple[Augmentation, ...] = (IDENTITY,)
    if performance.split == "train":
        byte_pairs = tokenizer.vocabulary.learned
        copies = augmentations_for(source.shard, performance.midi_filename, byte_pairs=byte_pairs)
    return [_encode_copy(performance, notes, copy, tokenizer) for copy in copies]


def _encode_copy(
    performance: Performance, notes: Notes, copy: Augmentation, tokenizer: Tokenizer
) -> EncodedPerformance:
    played = notes if copy.tempo_factor == 1.0 else scale_tempo(notes, copy.tempo_factor)
    grid = tokenizer.grid(played)
    if copy.semitones or copy.velocity_bins:
        grid = grid.shifted(copy.semitones, copy.velocity_bins, tokenizer.vocabulary)
    body = tokenizer.encode_grid(grid)
    ids = np.concatenate([[tokenizer.bos_id], body, [tokenizer.eos_id]]).astype(np.uint16)
    row = {
        "midi_filename": performance.midi_filename,
        "composer": performance.composer,
        "title": performance.title,
        "split": performance.split,
        "copy": copy.number,
        "tempo_factor": copy.tempo_factor,
        "semitones": copy.semitones,
        "velocity_bins": copy.velocity_bins,
        "tokens": len(ids),
        "notes": len(notes),
        "seconds": performance.duration / copy.tempo_factor,
        "resolution_bits": tokenizer.vocabulary.total_resolution_bits(body),
    }
    return EncodedPerformance(row, ids)


@lru_cache(maxsize=1)
def _load_tokenizer(folder: Path, digest: str) -> Tokenizer:
    tokenizer = Tokenizer.load(folder)
    if tokenizer.digest != digest:
        raise UserError(_mismatch(folder, "the tokenizer that this work began with"))
    return tokenizer


def _mismatch(where: Path, rule: str) -> Fault:
    return Fault(str(where), f"must be {rule}", "another", "run `dvc repro`")
