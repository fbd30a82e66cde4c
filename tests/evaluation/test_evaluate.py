"""The stages evaluate and baseline on a small corpus: their tables, and what must not change a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_corpus import SPLITS, Made

from coma_gen.core.io import rounded
from coma_gen.evaluation.baseline import score_baselines
from coma_gen.evaluation.stage import TABLES, score_model

Scores = tuple[dict[str, Any], dict[str, pd.DataFrame], Path]


def scored(made: Made, folder: Path, *, processes: int = 1, **changes: int) -> Scores:
    settings = {"batch": 2, "chunk": 64, "window": 32, "stride": 16, "bootstrap_resamples": 100}
    params = made.params.evaluate.model_copy(update={**settings, **changes})
    metrics = score_model(
        params, made.model, made.shards, folder, device="cpu", threads=1, processes=processes
    )
    return metrics, {name: pd.read_parquet(folder / f"{name}.parquet") for name in TABLES}, folder


@pytest.fixture(scope="module")
def scores(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Scores:
    return scored(made, tmp_path_factory.mktemp("scores") / "evaluation")


def test_performances_add_up_to_the_split(scores: Scores) -> None:
    metrics, tables, _ = scores
    performances = tables["performances"]
    for name in ("validation", "test"):
        rows = performances[performances["split"] == name]
        assert len(rows) == metrics[name]["performances"] == SPLITS[name]
        assert rows["nats"].sum() / rows["tokens"].sum() == pytest.approx(
            metrics[name]["nll_per_token"], rel=1e-5
        )
        nll_per_token = rows["windowed_nats"].sum() / rows["tokens"].sum()
        assert nll_per_token == pytest.approx(metrics[name]["windowed"]["nll_per_token"], rel=1e-5)
        assert metrics[name]["windowed"]["window"] == 32
        bits = [of["bits_per_note"] for of in metrics[name]["by_type"].values()]
        assert sum(bits) == pytest.approx(metrics[name]["bits_per_note"])


def test_composers_add_up_to_the_split(scores: Scores) -> None:
    metrics, tables, _ = scores
    rows = tables["composers"][tables["composers"]["split"] == "test"]
    assert rows["composer"].tolist() == ["Ada", "Bo"]
    assert rows["compositions"].tolist() == [2, 1]
    share = rows["notes"] / metrics["test"]["notes"]
    assert (rows["bits_per_note_10ms"] * share).sum() == pytest.approx(
        metrics["test"]["bits_per_note_10ms"], rel=1e-5
    )
    lows = rows["bits_per_note_10ms_low"].tolist()
    assert lows[0] < rows["bits_per_note_10ms"].iloc[0] and np.isnan(lows[1]), (
        "one composition has no interval"
    )


def test_contexts_hold_every_token(scores: Scores) -> None:
    metrics, tables, _ = scores
    rows = tables["contexts"]
    carried = rows[(rows["split"] == "test") & (rows["protocol"] == "carried")]
    assert carried["tokens"].sum() == metrics["test"]["tokens"]
    cost = (carried["tokens"] * carried["nll_per_token"]).sum() / carried["tokens"].sum()
    assert cost == pytest.approx(metrics["test"]["nll_per_token"], rel=1e-4)
    windowed = rows[(rows["split"] == "test") & (rows["protocol"] == "windowed")]
    assert windowed["context_to"].max() == 32, "a window's tokens end with its last bin"
    assert windowed["tokens"].sum() > metrics["test"]["tokens"]


def test_an_untrained_model_listens_to_all_windows_alike(scores: Scores) -> None:
    rows = scores[1]["windows"]
    assert rows.to_dict(orient="list") == {"layer": [1, 1], "window": [8, 16], "share": [0.5, 0.5]}


def test_the_same_bytes_again(made: Made, scores: Scores, tmp_path: Path) -> None:
    metrics, _, first = scores
    again, _, second = scored(made, tmp_path / "again")
    assert again == metrics
    assert all(
        (first / f"{name}.parquet").read_bytes() == (second / f"{name}.parquet").read_bytes()
        for name in TABLES
    )


@pytest.mark.parametrize("changes", [{"batch": 1}, {"chunk": 7}, {"batch": 16, "chunk": 2048}])
def test_batch_and_chunk_change_no_figure(
    made: Made, scores: Scores, tmp_path: Path, changes: dict[str, int]
) -> None:
    figures, _, _ = scored(made, tmp_path / "other", **changes)
    for name in ("validation", "test"):
        for key in ("nll_per_token", "bits_per_note_10ms", "bits_per_note_10ms_low"):
            assert figures[name][key] == pytest.approx(scores[0][name][key], rel=1e-5)
        assert figures[name]["windowed"] == pytest.approx(scores[0][name]["windowed"], rel=1e-5)


def test_baselines_have_the_same_figures_over_the_same_tokens(made: Made, scores: Scores) -> None:
    metrics = score_baselines(made.params.baseline, made.shards, made.tokenizer, resamples=100)
    for name in ("validation", "test"):
        assert list(metrics[name]) == ["uniform", "unigram", "bigram", "kneser_ney"]
        for figures in metrics[name].values():
            assert set(figures) == set(scores[0][name]) - {"by_type", "windowed"}
            assert figures["tokens"] == scores[0][name]["tokens"]
            assert figures["notes"] == scores[0][name]["notes"]
        assert metrics[name]["unigram"]["nll_per_token"] < metrics[name]["uniform"]["nll_per_token"]
    assert rounded(metrics) == rounded(
        score_baselines(made.params.baseline, made.shards, made.tokenizer, resamples=100)
    )


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(made: Made, scores: Scores, tmp_path: Path) -> None:
    metrics, _, folder = scored(made, tmp_path / "evaluation", processes=2)
    assert metrics == scores[0]
    for name in TABLES:
        file = f"{name}.parquet"
        assert (folder / file).read_bytes() == (scores[2] / file).read_bytes()
