"""The decode cache: splitting a sequence in any way gives the outputs of one pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coma_gen.generation.token_decoder import TokenDecoder
from coma_gen.model.cache import DecodeCache
from coma_gen.model.conformer import Conformer
from coma_gen.model.positions import Rotation

Option = tuple[str, tuple[int, ...], tuple[int, ...], int]

OPTIONS: list[Option] = list(
    itertools.product(["xpos", "rotary", "dynamic", "none"], [(3, 7), (1,), (2, 40)], [(), (1,)], [1, 4])
)
LENGTH = 110
"""Tokens of a sequence: more than three times the cache's capacity, which is thus compacted three times."""


@torch.inference_mode()
def in_chunks(
    model: Conformer, input_ids: torch.Tensor, lengths: list[int], state: DecodeCache
) -> torch.Tensor:
    """As chunks of these lengths: those of one token as decoding reads them."""
    step = TokenDecoder(model)
    chunks = input_ids.split(lengths, dim=1)
    return torch.cat(
        [step(chunk, state)[:, None] if chunk.shape[1] == 1 else model(chunk, state) for chunk in chunks],
        dim=1,
    )


def bytes_of(state: DecodeCache) -> int:
    """What the state holds between two chunks."""
    everything = [layer_cache for block in state.blocks for branch in block for layer_cache in branch]
    return sum(layer_cache.buffer.untyped_storage().nbytes() for layer_cache in everything)


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
@settings(max_examples=35)
def test_chunks_of_any_lengths_equal_the_whole(
    option: Option,
    cuts: set[int],
    cached_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
) -> None:
    model, input_ids = cached_model(*option), some_ids(2, LENGTH)
    edges = [0, *sorted(cuts), LENGTH]
    state = model.init_cache(2)
    chunked = in_chunks(model, input_ids, [b - a for a, b in itertools.pairwise(edges)], state)
    with torch.no_grad():
        torch.testing.assert_close(chunked, model(input_ids), rtol=0, atol=1e-9)
    assert state.lengths == (LENGTH, LENGTH)


