"""The headline: the few figures of a run that one looks at first, and that runs are ranked by.

The headline stage writes them to metrics/headline.json, and DVC, MLflow and `coma-gen experiments` all show
what that holds, under the same names. Names are short, for they head the columns of `dvc exp show`. A figure
that a run does not have (the interval of a single composition, the music of samples without notes) is left
out, never made up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

STAGES = ("train", "baseline", "evaluate", "sample")
"""Whose metrics the figures are of."""
BITS = "bits_per_note_10ms"
RANKED_BY = "bits"
"""Less is better."""
ABOUT = {
    RANKED_BY: "test: bits per note at 10 ms, to compare runs by; less is better",
    "low": "lower end of the 95% interval of bits; none where test is one composition",
    "high": "its upper end",
    "validation": "validation: bits per note at 10 ms",
    "ngram": "test: bits per note of the n-gram that costs the least",
    "nats": "test: nats per token; compares runs of one tokenizer only",
    "overlap": "of samples with test music, mean over all measures of music; 1 is the same",
    "telling": "how many of these measures tell the samples from music; less is better",
    "illegal": "probability on tokens that cannot follow, while sampling",
    "copied": "notes of the longest passage of a sample that the train split has too, at any pitch",
    "tokens": "that training saw",
    "parameters": "of the model",
}
"""Name -> what it is, in the order of the columns."""
Figures = dict[str, float]


def headline(metrics: Mapping[str, Any]) -> Figures:
    """The headline of a run, in the order of the table's columns.

    Args:
        metrics: stage -> what metrics/<stage>.json holds, of those of `STAGES` that ran.
    """
    music = _part(metrics, "sample", "music")
    overlaps = [_number(music, name, "overlap", "with_test") for name in music]
    known = [overlap for overlap in overlaps if overlap is not None]
    ngrams = _part(metrics, "baseline", "test")
    costs = [_number(ngrams, name, BITS) for name in ngrams]
    found = {
        RANKED_BY: _number(metrics, "evaluate", "test", BITS),
        "low": _number(metrics, "evaluate", "test", f"{BITS}_low"),
        "high": _number(metrics, "evaluate", "test", f"{BITS}_high"),
        "validation": _number(metrics, "evaluate", "validation", BITS),
        "ngram": min((cost for cost in costs if cost is not None), default=None),
        "nats": _number(metrics, "evaluate", "test", "nll_per_token"),
        "overlap": math.fsum(known) / len(known) if known else None,
        "telling": telling(music)[0] if known else None,
        "illegal": _number(metrics, "sample", "illegal_probability"),
        "copied": _number(metrics, "sample", "memorization", "samples", "longest_notes"),
        "tokens": _number(metrics, "train", "tokens"),
        "parameters": _number(metrics, "train", "parameters"),
    }
    return {name: value for name, value in found.items() if value is not None}


def telling(music: Mapping[str, Any]) -> tuple[int, int]:
    """How many measures find samples farther from the test music than nearly all draws of real music are,
    and how many could.

    Args:
        music: that part of the sample stage's metrics.
    """
    found = [of for of in music.values() if of.get("overlap")]
    told = sum(
        of["overlap"]["with_test"] < of["overlap"]["of_real_low"]
        or of["divergence"]["from_test"] > of["divergence"]["of_real_high"]
        for of in found
    )
    return told, len(found)


def _part(metrics: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """What is below these keys; nothing where it is no mapping."""
    part: Any = metrics
    for key in keys:
        part = part.get(key) if isinstance(part, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _number(metrics: Mapping[str, Any], *keys: str) -> float | None:
    """The finite number below these keys, as it is; None where there is none."""
    value = _part(metrics, *keys[:-1]).get(keys[-1])
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None
