"""Decoding one token at a time, with folded weights."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import tape
import torch

from coma_gen.core.errors import UserError
from coma_gen.generation import recorded_steps
from coma_gen.generation.recorded_steps import RecordedSteps
from coma_gen.generation.token_decoder import TokenDecoder
from coma_gen.model.cache import DecodeCache
from coma_gen.model.conformer import Conformer


def test_the_model_does_not_know_it(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    """A chunk of one token goes the way of every other, with gradients; both give the same."""
    model, ids = make_model(), some_ids(2, 6)
    state = model.init_cache(2)
    with torch.no_grad():
        model(ids[:, :5], state)
        other = state.copy()
    logits = model(ids[:, 5:], state)
    logits.sum().backward()
    assert model.blocks[1].branches[1].qkv.weight.grad is not None
    stepped = TokenDecoder(model)(ids[:, 5:], other)
    torch.testing.assert_close(stepped, logits[:, 0].detach(), rtol=0, atol=1e-9)
    assert state.lengths == other.lengths == (6, 6)


def test_a_learned_position_embedding_has_an_end(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, ids = make_model(position_embedding="learned", max_seq_len=2), some_ids(1, 3)
    state, step = model.init_cache(1), TokenDecoder(model)
    for token in ids[:, :2].split(1, dim=1):
        step(token, state)
    with pytest.raises(UserError, match=r"max_seq_len.* 2 tokens.*3 tokens"):
        step(ids[:, 2:], state)
    assert state.lengths == (2,)


def test_one_serves_batches_of_any_size(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, ids = make_model(), some_ids(3, 20)
    state, step = model.init_cache(3), TokenDecoder(model)
    for token in ids[:, :10].split(1, dim=1):
        logits = step(token, state)
    state = state.select_rows([2, 0])
    for token in ids[[2, 0], 10:].split(1, dim=1):
        logits = step(token, state)
    torch.testing.assert_close(logits, model(ids[[2, 0]])[:, -1].detach(), rtol=0, atol=1e-9)


def test_a_new_one_sees_new_weights(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    """What is folded from the weights does not follow them: when they have changed, in place or not, a new
    one gives what the model gives.
    """
    model, ids = make_model(), some_ids(1, 12)

    def decoded() -> torch.Tensor:
        state, step = model.init_cache(1), TokenDecoder(model)
        with torch.inference_mode():
            return torch.stack([step(token, state) for token in ids.split(1, dim=1)], dim=1)

    before = decoded()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.8)
    after = decoded()
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(after, model(ids).detach(), rtol=0, atol=1e-9)
    for parameter in model.parameters():
        parameter.data = 1.1 * parameter.data
    torch.testing.assert_close(decoded(), model(ids).detach(), rtol=0, atol=1e-9)


def test_streams_of_zeros_are_no_division_by_zero(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, ids = make_model(), some_ids(1, 4)
    with torch.no_grad():
        model.token_embedding.weight.zero_()
        for block in model.blocks:
            block.branches[1].norm.bias.zero_()
            block.branches[0].down.bias.zero_()
            block.branches[0].down.weight.zero_()
    state, step = model.init_cache(1), TokenDecoder(model)
    with torch.inference_mode():
        decoded = torch.stack([step(token, state) for token in ids.split(1, dim=1)], dim=1)
        torch.testing.assert_close(decoded, model(ids), rtol=0, atol=1e-9)


@pytest.mark.parametrize("position", ["xpos", "dynamic"])
def test_under_autocast_it_keeps_the_precision_of_the_weights(
    position: str, make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, ids = make_model(attention_position=position).float(), some_ids(1, 40)
    state, plain, step = model.init_cache(1), model.init_cache(1), TokenDecoder(model)
    with torch.inference_mode():
        for token in ids.split(1, dim=1):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = step(token, state)
            assert torch.equal(logits, step(token, plain))


def addresses(state: DecodeCache) -> list[int]:
    """Where the caches lie."""
    return [layer.buffer.data_ptr() for block in state.blocks for branch in block for layer in branch]


class TestRecorded:
    """Steps as CUDA graphs, by a stand-in: the windows are of 3 and 7 tokens, there is room for 32."""

    @pytest.mark.parametrize("position", ["xpos", "rotary", "dynamic", "none"])
    def test_the_bits_are_those_of_the_plain_path(
        self, position: str, make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
    ) -> None:
        """Rows of two lengths go around the cache four times; then one of them goes on alone."""
        model, ids, recorded = make_model(attention_position=position), some_ids(2, 200), []

        def record(work: Callable[[], torch.Tensor]) -> Any:
            recorded.append(1)
            return tape.record(work)

        plain, replayed = TokenDecoder(model), TokenDecoder(model, RecordedSteps(lambda: record))
        with torch.inference_mode():
            starts = [model.init_cache(1), model.init_cache(1)]
            model(ids[:1, :5], starts[0])
            state, other = DecodeCache.merge(starts), DecodeCache.merge(starts)
            before = addresses(state)
            for token in ids[:, 5:150].split(1, dim=1):
                assert torch.equal(replayed(token, state), plain(token, other))
            assert len(recorded) == state.capacity == 32, "one for each slot"
            assert addresses(state) == before
            state, other = state.select_rows([1]), other.select_rows([1])
            for token in ids[1:, 150:].split(1, dim=1):
                assert torch.equal(replayed(token, state), plain(token, other))
            assert len(recorded) > 32, "other rows lie elsewhere"
        assert state.lengths == other.lengths == (195,)

    def test_no_step_that_depends_on_more_than_its_slot_is_recorded(
        self, make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
    ) -> None:
        model, ids = make_model(global_attention_layers=(0,)), some_ids(1, 80)
        step = TokenDecoder(model, RecordedSteps(lambda: pytest.fail("sees everything before it")))
        state = model.init_cache(1)
        for token in ids.split(1, dim=1):
            step(token, state)

    def test_what_cannot_be_recorded_goes_on_and_one_line_says_so(
        self,
        make_model: Callable[..., Conformer],
        some_ids: Callable[..., torch.Tensor],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def refuses(_: Callable[[], torch.Tensor]) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

        recorded_steps._warn.cache_clear()
        model, ids = make_model(), some_ids(1, 80)
        for _ in range(2):
            state, step = model.init_cache(1), TokenDecoder(model, RecordedSteps(lambda: refuses))
            with caplog.at_level(logging.WARNING), torch.inference_mode():
                logits = torch.stack([step(token, state) for token in ids.split(1, dim=1)], dim=1)
            torch.testing.assert_close(logits, model(ids).detach(), rtol=0, atol=1e-9)
        assert caplog.messages == [
            "decoding: steps cannot be recorded as CUDA graphs; they run in eager mode. "
            "RuntimeError: operation not permitted when stream is capturing"
        ]
