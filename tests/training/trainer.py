"""A tiny run for the tests, in this process or as a program that can be stopped.

python trainer.py FOLDER STEPS_PER_SECOND      one run, as slow as asked
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from coma_gen.config.schema import ModelParams, TrainParams
from coma_gen.core.artifact import write_manifest
from coma_gen.core.io import atomic_dir
from coma_gen.model.conformer import Conformer
from coma_gen.model.device import deterministic
from coma_gen.shards.conditions import WindowConditions
from coma_gen.shards.layout import INDEX, KIND, token_file
from coma_gen.shards.read import ShardedSplit
from coma_gen.training.distillation import Teacher
from coma_gen.training.distributed import SINGLE_PROCESS, Distributed
from coma_gen.training.loop import train_model
from coma_gen.training.progress import TrainingResult
from coma_gen.training.signals import TrainingInterrupted

VOCABULARY = 12
PAD, BOS, EOS = 0, 1, 2
KEY = "a" * 64
SHORT = 4
"""Steps of a short run."""


class Tokens:
    """A split in memory, as much of one as validation needs."""

    def __init__(self, pieces: list[np.ndarray]) -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return len(self.pieces)

    def piece(self, index: int) -> np.ndarray:
        return self.pieces[index]


def noise(*lengths: int, seed: int) -> list[np.ndarray]:
    """Pieces of noise from BOS to EOS, of these lengths."""
    draws = np.random.default_rng(seed)
    inner = [draws.integers(3, VOCABULARY, length - 2) for length in lengths]
    return [np.concatenate(([BOS], middle, [EOS])).astype(np.uint16) for middle in inner]


def circle(length: int, period: int = 3) -> list[np.ndarray]:
    """One piece that counts in a circle."""
    inner = 3 + np.arange(length) % period
    return [np.concatenate(([BOS], inner, [EOS])).astype(np.uint16)]


TRAIN, VALIDATION = noise(30, 21, 50, seed=1), noise(19, 10, seed=2)


def write_shards(folder: Path, **splits: list[np.ndarray]) -> None:
    """Lays pieces on disk as the shard stage does, with as much of the index as training reads."""
    with atomic_dir(folder) as building:
        for split, pieces in splits.items():
            (building / split).mkdir()
            lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
            columns = {
                "copy": 0 * lengths,
                "shard": 0 * lengths,
                "offset": np.cumsum(lengths) - lengths,
                "tokens": lengths,
            }
            pd.DataFrame(columns).to_parquet(building / split / INDEX)
            np.save(
                token_file(building, split, 0),
                np.concatenate([*pieces, np.empty(0, np.uint16)]).astype(np.uint16),
            )
        write_manifest(building, kind=KIND, made_from={}, settings={"vocab_size": VOCABULARY, "pad_id": PAD})


def make_params(**changes: Any) -> TrainParams:
    settings: dict[str, Any] = {
        "seed": 0,
        "seq_len": 8,
        "micro_batch": 2,
        "grad_accum_steps": 2,
        "steps": 10,
        "max_minutes": None,
        "optimizer": "muon",
        "muon_learning_rate": 0.02,
        "muon_momentum": 0.95,
        "muon_weight_decay": 0.01,
        "learning_rate": 0.01,
        "embedding_rate_ratio": 2.0,
        "schedule": "linear",
        "decay_fraction": 1.0,
        "warmup_steps": 2,
        "min_learning_rate_ratio": 0.1,
        "weight_decay": 0.1,
        "beta1": 0.9,
        "beta2": 0.98,
        "clip_norm": 1.0,
        "precision": "fp32",
        "streams": "fp32",
        "compile": False,
        "cuda_graphs": False,
        "augment": True,
        "tensorboard": False,
        "log_every": 3,
        "validate_every": 4,
        "checkpoint_every": 2,
        "early_stopping": None,
        "init_from": None,
        "teacher": None,
        "teacher_digest": None,
        "teacher_weight": 0.5,
        "teacher_temperature": 1.0,
    }
    return TrainParams(**(settings | changes))


def make_model(**changes: Any) -> Conformer:
    settings: dict[str, Any] = {
        "dim": 8,
        "num_layers": 1,
        "num_heads": 1,
        "head_dim": 4,
        "window_sizes": (4, 8),
        "attention_position": "rotary",
        "position_embedding": "none",
        "max_seq_len": 64,
        "qk_rmsnorm": True,
        "num_streams": 2,
        "global_attention_layers": (),
        "kernel_size": 3,
        "conv_expansion": 2,
        "ff_expansion": 2.0,
        "branches": ("half_feed_forward", "attention", "convolution", "half_feed_forward"),
        "embedding_dropout": 0.1,
        "attention_dropout": 0.1,
        "ff_dropout": 0.1,
        "conv_dropout": 0.1,
        "conditions": (),
    }
    return Conformer(params=ModelParams(**(settings | changes)), vocab_size=VOCABULARY, seed=0)


def make_teacher(*, weight: float = 0.5, temperature: float = 1.0) -> Teacher:
    """A model of another seed, with an opinion of its own."""
    model = Conformer(params=make_model().params, vocab_size=VOCABULARY, seed=5).eval().requires_grad_(False)
    model.logits.weight.mul_(4.0)
    return Teacher(model, weight, temperature)


SHIFTS = np.stack(
    [np.arange(VOCABULARY), np.concatenate((np.arange(3), np.roll(np.arange(3, VOCABULARY), 1)))]
).astype(np.uint16)


@lru_cache
def open_splits(shards: Path) -> tuple[ShardedSplit, ShardedSplit]:
    """Train and validation, opened once (a forked child takes over what its parent opened)."""
    return ShardedSplit.open(shards, "train"), ShardedSplit.open(shards, "validation")


def train(
    folder: Path,
    *,
    model: torch.nn.Module | None = None,
    key: str = KEY,
    shards: Path | None = None,
    train_pieces: list[np.ndarray] = TRAIN,
    validation_pieces: list[np.ndarray] = VALIDATION,
    device: str = "cpu",
    ranks: Distributed = SINGLE_PROCESS,
    conditions: WindowConditions | None = None,
    teacher: Teacher | None = None,
    **changes: Any,
) -> Any:
    """Trains the tiny model with `folder` as its resume folder; `changes` go to its params.

    As one of several `ranks` but the first it gives None.
    """
    shards = shards or folder.with_name(f"{folder.name}.shards")
    if not shards.exists():
        write_shards(shards, train=train_pieces, validation=validation_pieces)
    train_split, validation_split = open_splits(shards)
    return train_model(
        model=model if model is not None else make_model(),
        train_split=train_split,
        validation_split=validation_split,
        shifts=SHIFTS,
        params=make_params(**changes),
        threads=1,
        device=device,
        pad_id=PAD,
        resume=folder,
        key=key,
        ranks=ranks,
        conditions=conditions,
        teacher=teacher,
    )


def digest(result: TrainingResult) -> str:
    """One digest of all that a run gives: both weights, the curve, the metrics."""
    total = hashlib.sha256(result.curve.read_bytes())
    total.update(json.dumps(result.metrics, sort_keys=True).encode())
    for state in (result.best_state, result.last_state):
        for name, value in sorted(state.items()):
            total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()


def prepare(folder: Path) -> None:
    """Writes the shards that every run in `folder` reads, and does what its children need not do again.

    Nothing that starts a thread and no backward pass, after which torch refuses to train in a child.
    """
    make_model()
    with deterministic(1):  # imports half of torch
        pass
    write_shards(folder / "shards", train=TRAIN, validation=VALIDATION)
    open_splits(folder / "shards")


def train_slowly(folder: Path, steps_per_second: float) -> None:
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell may have started us with SIGINT ignored
    model = make_model()
    model.register_forward_hook(lambda *_: time.sleep(0.5 / steps_per_second))
    try:
        train(folder, model=model)
    except TrainingInterrupted as stopped:
        print(stopped, flush=True)  # noqa: T201
        raise SystemExit(stopped.exit_status) from None


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_slowly(Path(sys.argv[1]), float(sys.argv[2]))
