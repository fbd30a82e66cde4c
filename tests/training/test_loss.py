"""Validation loss: every token counts once, with equal weight."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from coma_gen.core.errors import UserError
from coma_gen.training.loss import IGNORE, split_batches, validation_nll

CPU = torch.device("cpu")


class Ladder(nn.Module):
    """Gives token v probability proportional to e^v, whatever came before."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return torch.arange(12.0).expand(*input_ids.shape, 12)


class Window(nn.Module):
    """Is sure that the next token is the number of tokens it has seen in its window, plus one."""

    def forward(self, input_ids: Tensor) -> Tensor:
        lengths = torch.arange(1, input_ids.shape[1] + 1)
        return 100.0 * nn.functional.one_hot(lengths + 1, 12).float().expand(len(input_ids), -1, -1)


def test_windows_by_hand(trainer: ModuleType) -> None:
    split = trainer.Tokens([np.array([1, 5, 6, 7, 8, 9, 2]), np.array([1, 4, 2]), np.array([1, 3, 3, 3, 2])])
    got = list(split_batches(split, seq_len=4, batch=3, pad_id=0))
    none = IGNORE
    assert [inputs.tolist() for inputs, _ in got] == [
        [[1, 5, 6, 7], [8, 9, 0, 0], [1, 4, 0, 0]],
        [[1, 3, 3, 3]],
    ]
    assert [targets.tolist() for _, targets in got] == [
        [[5, 6, 7, 8], [9, 2, none, none], [4, 2, none, none]],
        [[3, 3, 3, 2]],
    ]


def test_mean_by_hand(trainer: ModuleType) -> None:
    split = trainer.Tokens([np.array([1, 5, 6, 7, 8, 9, 2]), np.array([1, 4, 2])])
    log_total = math.log(sum(math.exp(v) for v in range(12)))
    expected = sum(log_total - v for v in (5, 6, 7, 8, 9, 2, 4, 2)) / 8
    for batch in (1, 2, 3):
        got = validation_nll(Ladder(), split, seq_len=4, batch=batch, pad_id=0, device=CPU, bf16=False)
        assert got == pytest.approx(expected, rel=1e-6)


def test_the_state_is_not_carried(trainer: ModuleType) -> None:
    split = trainer.Tokens([np.array([1, 2, 3, 4, 2, 3, 4])])
    assert validation_nll(
        Window(), split, seq_len=3, batch=4, pad_id=0, device=CPU, bf16=False
    ) == pytest.approx(0, abs=1e-6)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    seq_len=st.integers(2, 16),
    batch=st.integers(1, 5),
)
def test_every_token_is_a_target_once(
    trainer: ModuleType, lengths: list[int], seq_len: int, batch: int
) -> None:
    numbers = iter(range(1, 10_000))
    pieces = [np.array([next(numbers) for _ in range(length)]) for length in lengths]
    batches = list(split_batches(trainer.Tokens(pieces), seq_len=seq_len, batch=batch, pad_id=0))
    targets = [int(t) for _, wanted in batches for t in wanted.flatten() if t != IGNORE]
    assert targets == [int(token) for piece in pieces for token in piece[1:]]
    for inputs, wanted in batches:
        assert ((inputs + 1 == wanted) | (wanted == IGNORE)).all()


def test_a_split_without_targets_is_refused(trainer: ModuleType) -> None:
    with pytest.raises(UserError, match="at least one token"):
        validation_nll(
            Ladder(), trainer.Tokens([np.array([1])]), seq_len=4, batch=1, pad_id=0, device=CPU, bf16=False
        )


def test_mode_of_the_model_comes_back(trainer: ModuleType) -> None:
    model = Ladder().train()
    validation_nll(
        model, trainer.Tokens([np.array([1, 2])]), seq_len=4, batch=1, pad_id=0, device=CPU, bf16=False
    )
    assert model.training
