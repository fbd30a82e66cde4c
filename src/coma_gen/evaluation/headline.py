"""The headline: the main figures of a run, by which runs are ranked.

The headline stage writes them to metrics/headline.json; DVC, MLflow and `coma-gen experiments` show them
under the same names. The names are short because they head the columns of `dvc exp show`. A figure that a run
does not have (the interval with a single composition, the music measures of samples without notes) is
omitted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

STAGES = ("train", "baseline", "evaluate", "sample")
"""Stages whose metrics provide the figures."""
BITS = "bits_per_note_10ms"
RANKED_BY = "bits"
"""Lower is better."""
ABOUT = {
    RANKED_BY: "test: bits per note at 10 ms, by which runs are compared; lower is better",
    "low": "lower end of the 95% interval of bits; none where test is one composition",
    "high": "upper end of the interval",
    "validation": "validation: bits per note at 10 ms",
    "ngram": "test: bits per note of the best n-gram model",
    "nats": "test: nats per token; comparable between runs with one tokenizer only",
    "overlap": "overlap of samples with test music, mean over all music measures; 1 is identical",
    "telling": "number of music measures that distinguish the samples from real music; lower is better",
    "illegal": "probability mass on tokens that the grammar forbids, while sampling",
    "copied": "notes of the longest passage that a sample shares with the train split, at any pitch",
    "tokens": "training tokens",
    "parameters": "parameters of the model",
}
"""Name -> description, in the order of the columns."""
Figures = dict[str, float]


def headline(metrics: Mapping[str, Any]) -> Figures:
    """Collects the headline of a run, in the order of the columns.

    Args:
        metrics: Stage -> content of metrics/<stage>.json, for those of `STAGES` that ran.
    """
    music = _get_mapping(metrics, "sample", "music")
    overlaps = [_get_number(music, name, "overlap", "with_test") for name in music]
    known = [overlap for overlap in overlaps if overlap is not None]
    ngrams = _get_mapping(metrics, "baseline", "test")
    costs = [_get_number(ngrams, name, BITS) for name in ngrams]
    found = {
        RANKED_BY: _get_number(metrics, "evaluate", "test", BITS),
        "low": _get_number(metrics, "evaluate", "test", f"{BITS}_low"),
        "high": _get_number(metrics, "evaluate", "test", f"{BITS}_high"),
        "validation": _get_number(metrics, "evaluate", "validation", BITS),
        "ngram": min((cost for cost in costs if cost is not None), default=None),
        "nats": _get_number(metrics, "evaluate", "test", "nll_per_token"),
        "overlap": math.fsum(known) / len(known) if known else None,
        "telling": count_telling(music)[0] if known else None,
        "illegal": _get_number(metrics, "sample", "illegal_probability"),
        "copied": _get_number(metrics, "sample", "memorization", "samples", "longest_notes"),
        "tokens": _get_number(metrics, "train", "tokens"),
        "parameters": _get_number(metrics, "train", "parameters"),
    }
    return {name: value for name, value in found.items() if value is not None}


def count_telling(music: Mapping[str, Any]) -> tuple[int, int]:
    """Counts the measures in which samples lie farther from test music than 95% of draws of real music.

    Args:
        music: The part `music` of the sample stage's metrics.

    Returns:
        That number, and the number of measures that were compared.
    """
    compared = [measure for measure in music.values() if measure.get("overlap")]
    count = sum(
        measure["overlap"]["with_test"] < measure["overlap"]["of_real_low"]
        or measure["divergence"]["from_test"] > measure["divergence"]["of_real_high"]
        for measure in compared
    )
    return count, len(compared)


def _get_mapping(metrics: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Returns the mapping at these keys; an empty one where there is none."""
    part: Any = metrics
    for key in keys:
        part = part.get(key) if isinstance(part, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _get_number(metrics: Mapping[str, Any], *keys: str) -> float | None:
    """Returns the finite number at these keys; None where there is none."""
    value = _get_mapping(metrics, *keys[:-1]).get(keys[-1])
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None
