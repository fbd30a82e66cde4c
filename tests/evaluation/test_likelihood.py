"""Every token is scored once, with all the context before it, whatever the chunk and the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coma_gen.evaluation.likelihood import model_scorer, windows
from coma_gen.model.conformer import Conformer
from coma_gen.params.load import load_params

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
@given(st.integers(1, 400), st.integers(2, 64))
def test_windows_count_each_place_once_with_half_a_window_before_it(length: int, size: int) -> None:
    counted: list[int] = []
    for start, first, end in windows(length, size):
        assert 0 <= start <= first < end <= length and end - start <= size
        assert start == 0 or first - start >= min(size // 2, first)
        counted += range(first, end)
    assert counted == list(range(length))


def test_a_uniform_model_costs_log_v() -> None:
    model = small_model()
    torch.nn.init.zeros_(model.logits.weight)
    nats = model_scorer(model, batch=2, chunk=8)([piece(20)])[0]
    np.testing.assert_allclose(nats, [0, *[np.log(VOCAB)] * 19], rtol=1e-6)
