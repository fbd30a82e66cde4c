"""The headline: at most a dozen figures, each from its source, missing ones omitted."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from coma_gen.evaluation.headline import ABOUT, RANKED_BY, STAGES, headline

ROOT = Path(__file__).resolve().parents[2]
MOST = 15
"""More would not be read at a glance."""


def score(bits: float, **others: float) -> dict[str, float]:
    return {"bits_per_note_10ms": bits, "nll_per_token": bits / 8, **others}


def measure(overlap: float, floor: float, divergence: float, ceiling: float) -> dict[str, Any]:
    return {
        "overlap": {"with_test": overlap, "of_real_low": floor},
        "divergence": {"from_test": divergence, "of_real_high": ceiling},
    }


METRICS: dict[str, Any] = {
    "train": {"tokens": 921_600, "parameters": 1_097_684, "best": {"validation_nll": 2.8}},
    "baseline": {"test": {"bigram": score(26.0), "kneser_ney": score(27.0)}, "validation": {"a": score(1.0)}},
    "evaluate": {
        "test": score(16.0, bits_per_note_10ms_low=15.0, bits_per_note_10ms_high=17.5),
        "validation": score(18.0),
    },
    "sample": {
        "illegal_probability": 0.25,
        "music": {
            "same": measure(0.9, 0.5, 0.1, 0.3),
            "overlaps_less": measure(0.4, 0.5, 0.1, 0.3),
            "diverges_more": measure(0.8, 0.5, 0.4, 0.3),
            "too_few": {"mean": {"samples": 3.0}},
        },
        "memorization": {"samples": {"longest_notes": 5}, "test": {"longest_notes": 6}},
    },
}


def without(*path: str) -> dict[str, Any]:
    metrics = copy.deepcopy(METRICS)
    part = metrics
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    return metrics


def test_each_figure_is_the_one_of_its_name() -> None:
    assert headline(METRICS) == {
        "bits": 16.0,
        "low": 15.0,
        "high": 17.5,
        "validation": 18.0,
        "ngram": 26.0,
        "nats": 2.0,
        "overlap": pytest.approx(0.7),
        "telling": 2,
        "illegal": 0.25,
        "copied": 5,
        "tokens": 921_600,
        "parameters": 1_097_684,
    }


def test_it_is_short_and_begins_with_what_ranks() -> None:
    assert len(headline(METRICS)) <= MOST
    assert next(iter(headline(METRICS))) == RANKED_BY
    assert list(headline(METRICS)) == list(ABOUT)


@pytest.mark.parametrize(
    ("path", "gone"),
    [
        (("evaluate", "test", "bits_per_note_10ms_low"), {"low"}),
        (("sample", "memorization"), {"copied"}),
        (("sample", "music"), {"overlap", "telling"}),
        (("sample",), {"overlap", "telling", "illegal", "copied"}),
        (("baseline",), {"ngram"}),
    ],
)
def test_what_a_run_lacks_is_left_out(path: tuple[str, ...], gone: set[str]) -> None:
    assert set(headline(METRICS)) - set(headline(without(*path))) == gone


@pytest.mark.parametrize("value", [None, True, "16", float("nan"), float("inf")])
def test_what_is_no_number_is_left_out(value: object) -> None:
    metrics = copy.deepcopy(METRICS)
    metrics["evaluate"]["test"]["bits_per_note_10ms"] = value
    assert RANKED_BY not in headline(metrics)


def test_of_the_committed_results() -> None:
    metrics = {stage: json.loads((ROOT / "metrics" / f"{stage}.json").read_text()) for stage in STAGES}
    found = headline(metrics)
    assert found["bits"] == metrics["evaluate"]["test"]["bits_per_note_10ms"]
    assert found["ngram"] == min(of["bits_per_note_10ms"] for of in metrics["baseline"]["test"].values())


def test_dvc_shows_the_committed_ones_under_these_names() -> None:
    shown = json.loads((ROOT / "metrics" / "headline.json").read_text())
    assert shown and not set(shown) - set(ABOUT)


def test_the_docs_say_what_each_is() -> None:
    page = (ROOT / "docs" / "experiments.md").read_text()
    assert [name for name in headline(METRICS) if f"| `{name}` |" not in page] == []
