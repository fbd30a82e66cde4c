"""The ablation table against hand-computed values; nothing is omitted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from coma_gen.core.errors import UserError
from coma_gen.experiments.ablation import Ablation
from coma_gen.experiments.ablation_table import (
    RunFigures,
    as_json,
    collect_run_figures,
    compare_seeds,
    markdown,
    rows,
)

Result = Callable[..., RunFigures]


def test_the_table_by_hand(small: Ablation, result: Result) -> None:
    results = {
        "small-base-3": result(3),
        "small-base-4": result(4, (2.0, 6.0)),  # 2 bits a note more than seed 3
        "small-wide-3": result(3, (1.0, 3.0), speed=None),
        "small-wide-4": result(4, (3.0, 9.0), speed=None),  # each 1 bit a note more than base
    }
    text = markdown(small, rows(small, results, {}))
    assert text.splitlines()[:4] == [
        "| cell | parameters | tokens seen | tokens per note | tokens/CPU s | validation | test "
        "| test, windowed | test, against base |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
        "| base | 1,000,000 | 5,000 | 3.50 | 1,000 | 12.00 ± 1.41 | 11.00 ± 1.41 | 11.25 ± 1.41 |  |",
        "| wide | 1,000,000 | 5,000 | 3.50 |  | 13.00 ± 1.41 | 12.00 ± 1.41 | 12.25 ± 1.41 "
        "| +1.00 [+1.00, +1.00] |",
    ]
    assert "Missing" not in text


def test_the_errors_of_the_tokens_are_shown_where_cells_differ(small: Ablation, result: Result) -> None:
    text = markdown(small, rows(small, {"small-base-3": result(3), "small-wide-3": result(3)}, {}))
    assert "error" not in text
    results = {"small-base-3": result(3), "small-wide-3": result(3, onset_error=12.04)}
    text = markdown(small, rows(small, results, {}))
    assert "| tokens seen | onset, duration error (ms) | tokens per note |" in text
    assert "| 5,000 | 6.0, 8.0 | 3.50 |" in text and "| 5,000 | 12.0, 8.0 | 3.50 |" in text


def test_the_interval_is_that_of_the_compositions(result: Result) -> None:
    """+4 bits on the composition of one note, none on that of three: 1 of 4 notes; draws of 0, 1 and 4."""
    ours, theirs = ([result(seed, more) for seed in (3, 4)] for more in ((4.0, 0.0), (0.0, 0.0)))
    found = compare_seeds(ours, theirs, resamples=2000)
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((1.0, 0.0, 4.0))


def test_what_is_missing_is_listed_with_what_became_of_it(small: Ablation, result: Result) -> None:
    results = {"small-base-3": result(3), "small-base-4": result(4), "small-wide-4": result(4, (1.0, 3.0))}
    table = rows(small, results, {"small-wide-3": "failed"})
    assert table[1].missing == {3: "failed"} and table[1].seeds == [4]
    assert table[1].difference is not None and table[1].difference.mean == pytest.approx(1.0)
    text = markdown(small, table)
    assert "| wide (1 of 2 seeds) | 1,000,000 |" in text
    assert text.endswith("Missing, 1 of 4 runs:\n- small-wide-3: failed")
    nothing = markdown(small, rows(small, {}, {}))
    assert "| wide (not run) |" in nothing and "Missing, 4 of 4 runs:" in nothing
    assert "- small-base-3: not queued" in nothing


def test_another_treatment_of_the_pedal_is_not_ranked(small: Ablation, result: Result) -> None:
    for run in small.runs:
        if run.cell == "wide":
            run.params["tokenizer"]["pedal"] = "ignore"
    table = rows(small, {"small-base-3": result(3), "small-wide-3": result(3, (1.0, 3.0))}, {})
    assert table[1].difference is None and not table[1].is_comparable
    text = markdown(small, table)
    assert "| 11.00 | 11.25 | other music |" in text and "bits per note are not comparable" in text


def test_a_cell_that_shares_no_seed_with_the_reference_has_no_difference(
    small: Ablation, result: Result
) -> None:
    table = rows(small, {"small-base-3": result(3), "small-wide-4": result(4)}, {})
    assert table[1].difference is None
    assert table[1].figures["test"].deviation is None


def test_cells_scored_on_other_music_are_refused(result: Result) -> None:
    one = result(3)
    other = replace(one, performances=one.performances.assign(notes=[1, 3, 1, 4]))
    with pytest.raises(UserError, match="must be the same performances"):
        compare_seeds([one], [other], resamples=100)


def test_figures_come_from_the_metrics_of_four_stages(result: Result) -> None:
    test = {"bits_per_note_10ms": 20.0, "windowed": {"bits_per_note_10ms": 21.0}}
    errors = {"onset_error_ms": {"rms": 6.5}, "duration_error_ms": {"rms": 9.5}}
    metrics = {
        "fit_tokenizer": {"fidelity": {"validation": errors}},
        "train": {"parameters": 7, "tokens": 8},
        "shard": {"train": {"tokens": 30, "notes": 10}},
        "evaluate": {"validation": {"bits_per_note_10ms": 19.0}, "test": test},
    }
    run = collect_run_figures(5, metrics, pd.DataFrame(), None)
    figures = (run.parameters, run.tokens, run.tokens_per_note, run.validation, run.test, run.windowed)
    assert figures == (7, 8, 3.0, 19.0, 20.0, 21.0)
    assert (run.seed, run.tokens_per_cpu_second) == (5, None)
    assert (run.onset_error, run.duration_error) == (6.5, 9.5)


def test_the_table_for_programs_is_json(small: Ablation, result: Result) -> None:
    table = rows(small, {"small-base-3": result(3), "small-wide-3": result(3, (1.0, 3.0))}, {})
    base, wide = json.loads(json.dumps(as_json(table)))
    assert base["difference"] is None and base["missing"] == {"4": "not queued"}
    assert wide["difference"] == {"mean": pytest.approx(1.0), "low": None, "high": None}
    assert wide["figures"]["test"] == {"mean": 11.0, "deviation": None}
