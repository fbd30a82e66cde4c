"""The decoding state: any way of cutting a sequence gives what one pass gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coma_gen.model.conformer import Conformer
from coma_gen.model.state import DecodingState

OPTIONS = list(
    itertools.product(["xpos", "rotary", "dynamic", "none"], [(3, 7), (1,), (2, 40)], [(), (1,)], [1, 4])
)
LENGTH = 60


@torch.inference_mode()
def in_chunks(
    model: Conformer, input_ids: torch.Tensor, lengths: list[int], state: DecodingState
) -> torch.Tensor:
    return torch.cat([model(chunk, state) for chunk in input_ids.split(lengths, dim=1)], dim=1)


@pytest.fixture(scope="module")
def cached_model(make_model: Callable[..., Conformer]) -> Callable[..., Conformer]:
    def make(
        position: str, windows: tuple[int, ...], global_layers: tuple[int, ...], num_streams: int
    ) -> Conformer:
        return make_model(
            attention_position=position,
            window_sizes=windows,
            global_attention_layers=global_layers,
            num_streams=num_streams,
        )

    return cache(make)


@given(option=st.sampled_from(OPTIONS), cuts=st.sets(st.integers(1, LENGTH - 1), max_size=12))
@settings(max_examples=80, deadline=None)
def test_chunks_of_any_lengths_equal_the_whole(
    option: tuple[str, tuple[int, ...], tuple[int, ...], int],
    cuts: set[int],
    cached_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
) -> None:
    model, input_ids = cached_model(*option), some_ids(2, LENGTH)
    edges = [0, *sorted(cuts), LENGTH]
    state = model.empty_state(2)
    chunked = in_chunks(model, input_ids, [b - a for a, b in itertools.pairwise(edges)], state)
    with torch.no_grad():
        torch.testing.assert_close(chunked, model(input_ids), rtol=0, atol=1e-9)
    assert state.lengths == (LENGTH, LENGTH)


@pytest.mark.parametrize("option", OPTIONS)
def test_token_by_token_equals_the_whole(
    option: tuple[str, tuple[int, ...], tuple[int, ...], int],
    cached_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
) -> None:
    """Over more tokens than the largest window; in float32 within 1e-4, and greedy choices are the same."""
    model, input_ids = cached_model(*option), some_ids(2, LENGTH)
    with torch.no_grad():
        whole = model(input_ids)
    decoded = in_chunks(model, input_ids, [1] * LENGTH, model.empty_state(2))
    torch.testing.assert_close(decoded, whole, rtol=0, atol=1e-9)
    assert torch.equal(decoded.argmax(-1), whole.argmax(-1))


@pytest.mark.parametrize(
    "changes", [{}, {"position_embedding": "learned"}, {"global_attention_layers": (0, 1)}]
)
def test_a_prefilled_prompt_then_greedy_tokens(
    changes: dict[str, object], make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    """In float32, with the state and without it."""
    model = make_model(**changes).float()
    ids, state = some_ids(1, 25), model.empty_state(1)
    with torch.inference_mode():
        logits = model(ids, state)[:, -1:]
        for _ in range(30):
            ids = torch.cat((ids, logits.argmax(-1)), dim=1)
            logits = model(ids[:, -1:], state)
            again = model(ids)[:, -1:]
            torch.testing.assert_close(logits, again, rtol=0, atol=1e-4)
            assert torch.equal(logits.argmax(-1), again.argmax(-1))


@pytest.mark.parametrize("position", ["xpos", "dynamic"])
@pytest.mark.parametrize(
    "changes", [{}, {"global_attention_layers": (1,)}, {"position_embedding": "learned"}]
)
def test_rows_of_different_lengths_go_on_together(
    position: str,
    changes: dict[str, object],
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
) -> None:
    model = make_model(attention_position=position, window_sizes=(3, 20), **changes)
    rows = [some_ids(1, 40 + length)[:, :] for length in (1, 5, 30)]
    states = [model.empty_state(1) for _ in rows]
    with torch.inference_mode():
        for row, state in zip(rows, states, strict=True):
            model(row[:, :-40], state)
    joined = DecodingState.joined(states)
    assert joined.lengths == (1, 5, 30)
    following = torch.cat([row[:, -40:] for row in rows])
    together = in_chunks(model, following, [1, 1, 7, 1, 25, 5], joined)
    with torch.no_grad():
        for index, row in enumerate(rows):
            torch.testing.assert_close(together[index], model(row)[0, -40:], rtol=0, atol=1e-9)


def test_rows_can_be_taken_repeated_and_copied(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, ids = make_model(global_attention_layers=(0,)), some_ids(2, 30)
    state = model.empty_state(2)
    in_chunks(model, ids[:, :20], [20], state)
    taken, kept = state.take([1, 0, 1]), state.copy()
    with torch.inference_mode():
        following = model(ids[[1, 0, 1], 20:], taken)
        again = model(ids[:, 20:], kept)
        torch.testing.assert_close(following, model(ids)[[1, 0, 1], 20:], rtol=0, atol=1e-9)
        torch.testing.assert_close(again, following[[1, 0]], rtol=0, atol=1e-12)
    assert state.lengths == (20, 20) and taken.lengths == (30, 30, 30) and taken.batch == 3


def test_what_is_kept_does_not_grow(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model = make_model()
    state = model.empty_state(1)
    in_chunks(model, some_ids(1, 500), [100, 1, 1, 398], state)
    for block in state.blocks:
        assert [kept.keys.shape[2] for kept in block.attention] == [3, 7]
        assert all(
            kept.keys.untyped_storage().nbytes() <= 2 * 8 * kept.keys.numel() for kept in block.attention
        )
        assert block.convolution.shape[1] == 3


def test_gradients_reach_the_own_chunk_and_no_earlier_one(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, ids = make_model(), some_ids(1, 12)
    state = model.empty_state(1)
    model(ids[:, :6], state)
    model(ids[:, 6:], state).sum().backward()
    assert model.blocks[0].attention.qkv.weight.grad is not None
    model(ids[:, :2], state).sum().backward()  # nothing holds the freed graph