@pytest.mark.parametrize("option", OPTIONS)
def test_token_by_token_equals_the_whole(
    option: Option, cached_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    """Over more tokens than the largest window, and through several moves of the origin; the likeliest token
    is the same.
    """
    model, input_ids = cached_model(*option), some_ids(2, LENGTH)
    state = model.init_cache(2)
    assert state.capacity * 3 < LENGTH
    with torch.no_grad():
        whole = model(input_ids)
    decoded = in_chunks(model, input_ids, [1] * LENGTH, state)
    torch.testing.assert_close(decoded, whole, rtol=0, atol=1e-9)
    assert torch.equal(decoded.argmax(-1), whole.argmax(-1))


@pytest.mark.parametrize("option", OPTIONS[::2])
def test_token_by_token_in_float32(
    option: Option, make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    position, windows, global_layers, _ = option
    model = make_model(
        attention_position=position, window_sizes=windows, global_attention_layers=global_layers
    ).float()
    with torch.no_grad():
        whole = model(some_ids(1, LENGTH))
    decoded = in_chunks(model, some_ids(1, LENGTH), [20, *[1] * (LENGTH - 20)], model.init_cache(1))
    torch.testing.assert_close(decoded, whole, rtol=0, atol=1e-4)


OPERATIONS = st.one_of(
    st.tuples(st.just("read"), st.integers(1, 45)),
    st.tuples(st.just("step"), st.integers(1, 40)),
    st.tuples(st.just("take"), st.lists(st.integers(0, 9), min_size=1, max_size=3)),
    st.tuples(st.just("join"), st.integers(0, 45)),
)


@given(option=st.sampled_from(OPTIONS), operations=st.lists(OPERATIONS, min_size=2, max_size=6))
@settings(max_examples=35)
def test_any_history_of_rows_equals_the_whole(
    option: Option, operations: list[tuple[str, object]], cached_model: Callable[..., Conformer]
) -> None:
    """Rows that read chunks and single tokens, are taken, repeated, and joined by rows of another age."""
    model, generator = cached_model(*option), torch.Generator().manual_seed(0)

    def new(rows: int, length: int) -> torch.Tensor:
        return torch.randint(11, (rows, length), generator=generator)

    rows, state = [new(1, 5)[0]], model.init_cache(1)
    in_chunks(model, rows[0][None], [1, 4], state)
    for name, argument in operations:
        if name == "take":
            chosen = [index % len(rows) for index in argument]  # type: ignore[attr-defined]
            rows, state = [rows[index] for index in chosen], state.select_rows(chosen)
        elif name == "join":
            other, length = model.init_cache(1), int(argument)  # type: ignore[call-overload]
            rows.append(new(1, length)[0])
            if length:
                in_chunks(model, rows[-1][None], [1] * min(length, 3) + [length - 3] * (length > 3), other)
            state = DecodeCache.merge([state, other])
        else:
            length = int(argument)  # type: ignore[call-overload]
            following = new(len(rows), length)
            logits = in_chunks(model, following, [length] if name == "read" else [1] * length, state)
            rows = [torch.cat((row, more)) for row, more in zip(rows, following, strict=True)]
            for row, result in zip(rows, logits, strict=True):
                with torch.no_grad():
                    whole = model(row[None])[0, -length:]
                torch.testing.assert_close(result, whole, rtol=0, atol=1e-9)
        assert state.lengths == tuple(len(row) for row in rows)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_position": "rotary", "window_sizes": (1,)},
        {"attention_position": "dynamic"},
        {"position_embedding": "learned"},
        {"global_attention_layers": (0, 1)},
        {"num_streams": 1, "qk_rmsnorm": False},
        {"branches": ("attention", "feed_forward"), "num_streams": 1, "window_sizes": (9,)},
        {"branches": ("convolution", "feed_forward", "convolution", "attention", "half_feed_forward")},
        {"branches": ("feed_forward",), "num_streams": 2},
    ],
)
def test_a_prefilled_prompt_then_greedy_tokens(
    changes: dict[str, object], make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    """In float32, with the state and without it."""
    model = make_model(**changes).float()
    ids, state = some_ids(1, 25), model.init_cache(1)
    with torch.inference_mode():
        logits, step = model(ids, state)[:, -1], TokenDecoder(model)
        for _ in range(50):
            ids = torch.cat((ids, logits.argmax(-1, keepdim=True)), dim=1)
            logits = step(ids[:, -1:], state)
            again = model(ids)[:, -1]
            torch.testing.assert_close(logits, again, rtol=0, atol=1e-4)
            assert torch.equal(logits.argmax(-1), again.argmax(-1))


@pytest.mark.parametrize("position", ["xpos", "dynamic", "none"])
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
    rows = [some_ids(1, 80 + length) for length in (1, 5, 30)]
    states = [model.init_cache(1) for _ in rows]
    for row, state in zip(rows, states, strict=True):
        in_chunks(model, row[:, :-80], [1] * (row.shape[1] - 80), state)
    joined = DecodeCache.merge(states)
    assert joined.lengths == (1, 5, 30)
    following = torch.cat([row[:, -80:] for row in rows])
    together = in_chunks(model, following, [1, 1, 7, *[1] * 40, 25, 5, 1], joined)
    with torch.no_grad():
        for index, row in enumerate(rows):
            torch.testing.assert_close(together[index], model(row)[0, -80:], rtol=0, atol=1e-9)


@pytest.mark.parametrize("read", [20, 33])
def test_rows_can_be_taken_repeated_and_copied(
    read: int, make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    """Amid the appended tokens, and just after they were moved."""
    model, ids = make_model(global_attention_layers=(0,)), some_ids(2, 60)
    state = model.init_cache(2)
    in_chunks(model, ids[:, :read], [1] * read, state)
    taken, copied = state.select_rows([1, 0, 1]), state.copy()
    ones = [1] * (60 - read)
    following = in_chunks(model, ids[[1, 0, 1], read:], ones, taken)
    again = in_chunks(model, ids[:, read:], ones, copied)
    with torch.no_grad():
        torch.testing.assert_close(following, model(ids)[[1, 0, 1], read:], rtol=0, atol=1e-9)
    torch.testing.assert_close(again, following[[1, 0]], rtol=0, atol=1e-12)
    assert state.lengths == (read, read) and taken.lengths == (60, 60, 60) and taken.batch == 3
    other = torch.flip(ids[:, read:], dims=[1])
    elsewhere = in_chunks(model, other, ones, state)
    with torch.no_grad():
        whole = model(torch.cat((ids[:, :read], other), dim=1))[:, read:]
    torch.testing.assert_close(elsewhere, whole, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_five_thousand_tokens_equal_what_their_receptive_field_gives(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    """In float32; the buffer stays what it was before the first token."""
    model = make_model(window_sizes=(2, 16), num_layers=1).float()
    ids, state = some_ids(1, 5_200), model.init_cache(1)
    size, field, decoded = bytes_of(state), model.receptive_field, []
    assert field is not None
    for chunk in ids.split([37, *[1] * 3_000, 700, *[1] * 1_463], dim=1):
        decoded.append(in_chunks(model, chunk, [chunk.shape[1]], state))
        assert bytes_of(state) == size
    logits = torch.cat(decoded, dim=1)
    with torch.inference_mode():
        torch.testing.assert_close(logits, model(ids), rtol=0, atol=1e-4)
        for t in range(field - 1, 5_200, 397):
            again = model(ids[:, t - field + 1 : t + 1])[:, -1]
            torch.testing.assert_close(logits[:, t], again, rtol=0, atol=1e-4)


def test_a_cache_is_little_larger_than_the_windows(make_model: Callable[..., Conformer]) -> None:
    model = make_model()
    state = model.init_cache(3)
    for block in state.blocks:
        before, attention, convolution, after = block
        assert [layer_cache.buffer.shape[3] for layer_cache in attention] == [
            3 + state.capacity,
            7 + state.capacity,
        ]
        assert [layer_cache.buffer.shape[1] for layer_cache in convolution] == [3 + state.capacity]
        assert before == after == []
    wide = make_model(window_sizes=(40, 400)).init_cache(1)
    assert [layer_cache.buffer.shape[3] for layer_cache in wide.blocks[0][1]] == [140, 500]


def test_a_global_layer_grows_by_doubling(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model = make_model(global_attention_layers=(0,))
    state, sizes = model.init_cache(1), set()
    for token in some_ids(1, 600).split(1, dim=1):
        in_chunks(model, token, [1], state)
        slots = state.blocks[0][0][0].buffer.shape[3]
        assert slots <= 2 * max(state.lengths) + 2 * state.capacity
        sizes.add(slots)
    assert len(sizes) <= 6


@pytest.mark.parametrize("decay_base", [None, 0.5, 8.0])
def test_keys_turn_back_and_move(decay_base: float | None) -> None:
    """Turning at a place and moving the origin is turning at the place that is then the key's."""
    rotation = Rotation(6, decay_base)
    keys = torch.randn(2, 1, 9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turned = rotation.rotate_keys(keys, first=-4)
    assert not torch.allclose(turned, keys)
    torch.testing.assert_close(rotation.unrotate_keys(turned, first=-4), keys, rtol=1e-12, atol=1e-12)
    moved = rotation.shift_origin(turned, shift=5)
    torch.testing.assert_close(moved, rotation.rotate_keys(keys, first=-9), rtol=1e-9, atol=1e-12)


def test_gradients_reach_the_own_chunk_and_no_earlier_one(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, ids = make_model(), some_ids(1, 12)
    state = model.init_cache(1)
    model(ids[:, :6], state)
    model(ids[:, 6:], state).sum().backward()
    assert model.blocks[0].branches[1].qkv.weight.grad is not None
    model(ids[:, :2], state).sum().backward()  # nothing holds the freed graph


def test_a_state_passes_between_the_ways_of_turning_gradients_off(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    """Begun, taken and joined in inference mode, it goes on outside of it, with gradients too."""
    model, ids = make_model(global_attention_layers=(1,)), some_ids(1, 70)
    step = TokenDecoder(model)

    def steps(tokens: torch.Tensor, state: DecodeCache) -> list[torch.Tensor]:
        return [step(token, state)[:, None] for token in tokens.split(1, dim=1)]

    with torch.inference_mode():
        state = model.init_cache(1)
        results = steps(ids[:, :10], state)
    with torch.no_grad():
        results += steps(ids[:, 10:12], state)
        results.append(model(ids[:, 12:20], state))
    with torch.inference_mode():
        state = DecodeCache.merge([state.copy()])
        results += steps(ids[:, 20:21], state)
        state = state.copy()
    results += steps(ids[:, 21:60], state)
    results.append(model(ids[:, 60:65], state).detach())
    results.append(model(ids[:, 65:66], state).detach())
    with torch.inference_mode():
        results += steps(ids[:, 66:], state)
    torch.testing.assert_close(torch.cat(results, dim=1), model(ids).detach(), rtol=0, atol=1e-9)
