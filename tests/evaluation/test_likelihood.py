"""Every token is scored once with its full context, for any chunk size and batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coma_gen.config.load import load_params
from coma_gen.evaluation.likelihood import iter_windows, model_scorer, score_windows
from coma_gen.model.conformer import Conformer

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml").model
SMALL = {"dim": 16, "num_layers": 2, "num_heads": 2, "head_dim": 8, "window_sizes": (4, 8), "kernel_size": 3}
VOCAB = 11


def small_model(**changed: object) -> Conformer:
    params = PARAMS.model_copy(update={**SMALL, **changed})
    return Conformer(params=params, vocab_size=VOCAB, seed=0).double()


def piece(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, length).astype(np.uint16)


def by_the_whole(model: Conformer, ids: np.ndarray) -> np.ndarray:
    """Nats of each token from one pass over the whole piece, without a state."""
    model.eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(ids[None, :-1].astype(np.int64)))[0]
    chosen = torch.log_softmax(logits, -1)[
        torch.arange(len(ids) - 1), torch.from_numpy(ids[1:].astype(np.int64))
    ]
    return np.concatenate([[0.0], -chosen.numpy()])


@pytest.mark.parametrize(("batch", "chunk"), [(1, 1000), (1, 7), (2, 16), (5, 5), (8, 1)])
@pytest.mark.parametrize("layers", [(), (1,)], ids=["local", "global"])
def test_carried_state_gives_what_one_pass_gives(batch: int, chunk: int, layers: tuple[int, ...]) -> None:
    model = small_model(global_attention_layers=layers)
    pieces = [piece(length, seed) for seed, length in enumerate((40, 2, 23, 24, 41))]
    for ids, nats in zip(pieces, model_scorer(model, batch=batch, chunk=chunk)(pieces), strict=True):
        np.testing.assert_allclose(nats, by_the_whole(model, ids), atol=2e-6)
        assert nats[0] == 0


def test_a_short_piece_under_a_learned_position_embedding_is_one_pass() -> None:
    model = small_model(position_embedding="learned", max_seq_len=32)
    ids = piece(30)
    np.testing.assert_allclose(
        model_scorer(model, batch=4, chunk=8)([ids])[0], by_the_whole(model, ids), atol=2e-6
    )


def test_a_long_piece_under_a_learned_position_embedding_is_primed_again() -> None:
    model = small_model(position_embedding="learned", max_seq_len=16)
    ids = piece(50)
    nats = model_scorer(model, batch=4, chunk=8)([ids])[0]
    np.testing.assert_allclose(nats[:17], by_the_whole(model, ids[:17]), atol=2e-6)
    np.testing.assert_allclose(nats[17:25], by_the_whole(model, ids[8:25])[9:], atol=2e-6)
    assert (nats[1:] > 0).all()


@settings(max_examples=60)
@given(st.integers(1, 400), st.integers(2, 64), st.data())
def test_windows_count_each_token_once_with_context_before_it(
    length: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window))
    counted: list[int] = []
    for start, first, end in iter_windows(length, window, stride):
        assert 0 <= start <= first < end <= length
        assert end - start == min(window, length), "the last window reaches back to be whole"
        assert start == 0 or first - start >= window - stride
        counted += range(first, end)
    assert counted == list(range(length))


def test_windows_by_hand() -> None:
    assert list(iter_windows(12, 6, 4)) == [(0, 0, 6), (4, 6, 10), (6, 10, 12)]


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_each_window_starts_from_nothing(batch: int) -> None:
    model, ids = small_model(), piece(60)
    (nats,), _ = score_windows(model, [ids], batch=batch, window=16, stride=8)
    np.testing.assert_allclose(nats[:17], by_the_whole(model, ids[:17]), atol=2e-6)
    np.testing.assert_allclose(nats[17:25], by_the_whole(model, ids[8:25])[9:], atol=2e-6)
    np.testing.assert_allclose(nats[-3:], by_the_whole(model, ids[-17:])[-3:], atol=2e-6)


def test_windowed_and_carried_agree_on_what_fits_a_window() -> None:
    model, pieces = small_model(), [piece(length, length) for length in (30, 2, 17)]
    carried = model_scorer(model, batch=2, chunk=7)(pieces)
    windowed, _ = score_windows(model, pieces, batch=2, window=29, stride=5)
    for one, other in zip(carried, windowed, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


def test_windowed_and_carried_agree_where_a_window_holds_all_that_the_model_sees() -> None:
    model, ids = small_model(), piece(200)
    receptive_field = model.receptive_field
    assert receptive_field is not None and receptive_field < 100
    (windowed,), _ = score_windows(model, [ids], batch=4, window=100, stride=100 - receptive_field)
    np.testing.assert_allclose(windowed, model_scorer(model, batch=1, chunk=50)([ids])[0], atol=2e-6)
    (narrow,), _ = score_windows(model, [ids], batch=4, window=12, stride=6)
    assert np.abs(narrow - windowed)[20:].max() > 1e-4, "less context is another figure"


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batch_and_padding_change_nothing_in_windows(batch: int) -> None:
    model, pieces = small_model(), [piece(length, length) for length in (9, 40, 3, 21)]
    alone = [score_windows(model, [ids], batch=1, window=16, stride=10) for ids in pieces]
    together, curve = score_windows(model, pieces, batch=batch, window=16, stride=10)
    for ((one,), _), other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)
    rows = [list(of_piece.rows()) for _, of_piece in alone]
    assert sum(row["tokens"] for row in curve.rows()) == sum(row["tokens"] for of in rows for row in of)


def test_the_curve_has_every_token_of_every_window() -> None:
    model, ids = small_model(), piece(21)
    _, curve = score_windows(model, [ids], batch=2, window=8, stride=4)
    starts = [start for start, _, _ in iter_windows(20, 8, 4)]
    costs = np.concatenate([by_the_whole(model, ids[start : start + 9])[5:9] for start in starts])
    (row,) = (row for row in curve.rows() if row["context_from"] == 5)
    assert row["tokens"] == 4 * len(starts)
    assert row["nll_per_token"] == pytest.approx(costs.mean(), abs=1e-6)


def test_a_uniform_model_costs_log_v() -> None:
    model = small_model()
    torch.nn.init.zeros_(model.logits.weight)
    nats = model_scorer(model, batch=2, chunk=8)([piece(20)])[0]
    np.testing.assert_allclose(nats, [0, *[np.log(VOCAB)] * 19], rtol=1e-6)
