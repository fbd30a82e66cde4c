"""Computes comparable figures from the nats of every token.

`nll_per_token` and `perplexity` are comparable between models with one tokenizer only. `bits_per_note`
divides by the notes of the raw MIDI. `bits_per_note_10ms` adds to each note the bits that its grid does not
resolve, log2(step / 10 ms) for onset and duration and log2(step / 4) for velocity, so that a coarse grid has
no advantage. Every token but BOS counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coma_gen.evaluation.bootstrap import ratio_interval
from coma_gen.evaluation.scorer import Ids, Nats
from coma_gen.tokenizer.vocabulary import Vocabulary

Metrics = dict[str, Any]


def piece_table(
    index: pd.DataFrame, pieces: Sequence[Ids], nats: Sequence[Nats], vocabulary: Vocabulary
) -> pd.DataFrame:
    """Builds a table with the scores of each performance.

    Args:
        index: Rows of the shards' index for the pieces, with `notes` and `seconds` of the raw MIDI.
        pieces: N arrays of ids, BOS first.
        nats: N arrays of the same lengths.
        vocabulary: Vocabulary of the ids.

    Returns:
        The index's columns midi_filename, composer, title, notes and seconds, with scored tokens, nats,
        nll_per_token, bits_per_note, bits_per_second and bits_per_note_10ms.
    """
    table = index[["midi_filename", "composer", "title", "notes", "seconds"]].reset_index(drop=True)
    table["tokens"] = [len(piece) - 1 for piece in pieces]
    table["nats"] = [float(of_piece.sum()) for of_piece in nats]
    table["resolution_bits"] = [vocabulary.total_resolution_bits(piece) for piece in pieces]
    bits = table["nats"] / np.log(2)
    table["nll_per_token"] = table["nats"] / table["tokens"]
    table["bits_per_note"] = bits / table["notes"]
    table["bits_per_second"] = bits / table["seconds"]
    table["bits_per_note_10ms"] = (bits + table["resolution_bits"]) / table["notes"]
    return table


def split_metrics(table: pd.DataFrame, *, resamples: int) -> Metrics:
    """Computes the figures of one split from sums over all performances, not means of means."""
    tokens, notes, seconds = (float(table[name].sum()) for name in ("tokens", "notes", "seconds"))
    bits = table["nats"].to_numpy() / np.log(2)
    common = bits + table["resolution_bits"].to_numpy()
    nll = float(table["nats"].sum()) / tokens
    metrics: Metrics = {
        "performances": len(table),
        "tokens": int(tokens),
        "notes": int(notes),
        "nll_per_token": nll,
        "perplexity": float(np.exp(nll)),
        "bits_per_note": float(bits.sum()) / notes,
        "bits_per_second": float(bits.sum()) / seconds,
        "bits_per_note_10ms": float(common.sum()) / notes,
    }
    compositions = list(zip(table["composer"], table["title"], strict=True))
    interval = ratio_interval(common, table["notes"].to_numpy(np.float64), compositions, resamples=resamples)
    if interval:
        metrics["bits_per_note_10ms_low"], metrics["bits_per_note_10ms_high"] = interval
    return metrics


def by_type(pieces: Sequence[Ids], nats: Sequence[Nats], vocabulary: Vocabulary, notes: int) -> Metrics:
    """Returns tokens, nll_per_token and bits_per_note of each token type; byte pairs have the type "BPE"."""
    names = [types[0] if len(types) == 1 else "BPE" for types in vocabulary.token_types]
    type_index = {name: number for number, name in enumerate(dict.fromkeys(names))}
    kind: npt.NDArray[np.int64] = np.array([type_index[name] for name in names])
    counts, costs = np.zeros(len(type_index)), np.zeros(len(type_index))
    for piece, of_piece in zip(pieces, nats, strict=True):
        kinds = kind[piece[1:]]
        counts += np.bincount(kinds, minlength=len(type_index))
        costs += np.bincount(kinds, weights=of_piece[1:], minlength=len(type_index))
    return {
        name: {
            "tokens": int(counts[number]),
            "nll_per_token": float(costs[number] / counts[number]),
            "bits_per_note": float(costs[number] / np.log(2) / notes),
        }
        for name, number in type_index.items()
        if counts[number]
    }


def by_composer(table: pd.DataFrame, *, resamples: int) -> list[Metrics]:
    """Returns a row for each composer of `piece_table`, sorted by name, with the figures of `split_metrics`.

    bits_per_note_10ms_low and _high are None where there is only one composition.
    """
    ends = dict.fromkeys(("bits_per_note_10ms_low", "bits_per_note_10ms_high"))
    return [
        {
            "composer": str(composer),
            "compositions": int(rows["title"].nunique()),
            **ends,
            **split_metrics(rows, resamples=resamples),
        }
        for composer, rows in table.groupby("composer", sort=True)
    ]
