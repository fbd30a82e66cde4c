"""File layout of the shards, shared by writer and reader.

data/shards/
    train/tokens-00000.npy      (T,) u2: BOS piece EOS BOS piece EOS ...; no piece spans two files
    train/tokens-00001.npy
    train/index.parquet         one row per piece, in file order
    validation/ test/           the same
    shifts.npy                  (K, V) u2: row k maps each id to its shifted id; row 0 is the identity
    shifts.json                 semitones and velocity bins of each row
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
    """Returns the path of one shard of a split."""
    return folder / split / f"tokens-{shard:05d}.npy"
