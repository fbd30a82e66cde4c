"""What the samples are, beside real music: the figures of the stage `sample`.

They are all worked out here and not in the stage `baseline`, although real music stands against real music
without any model: the noise floor must be of as many excerpts as there are samples, of their length, and the
search for shared passages costs the same with held-out music in it as without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from coma_gen.config.schema import SampleParams
from coma_gen.core.artifact import read_manifest
from coma_gen.core.errors import UserError
from coma_gen.evaluation.excerpts import Excerpt, excerpts, music_of
from coma_gen.evaluation.memorization import Passage, longest_passages, symbols
from coma_gen.evaluation.music_metrics import measure_all
from coma_gen.evaluation.overlap import compare_sets, set_size
from coma_gen.evaluation.splits import check_tokens
from coma_gen.evaluation.tables import write_parquet
from coma_gen.generation.generate import Continuation
from coma_gen.midi.io import read_notes
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Vocabulary

TABLE = "measures.parquet"
Metrics = dict[str, Any]


def sample_metrics(
    params: SampleParams, pieces: Sequence[Continuation], model: Path, shards: Path, samples: Path
) -> Metrics:
    """What the samples are, beside excerpts of train and test.

    Args:
        params: the sample section.
        pieces: what was generated; of continuations only what is new is measured.
        model: what the train stage wrote.
        shards: the tokens that it was trained on, and those of test.
        samples: the folder of the written samples; `TABLE` is put beside them, with the measures and the
            longest shared passage of every sample and excerpt.

    Returns:
        Counts of samples, tokens, bars where a piece was stuck and went back, tokens that were dropped by
        that, notes, pieces cut at the bound on tokens, without notes, and breaking the
        grammar; share of files that decode to notes; the mean probability that the model gave to tokens that
        may not follow, which is the share of invalid transitions that it would have made; how many excerpts
        there are, and how many pieces of each set are held against each other at a time; `music` (see
        `comparison.compare`) and `memorization` (see `memorization_figures`).

    Raises:
        UserError: when the shards were made by another tokenizer than the model's.
    """
    check_tokens(shards, read_manifest(model, kind="model"), model)
    vocabulary = Vocabulary.load(model / "tokenizer")
    train = ShardedSplit.open(shards, "train")
    made = [Excerpt("", 0.0, piece.new) for piece in pieces if len(piece.new)]
    sets = {"samples": made}
    for split in (train, ShardedSplit.open(shards, "test")):
        sets[split.split] = excerpts(split, vocabulary, count=params.excerpts, seconds=params.seconds)
    values = {name: measure_all([part.notes for part in of]) for name, of in sets.items()}
    passages = _passages(train, vocabulary, sets)
    names = train.index["midi_filename"].iloc[train.originals].tolist()
    write_parquet(samples / TABLE, _rows(sets, values, passages, names))
    return {
        "samples": len(pieces),
        "seed": params.seed,
        "tokens": sum(piece.tokens for piece in pieces),
        "rewinds": sum(piece.rewinds for piece in pieces),
        "tokens_redrawn": sum(piece.redrawn for piece in pieces),
        "notes": sum(len(piece.new) for piece in pieces),
        "cut_at_max_tokens": sum(not piece.reached for piece in pieces),
        "without_notes": len(pieces) - len(made),
        "invalid": sum(not piece.valid for piece in pieces),
        "files_that_decode": float(np.mean([_decodes(path) for path in sorted(samples.glob("*.mid"))])),
        "illegal_probability": float(np.mean([piece.illegal for piece in pieces])),
        "excerpts": {
            "seconds": params.seconds,
            **{name: len(sets[name]) for name in ("train", "test")},
            "at_a_time": set_size(*map(len, sets.values())),
        },
        "music": compare_sets(values["samples"], values["train"], values["test"], seed=params.seed),
        "memorization": memorization_figures(
            {name: [passage.notes for passage in of] for name, of in passages.items()}
        ),
    }


def memorization_figures(notes: dict[str, list[int]]) -> dict[str, dict[str, float]]:
    """The longest passages shared with the train split.

    Args:
        notes: for each of "samples" and "test", how many notes the longest passage of each piece has.

    Returns:
        For both: pieces, mean_notes, longest_notes; and for test longest_notes_of_as_many, which is to be
        expected of the longest among as many excerpts as there are samples (or all, when there are fewer).
    """
    found: dict[str, dict[str, float]] = {
        name: {"pieces": len(of), "mean_notes": float(np.mean(of)), "longest_notes": max(of)}
        for name, of in notes.items()
        if of
    }
    if len(found) == len(notes):
        total = len(notes["test"])
        number = min(len(notes["samples"]), total)
        ways = [comb(rank, number - 1) for rank in range(total)]
        expected = sum(way * of for way, of in zip(ways, sorted(notes["test"]), strict=True)) / comb(
            total, number
        )
        found["test"]["longest_notes_of_as_many"] = expected
    return found


def _decodes(path: Path) -> bool:
    """Whether a MIDI file can be read, and has notes."""
    try:
        return len(read_notes(path)) > 0
    except UserError:
        return False


def _passages(
    train: ShardedSplit, vocabulary: Vocabulary, sets: dict[str, list[Excerpt]]
) -> dict[str, list[Passage]]:
    """The longest passage that each sample, and each excerpt of test, shares with the train split."""
    pieces = [symbols(part.notes) for name in ("samples", "test") for part in sets[name]]
    known = [symbols(music_of(train, int(row), vocabulary)) for row in train.originals]
    found = longest_passages(known, pieces)
    return {"samples": found[: len(sets["samples"])], "test": found[len(sets["samples"]) :]}


def _rows(
    sets: dict[str, list[Excerpt]],
    values: dict[str, Any],
    passages: dict[str, list[Passage]],
    train_names: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """One row a sample or excerpt: its measures, and where its longest shared passage stands."""
    for name, parts in sets.items():
        for number, part in enumerate(parts):
            passage = passages[name][number] if name in passages else None
            yield {
                "set": name,
                "piece": number + 1,
                "midi_filename": part.midi_filename,
                "start_seconds": part.start,
                "notes": len(part.notes),
                **{measure: float(of[number]) for measure, of in values[name].items()},
                "passage_notes": passage.notes if passage else None,
                "passage_start": passage.start if passage else None,
                "passage_in": train_names[passage.row] if passage and passage.notes else None,
            }
