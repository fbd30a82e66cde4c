"""The `fit_tokenizer` stage: fits the tokenizer on the train split and measures its round-trip errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from coma_gen.config.schema import TokenizerParams
from coma_gen.core.artifact import verify_artifact
from coma_gen.core.io import atomic_dir
from coma_gen.corpus.read import read_performance
from coma_gen.corpus.table import Performance, read_table
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.remi import Tokenizer
from coma_gen.tokenizer.round_trip import check, fidelity


def fit_tokenizer(
    params: TokenizerParams, split_folder: Path, corpus_folder: Path, destination: Path
) -> dict[str, Any]:
    """Builds the tokenizer, trains BPE if `vocab_size` is set, and checks its round-trip errors.

    Args:
        params: Tokenizer section.
        split_folder: Artifact "split"; BPE is trained on train.csv only.
        corpus_folder: Folder that the tables' file names are relative to.
        destination: Artifact "tokenizer" to write.

    Returns:
        Metrics: vocab_size, base_vocab_size, tokens_per_note (of train), and fidelity (see `fidelity`) on
        `fidelity_performances` evenly spaced performances of train and on all of validation.

    Raises:
        UserError: If the params contradict each other, a folder is not intact, or an error exceeds its limit.
    """
    tokenizer = Tokenizer.build(params)
    split = verify_artifact(split_folder, kind="split")
    train, validation = (read_table(split_folder / f"{name}.csv") for name in ("train", "validation"))
    if params.vocab_size is not None:
        tokenizer.fit(_music(train, corpus_folder, "learning byte pairs"))
    sample = [train[index] for index in evenly_spaced(len(train), params.fidelity_performances)]
    measured = {
        name: fidelity(tokenizer, _music(rows, corpus_folder, f"round trip, {name}"))
        for name, rows in (("train", sample), ("validation", validation))
    }
    check(measured, params)
    with atomic_dir(destination) as building:
        tokenizer.save(building, made_from={"split": split.digest})
    return {
        "vocab_size": tokenizer.vocab_size,
        "base_vocab_size": len(tokenizer.vocabulary.base),
        "tokens_per_note": measured["train"]["tokens_per_note"],
        "fidelity": measured,
    }


def evenly_spaced(count: int, number: int) -> list[int]:
    """Returns at most `number` of `count` indices, from the middles of equal intervals."""
    number = min(count, number)
    return [(2 * index + 1) * count // (2 * number) for index in range(number)]


def _music(table: Sequence[Performance], folder: Path, desc: str) -> Iterator[Notes]:
    for row in tqdm(table, desc=desc, unit="file", disable=None):
        yield read_performance(folder, row)
