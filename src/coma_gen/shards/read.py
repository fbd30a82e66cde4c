"""Tokens from disk, memory-mapped: opening a split costs its index, reading a piece costs its own pages.

Needs no tokenizer and no MIDI reader, so training runs on a machine that has neither.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coma_gen.core.artifact import Manifest, verify_artifact
from coma_gen.core.errors import Fault, UserError
from coma_gen.shards.layout import INDEX, KIND, SHIFTS, SPLITS, token_file

Ids = npt.NDArray[np.uint16]


class ShardedSplit:
    """One split of the shards.

    Attributes:
        index: one row a piece (see `write.SCHEMA`), copies included; copy 0 is the performance as played.
        manifest: of the whole folder.
    """

    def __init__(self, folder: Path, split: str, manifest: Manifest, index: pd.DataFrame) -> None:
        """Use `open`."""
        self.folder = folder
        self.split = split
        self.manifest = manifest
        self.index = index
        self._shard = index["shard"].to_numpy(np.int64)
        self._offset = index["offset"].to_numpy(np.int64)
        self.lengths: npt.NDArray[np.int64] = index["tokens"].to_numpy(np.int64)
        """(N,) tokens of each piece, BOS and EOS included."""
        self._files: dict[int, Ids] = {}
        self._starts: dict[int, npt.NDArray[np.int64]] = {}

    @classmethod
    def open(cls, folder: Path, split: str, *, copies: bool = True) -> ShardedSplit:
        """Opens a split and proves the folder whole.

        Args:
            folder: of the shards.
            split: train, validation or test.
            copies: with the varied copies of the performances; False leaves them out.

        Raises:
            UserError: the folder is not a whole set of shards, or has no such split.
        """
        if split not in SPLITS:
            raise UserError(Fault("split", f"must be one of {', '.join(SPLITS)}", split))
        manifest = verify_artifact(folder, kind=KIND)
        index = pd.read_parquet(folder / split / INDEX)
        return cls(
            folder, split, manifest, index if copies else index[index["copy"] == 0].reset_index(drop=True)
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def settings(self) -> dict[str, Any]:
        """vocab_size, pad_id, bos_id and eos_id."""
        return dict(self.manifest.settings)

    @cached_property
    def num_tokens(self) -> int:
        """Tokens of all pieces, copies included."""
        return int(self.lengths.sum())

    @cached_property
    def originals(self) -> npt.NDArray[np.int64]:
        """(M,) indices of the pieces as played, which are what one evaluates on."""
        return np.flatnonzero(self.index["copy"].to_numpy() == 0)

    def piece(self, index: int) -> Ids:
        """(T,) ids of a piece, BOS first and EOS last; a view of the file, not to be written to."""
        start = self._offset[index]
        return self._file(int(self._shard[index]))[start : start + self.lengths[index]]

    def window_ends(self, seq_len: int) -> npt.NDArray[np.int64]:
        """(N,) running count of the offsets of windows with `seq_len` inputs: those that hold at least one of
        a piece's targets, whether or not they hang over its ends.
        """
        if seq_len not in self._starts:
            self._starts[seq_len] = np.cumsum(self.lengths - 1 + seq_len - 1)
        return self._starts[seq_len]

    def _file(self, shard: int) -> Ids:
        if shard not in self._files:
            self._files[shard] = np.load(token_file(self.folder, self.split, shard), mmap_mode="r")
        return self._files[shard]


def read_shifts(folder: Path) -> Ids:
    """(K, V) the shift tables of a folder of shards; row 0 changes nothing."""
    return np.asarray(np.load(folder / SHIFTS), np.uint16)
