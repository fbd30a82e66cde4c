"""Music and metrics that the tests of pictures, sounds and pages share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from coma_gen.midi.notes import Notes
from coma_gen.report.content import ReportContent, SampleView


def etude(seconds: float, *, pedal: bool = True, per_second: int = 4) -> Notes:
    """A melody over held basses, without any random number."""
    index = np.arange(int(seconds * per_second))
    melody = Notes.of(
        index / per_second, np.full(len(index), 0.9 / per_second), 60 + index * 5 % 25, 40 + index % 70
    )
    bars = np.arange(0.0, seconds, 2.0)
    bass = Notes.of(bars, np.full(len(bars), 1.5), np.full(len(bars), 41), np.full(len(bars), 60))
    both = melody.joined(bass)
    intervals = np.stack([bars, bars + 1.8], axis=1) if pedal else ()
    return Notes.of(both.onset, both.duration, both.pitch, both.velocity, intervals)


def figures(bits: float, nats: float) -> dict[str, float]:
    return {
        "nll_per_token": nats,
        "perplexity": math.exp(nats),
        "bits_per_note": bits - 3,
        "bits_per_second": bits * 10,
        "bits_per_note_10ms": bits,
    }


def metrics(corpus: str = "maestro-mini") -> dict[str, Any]:
    """What the stages' metrics files hold, one of each kind."""
    by_type = {
        "Pitch": {"nll_per_token": 2.61, "tokens": 11002, "bits_per_note": 3.77},
        "Bar": {"nll_per_token": 0.08, "tokens": 900, "bits_per_note": 0.01},
    }
    ours = {
        "bits_per_note_10ms_low": 19.53,
        "bits_per_note_10ms_high": 21.97,
        "by_type": by_type,
        "tokens": 41234,
    }
    fidelity = {
        split: {"end_ratio": 1.00012, "onset_error_ms": {"rms": 6.01}} for split in ("train", "validation")
    }
    counts = {"train": (8, 2.234, 82345), "validation": (1, 0.31, 9001), "test": (1, 0.29, 11002)}
    names = ("performances", "hours", "notes")
    return {
        "download": {"corpus": corpus, "performances": 10, "files": 11, "bytes": 123},
        "split": {split: dict(zip(names, row, strict=True)) for split, row in counts.items()}
        | {"unreadable": {"no notes": 2}, "compositions_in_two_splits": 5},
        "fit_tokenizer": {"vocab_size": 286, "tokens_per_note": 3.771, "fidelity": fidelity},
        "shard": {split: {"pieces": row[0], "tokens": row[2] * 4} for split, row in counts.items()},
        "train": {"steps": 400, "parameters": 1168912, "best": {"step": 300, "validation_nll": 2.512}},
        "baseline": {
            split: {
                "unigram": figures(29.41, 4.9),
                "bigram": figures(25.07, 3.31),
                "uniform": figures(32.33, 5.94),
            }
            for split in ("validation", "test")
        },
        "evaluate": {split: figures(20.83, 2.55) | ours for split in ("validation", "test")},
        "sample": {
            "samples": 2,
            "illegal_probability": 0.05,
            "excerpts": {"seconds": 30.0, "train": 24, "test": 11},
            "music": {
                "polyphony": {
                    "mean": {"samples": 2.5, "train": 3.25, "test": 3.125},
                    "overlap": {"with_train": 0.71, "with_test": 0.72, "of_real": 0.73, "of_real_low": 0.48},
                    "divergence": {
                        "from_train": 0.41,
                        "from_test": 0.42,
                        "of_real": 0.43,
                        "of_real_high": 0.96,
                    },
                },
                "velocity": {"mean": {"train": 64.5, "test": 60.0}},
            },
            "memorization": {
                "samples": {"pieces": 2, "longest_notes": 7},
                "test": {"pieces": 11, "longest_notes": 9, "longest_notes_of_as_many": 6.5},
            },
        },
    }


CURVE = [
    {"step": str(step), "train_loss": str(6 - step / 100), "validation_nll": "3.5" if step % 100 == 0 else ""}
    for step in range(10, 301, 10)
]


PERFORMANCES = [
    {
        "split": "test",
        "composer": "Frédéric Chopin",
        "title": "Étude, Op. 10",
        "notes": 9,
        "bits_per_note_10ms": 22.75,
    }
]
COMPOSERS = [
    {
        "split": "test",
        "composer": name,
        "performances": count,
        "notes": 100 * count,
        "bits_per_note_10ms": bits,
        "bits_per_note_10ms_low": low,
        "bits_per_note_10ms_high": None if low is None else bits + 2,
    }
    for name, count, bits, low in (
        ("Frédéric Chopin", 2, 22.75, 20.5),
        ("Wolfgang Amadeus Mozart & Co.", 1, 17.5, None),
    )
]
CONTEXTS = [
    {
        "split": "test",
        "protocol": name,
        "context_to": 2**power,
        "tokens": 50 * 2**power,
        "nll_per_token": 5.0 - power / 4 - (name == "carried"),
    }
    for name, powers in (("carried", 12), ("windowed", 8))
    for power in range(powers)
]
WINDOWS = [
    {"layer": layer, "window": window, "share": share}
    for layer, shares in ((1, (0.5, 0.5)), (2, (0.25, 0.75)))
    for window, share in zip((32, 128), shares, strict=True)
]


@pytest.fixture(scope="session")
def content() -> ReportContent:
    """A whole report of two short samples."""
    samples = [
        SampleView(
            "unprompted-0", etude(3, pedal=False), b"MThd one", None, {"temperature": 1.0, "top_k": None}
        ),
        SampleView("prompted-0", etude(4), b"MThd two\x00\xff", 1.5, {"prompt": "a/b & c.midi"}),
    ]
    return ReportContent(
        "Piano",
        "maestro-mini",
        metrics(),
        CURVE,
        samples,
        audio=True,
        model_digest="c0ffee",
        performances=PERFORMANCES,
        composers=COMPOSERS,
        contexts=CONTEXTS,
        windows=WINDOWS,
    )


@pytest.fixture(name="etude")
def _etude() -> Callable[..., Notes]:
    return etude


@pytest.fixture(name="metrics")
def _metrics() -> Callable[..., dict[str, Any]]:
    return metrics
