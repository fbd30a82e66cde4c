"""Metrics of the samples beside those of real music, for the stage `sample`.

The comparison of real music with real music needs no model, but is computed here rather than in the stage
`baseline`: the noise floor needs as many excerpts as samples, of the same length, and the search for shared
passages takes no longer with held-out music included.
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
from coma_gen.evaluation.excerpts import Excerpt, cut_excerpts, decode_piece
from coma_gen.evaluation.memorization import Passage, encode_steps, longest_passages
from coma_gen.evaluation.music_metrics import measure_all
from coma_gen.evaluation.overlap import compare_sets, set_size
from coma_gen.evaluation.splits import check_tokens
from coma_gen.evaluation.tables import write_parquet
from coma_gen.generation.continuation import Continuation
from coma_gen.midi.io import read_notes
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Vocabulary

TABLE = "measures.parquet"
Metrics = dict[str, Any]


def sample_metrics(
    params: SampleParams, pieces: Sequence[Continuation], model: Path, shards: Path, samples: Path
) -> Metrics:
    """Computes the metrics of the samples beside excerpts of train and test.

    Args:
        params: The sample section.
        pieces: Generated pieces; of continuations only the new music is measured.
        model: Folder of the train stage.
        shards: Shards that the model was trained on, with the test split.
        samples: Folder of the generated files. `TABLE` is written there, with the measures and the longest
            shared passage of every sample and excerpt.

    Returns:
        Counts of samples, tokens, rewinds, tokens dropped by rewinding, notes, pieces cut at `max_tokens`,
        pieces without notes and pieces that violate the grammar; the fraction of files that decode to notes;
        the mean probability mass on tokens that the grammar forbids (the rate of invalid transitions without
        the grammar); the number of excerpts, and of pieces per set and draw; `music` (see
        `overlap.compare_sets`) and `memorization` (see `memorization_figures`).

    Raises:
        UserError: The shards were encoded by another tokenizer than the model's.
    """
    check_tokens(shards, read_manifest(model, kind="model"), model)
    vocabulary = Vocabulary.load(model / "tokenizer")
    train = ShardedSplit.open(shards, "train")
    made = [Excerpt("", 0.0, piece.new) for piece in pieces if len(piece.new)]
    sets = {"samples": made}
    for split in (train, ShardedSplit.open(shards, "test")):
        sets[split.split] = cut_excerpts(split, vocabulary, count=params.excerpts, seconds=params.seconds)
    values = {name: measure_all([part.notes for part in of]) for name, of in sets.items()}
    passages = _find_passages(train, vocabulary, sets)
    names = train.index["midi_filename"].iloc[train.originals].tolist()
    write_parquet(samples / TABLE, _iter_rows(sets, values, passages, names))
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
    """Summarizes the longest passages shared with the train split.

    Args:
        notes: For "samples" and "test": number of notes of each piece's longest shared passage.

    Returns:
        For both: pieces, mean_notes, longest_notes; and for test longest_notes_of_as_many, the expected
        maximum over as many excerpts as there are samples (or all, if there are fewer).
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
    """Whether a MIDI file can be read and has notes."""
    try:
        return len(read_notes(path)) > 0
    except UserError:
        return False


def _find_passages(
    train: ShardedSplit, vocabulary: Vocabulary, sets: dict[str, list[Excerpt]]
) -> dict[str, list[Passage]]:
    """Finds the longest passage that each sample and each test excerpt shares with the train split."""
    pieces = [encode_steps(part.notes) for name in ("samples", "test") for part in sets[name]]
    known = [encode_steps(decode_piece(train, int(row), vocabulary)) for row in train.originals]
    found = longest_passages(known, pieces)
    return {"samples": found[: len(sets["samples"])], "test": found[len(sets["samples"]) :]}


def _iter_rows(
    sets: dict[str, list[Excerpt]],
    values: dict[str, Any],
    passages: dict[str, list[Passage]],
    train_names: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Yields one row per sample or excerpt: its measures and its longest shared passage."""
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
