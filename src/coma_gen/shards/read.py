"""Memory-mapped reading of shards: opening a split reads its index, reading a piece reads its own pages.

It imports neither the tokenizer nor a MIDI reader, so training runs on machines without them.
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
        folder: Folder of the shards.
        split: "train", "validation" or "test".
        manifest: Manifest of the folder.
        index: One row per piece (see `stage.SCHEMA`), copies included; copy 0 is the original.
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
        """(N,) number of tokens of each piece, BOS and EOS included."""
        self._files: dict[int, Ids] = {}
        self._starts: dict[int, npt.NDArray[np.int64]] = {}

    @classmethod
    def open(cls, folder: Path, split: str, *, copies: bool = True) -> ShardedSplit:
        """Opens a split and verifies the folder.

        Args:
            folder: Folder of the shards.
            split: "train", "validation" or "test".
            copies: Whether to include augmented copies of the performances.

        Raises:
            UserError: If the folder is not an intact artifact of shards, or `split` is not a split.
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
        """Number of tokens of all pieces, copies included."""
        return int(self.lengths.sum())

    @cached_property
    def originals(self) -> npt.NDArray[np.int64]:
        """(M,) indices of the original pieces, without augmented copies."""
        return np.flatnonzero(self.index["copy"].to_numpy() == 0)

    def piece(self, index: int) -> Ids:
        """Returns the ids (T,) of a piece from BOS to EOS, as a read-only view of the file."""
        start = self._offset[index]
        return self._file(int(self._shard[index]))[start : start + self.lengths[index]]

    def window_ends(self, seq_len: int) -> npt.NDArray[np.int64]:
        """Returns the cumulative number (N,) of window offsets per piece.

        A piece's offsets are those of all windows of `seq_len` inputs with at least one of its targets,
        including windows that extend beyond its ends.
        """
        if seq_len not in self._starts:
            self._starts[seq_len] = np.cumsum(self.lengths - 1 + seq_len - 1)
        return self._starts[seq_len]

    def _file(self, shard: int) -> Ids:
        if shard not in self._files:
            self._files[shard] = np.load(token_file(self.folder, self.split, shard), mmap_mode="r")
        return self._files[shard]


def read_shifts(folder: Path) -> Ids:
    """Reads the shift tables (K, V) of a folder of shards; row 0 is the identity."""
    return np.asarray(np.load(folder / SHIFTS), np.uint16)
