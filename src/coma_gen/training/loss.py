"""Negative log-likelihood: the sum minimized in training, and the mean over a validation split.

Shapes: B windows, T tokens, V vocabulary, F conditions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from coma_gen.core.errors import Fault, UserError
from coma_gen.shards.windows import IGNORE
from coma_gen.training.distributed import SINGLE_PROCESS, Distributed


class TokenSequences(Protocol):
    """Interface of a split for validation (such as `ShardedSplit`): pieces as token ids from BOS to EOS."""

    def __len__(self) -> int: ...

    def piece(self, index: int, /) -> NDArray[np.uint16]:
        """Returns the ids (T,) of a piece."""


def compute_logits(
    model: nn.Module, input_ids: Tensor, *, bf16: bool, conditions: Tensor | None = None
) -> Tensor:
    """Computes a model's logits (B, T, V), in float32 at least.

    Args:
        model: `model(input_ids)` returns logits (B, T, V).
        input_ids: int64 (B, T).
        bf16: Whether to run the model under bf16 autocast.
        conditions: int64 (B, T, F) condition bins; None if unconditioned.
    """
    with torch.autocast(input_ids.device.type, dtype=torch.bfloat16, enabled=bf16):
        logits: Tensor = model(input_ids) if conditions is None else model(input_ids, conditions=conditions)
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def sum_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Sums the cross-entropy of logits (B, T, V) with targets (B, T), except where a target is `IGNORE`."""
    return functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )


def sum_nll(
    model: nn.Module, input_ids: Tensor, targets: Tensor, *, bf16: bool, conditions: Tensor | None = None
) -> Tensor:
    """Returns the summed negative log-likelihood of the targets (nats), a differentiable scalar.

    Args:
        model: `model(input_ids)` returns logits (B, T, V).
        input_ids: int64 (B, T).
        targets: int64 (B, T), `IGNORE` for padding.
        bf16: Whether to run the model under bf16 autocast; the softmax is at least float32 either way.
        conditions: int64 (B, T, F) condition bins; None if unconditioned.
    """
    return sum_cross_entropy(compute_logits(model, input_ids, bf16=bf16, conditions=conditions), targets)


def split_batches(
    split: TokenSequences, *, seq_len: int, batch: int, pad_id: int, ranks: Distributed = SINGLE_PROCESS
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields batches in which every token of a split except BOS is a target exactly once.

    Windows do not overlap and none spans two pieces; the last one of a piece is padded on the right:

        piece     BOS a b c d e EOS          seq_len 4
        input_ids BOS a b c | d e   pad pad
        targets   a   b c d | e EOS -   -

    Yields:
        input_ids (B, T) and targets (B, T), in the order of the pieces; the last batch may have fewer
        windows. Batches are assigned to ranks in turn.
    """
    starts = [(i, at) for i in range(len(split)) for at in range(0, len(split.piece(i)) - 1, seq_len)]
    for first in range(ranks.rank * batch, len(starts), ranks.size * batch):
        rows = starts[first : first + batch]
        input_ids = np.full((len(rows), seq_len), pad_id, dtype=np.int64)
        targets = np.full((len(rows), seq_len), IGNORE, dtype=np.int64)
        for row, (index, at) in enumerate(rows):
            tokens = split.piece(index)[at : at + seq_len + 1]
            input_ids[row, : len(tokens) - 1] = tokens[:-1]
            targets[row, : len(tokens) - 1] = tokens[1:]
        yield input_ids, targets


def validation_nll(
    model: nn.Module,
    split: TokenSequences,
    *,
    seq_len: int,
    batch: int,
    pad_id: int,
    device: torch.device,
    bf16: bool,
    ranks: Distributed = SINGLE_PROCESS,
) -> float:
    """Returns the mean negative log-likelihood per token over a whole split (nats).

    Windows of `seq_len` tokens are scored independently. This loss selects the best weights and drives early
    stopping; the `evaluate` stage carries the state through whole pieces and reports a lower loss. Ranks
    share the work and all return the result.

    Raises:
        UserError: If no piece of the split has a token to predict.
    """
    was_training = model.training
    model.eval()
    nlls: list[Tensor] = []
    tokens = 0
    with torch.no_grad():
        for arrays in split_batches(split, seq_len=seq_len, batch=batch, pad_id=pad_id, ranks=ranks):
            input_ids, targets = (torch.from_numpy(array).to(device) for array in arrays)
            nlls.append(sum_nll(model, input_ids, targets, bf16=bf16))
            tokens += int((arrays[1] != IGNORE).sum())
    model.train(was_training)
    sums: list[float] = torch.stack(nlls).tolist() if nlls else []  # synchronizes with a GPU once
    count, longest = ranks.sum_over_ranks(tokens, len(sums))
    if not count:
        raise UserError(Fault("validation split", "must have at least one token to predict", "none"))
    return math.fsum(ranks.gather(sums, max_length=int(longest))) / count
