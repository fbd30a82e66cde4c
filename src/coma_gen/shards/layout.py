"""How tokens lie on disk: what the writer and the reader agree on.

data/shards/
    train/tokens-00000.npy      (T,) u2: BOS piece EOS BOS piece EOS ..., no piece across two files
    train/tokens-00001.npy
    train/index.parquet         one row a piece, in the order of the files
    validation/ test/           the same
    shifts.npy                  (K, V) u2: row k gives the id that stands for each id; row 0 changes nothing
    shifts.json                 the semitones and velocity bins of each row
    manifest.json               settings: vocab_size, pad_id, bos_id, eos_id
"""

from __future__ import annotations

from pathlib import Path

KIND = "shards"
SPLITS = ("train", "validation", "test")
INDEX = "index.parquet"
SHIFTS = "shifts.npy"
SHIFTS_LEGEND = "shifts.json"


def token_file(folder: Path, split: str, shard: int) -> Path:
    """The file of one shard of a split."""
    return folder / split / f"tokens-{shard:05d}.npy"
