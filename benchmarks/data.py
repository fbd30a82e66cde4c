"""Is data loading fast enough for training, and how fast is tokenization?

A synthetic corpus is encoded into shards in a temporary folder. The first table measures plain slices of the
memory-mapped file, training windows as the trainer samples them (with and without augmentation), and the same
directly after a training step, with cold processor caches; the fraction is relative to the training step of
the small model in params.yaml.

The second table measures tokenization of music in memory and of MIDI files: miditok's own loop with the same
vocabulary, which ignores the pedal; ours without the pedal; and ours with the pedal applied to the notes (the
default). Always on the CPU.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from miditok import REMI
from symusic import Score

from benchmarks.learners import ours, take_step
from benchmarks.sizes import PARAMS, Size, model_params
from benchmarks.timing import (
    Variant,
    alternate,
    heading,
    milliseconds,
    parse_settings,
    percent,
    table,
    times,
)
from coma_gen.config.load import load_params
from coma_gen.corpus.build import build_corpus
from coma_gen.corpus.split import split_corpus
from coma_gen.midi.io import read_notes
from coma_gen.midi.notes import Notes
from coma_gen.shards.read import Ids, ShardedSplit, read_shifts
from coma_gen.shards.stage import write_shards
from coma_gen.shards.windows import draw_windows
from coma_gen.tokenizer.remi import MIDITOK_FILE, Tokenizer
from coma_gen.tokenizer.stage import fit_tokenizer

CPU = torch.device("cpu")
SLICES = 1000
"""Slices per measurement: fewer take less time than the clock can resolve."""
DRAWS = 50
"""Batches per measurement."""
MILLION = 1e6
PLAIN_SLICES = "plain slices of the memory map"
MIDITOK, MIDITOK_FILES = "miditok, music to ids", "miditok, file to ids"


@dataclass(frozen=True)
class Corpus:
    """The synthetic corpus after the data stages.

    Attributes:
        files: The MIDI files.
        tokenizer: Folder of the tokenizer.
        train: The train split.
        shifts: Token tables of the augmentations.
    """

    files: list[Path]
    tokenizer: Path
    train: ShardedSplit
    shifts: Ids


def build(folder: Path, *, performances: int, seconds: float) -> Corpus:
    """Runs download, split, fit_tokenizer and shard on a synthetic corpus.

    Args:
        folder: Output folder.
        performances: Number of files.
        seconds: Length of each file.
    """
    params = load_params(PARAMS)
    changes = {"synthetic_performances": performances, "synthetic_seconds": seconds}
    download = params.download.model_copy(update={"corpus": "synthetic", **changes})
    music, split, tokenizer, shards = (folder / name for name in ("corpus", "split", "tokenizer", "shards"))
    build_corpus(download, music, cache=folder, own_folder=folder)
    split_corpus(params.split, music, split)
    fit_tokenizer(params.tokenizer, split, music, tokenizer)
    write_shards(params.shard, split, music, tokenizer, shards, workers=1)
    files = sorted(music.rglob("*.midi"))
    return Corpus(files, tokenizer, ShardedSplit.open(shards, "train"), read_shifts(shards))


def training_size(vocab_size: int) -> Size:
    """Returns the model and batch size of params.yaml."""
    train = load_params(PARAMS).train
    shape = model_params()
    return Size("params.yaml", shape, vocab_size, train.micro_batch, train.seq_len, 0, {})


def measure_windows(corpus: Corpus, size: Size, *, rounds: int, draws: int = DRAWS) -> str:
    """Measures the sampling of training windows from the shards.

    Args:
        corpus: The corpus.
        size: Model, batch size and window length.
        rounds: Measurements of each variant.
        draws: Batches per measurement.
    """
    step = take_step(ours(size, CPU), size, CPU)
    batch, length = size.batch, size.tokens
    trained = f"training step of {batch} x {length}"
    variants: dict[str, tuple[int, Variant]] = {
        PLAIN_SLICES: (SLICES, Variant(partial(read_slices, corpus.train, length))),
        "windows, no augmentation": (
            draws * batch,
            Variant(batch_sampler(corpus, size, draws, augment=False)),
        ),
        "windows, augmented": (draws * batch, Variant(batch_sampler(corpus, size, draws, augment=True))),
        "the same, after a training step": (
            batch,
            Variant(batch_sampler(corpus, size, 1, augment=True), step),
        ),
        trained: (batch, Variant(step)),
    }
    timings = alternate({name: variant for name, (_, variant) in variants.items()}, rounds=rounds, device=CPU)
    rows = []
    for name, (windows, _) in variants.items():
        seconds = timings[name].median / windows
        share = f"{batch * seconds / timings[trained].median:.2%}"
        speeds = [f"{1 / seconds:,.0f}", f"{length / seconds / MILLION:,.3g}"]
        rows.append([name, *speeds, percent(timings[name].spread), "-" if name == PLAIN_SLICES else share])
    return table(["from the shards", "windows/s", "million tokens/s", "spread", "of a step"], rows)


def read_slices(split: ShardedSplit, length: int) -> int:
    """Copies `SLICES` slices of `length` tokens out of the pieces; returns the sum of their first tokens."""
    total = 0
    for number in range(SLICES):
        piece = split.piece(number % len(split))
        start = (number * 7919) % max(1, len(piece) - length)
        total += int(np.array(piece[start : start + length])[0])
    return total


def batch_sampler(corpus: Corpus, size: Size, draws: int, *, augment: bool) -> Callable[[], None]:
    """Returns a function that samples batches as the trainer does, different ones at each call."""
    settings = corpus.train.settings
    step = 0

    def draw() -> None:
        nonlocal step
        for _ in range(draws):
            step += 1
            draw_windows(
                corpus.train,
                seed=0,
                step=step,
                batch=size.batch,
                seq_len=size.tokens,
                shifts=corpus.shifts if augment else None,
                pad_id=settings["pad_id"],
            )

    return draw


def measure_tokenization(corpus: Corpus, *, rounds: int) -> str:
    """Measures the tokenization of the files.

    Args:
        corpus: The files and the tokenizer.
        rounds: Measurements of each variant.
    """
    ours = Tokenizer.load(corpus.tokenizer)
    without_pedal = Tokenizer.build(load_params(PARAMS).tokenizer.model_copy(update={"pedal": "ignore"}))
    theirs = REMI(params=corpus.tokenizer / MIDITOK_FILE)
    music, scores = [read_notes(path) for path in corpus.files], [Score(path) for path in corpus.files]

    def encode_miditok(files: Iterable[Any]) -> int:
        return sum(len(theirs(score)[0].ids) for score in files)

    def encode_ours(tokenizer: Tokenizer, files: Iterable[Notes]) -> int:
        return sum(len(tokenizer.encode(notes)) for notes in files)

    variants: dict[str, Callable[[], int]] = {
        MIDITOK: lambda: encode_miditok(scores),
        "ours, music to ids, without pedal": lambda: encode_ours(without_pedal, music),
        "ours, music to ids": lambda: encode_ours(ours, music),
        MIDITOK_FILES: lambda: encode_miditok(map(Score, corpus.files)),
        "ours, file to ids, without pedal": lambda: encode_ours(without_pedal, map(read_notes, corpus.files)),
        "ours, file to ids": lambda: encode_ours(ours, map(read_notes, corpus.files)),
    }
    timings = alternate({name: Variant(run) for name, run in variants.items()}, rounds=rounds, device=CPU)
    rows = []
    for name, run in variants.items():
        seconds, tokens = timings[name].median, run()
        per_file = seconds / len(corpus.files)
        speeds = [f"{1 / per_file:,.0f}", f"{tokens:,}", f"{tokens / seconds / MILLION:,.3g}"]
        ratio = times(timings[MIDITOK_FILES if "file" in name else MIDITOK].median / seconds)
        rows.append([name, milliseconds(per_file), percent(timings[name].spread), *speeds, ratio])
    head = ["tokenization", "ms a file", "spread", "files/s", "tokens", "million tokens/s"]
    return table([*head, "faster than miditok"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark and prints both tables."""
    settings = parse_settings("benchmarks.data", str(__doc__), arguments)
    performances, seconds, rounds = (12, 60.0, 3) if settings.short else (40, 300.0, 7)
    print(heading("Data", CPU, ("miditok", "symusic")))
    with tempfile.TemporaryDirectory(prefix="benchmark-data-") as folder:
        corpus = build(Path(folder), performances=performances, seconds=seconds)
        size = training_size(corpus.train.settings["vocab_size"])
        print(f"{performances} synthetic performances of {seconds:g} s, {rounds} rounds\n")
        print(measure_windows(corpus, size, rounds=rounds), end="\n\n", flush=True)
        print(measure_tokenization(corpus, rounds=rounds), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
