"""How likely a model finds music: the negative log-likelihood of every token of whole performances.

The reference protocol carries the decoding state through a performance, so that each token is scored exactly
once with all the context that the model can use. The first token (BOS) is given, and so costs nothing. Chunk
and batch change speed only.

A model with a learned position embedding ends at max_seq_len: beyond, it is primed again on the last half of
its length, so that each token still has between half and all of that as context.

Shapes: B batch, T tokens of a chunk, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from coma_gen.evaluation.scorer import Ids, Nats, Scorer
from coma_gen.model.conformer import Conformer


def model_scorer(model: Conformer, *, batch: int, chunk: int, desc: str = "score") -> Scorer:
    """A scorer of a trained model, which is put into evaluation mode.

    Args:
        model: the conformer.
        batch: performances scored side by side.
        chunk: tokens of one forward pass.
        desc: what the progress bar says.
    """

    def score(pieces: Sequence[Ids]) -> list[Nats]:
        model.eval()
        order = sorted(range(len(pieces)), key=lambda index: (len(pieces[index]), index))
        scored: list[Nats] = [np.empty(0)] * len(pieces)
        bar: tqdm[Any] = tqdm(
            total=sum(map(len, pieces)), desc=desc, unit="token", unit_scale=True, disable=None
        )
        with torch.inference_mode(), bar:
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                chosen = [pieces[row] for row in rows]
                absolute = model.params.position_embedding == "learned"
                nats = _primed_again(model, chosen, bar) if absolute else _carried(model, chosen, chunk, bar)
                for row, of_piece in zip(rows, nats, strict=True):
                    scored[row] = of_piece
        return scored

    return score


def _nats(logits: torch.Tensor, targets: torch.Tensor) -> Nats:
    """(B, T) nats of targets (B, T) under logits (B, T, V), in float64."""
    flat = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view(targets.shape).cpu().numpy().astype(np.float64)


def _tensor(model: Conformer, rows: Sequence[Ids], start: int, end: int) -> torch.Tensor:
    """(B, end - start) tokens, zero where a piece has ended: nothing after the end of a piece is read."""
    device = next(model.parameters()).device
    block = np.zeros((len(rows), end - start), np.int64)
    for row, piece in enumerate(rows):
        part = piece[start:end]
        block[row, : len(part)] = part
    return torch.from_numpy(block).to(device)


def _carried(model: Conformer, pieces: Sequence[Ids], chunk: int, bar: tqdm[Any]) -> list[Nats]:
    """Scores pieces in rising order of length, with the state carried; rows that have ended are dropped."""
    nats = [np.zeros(len(piece)) for piece in pieces]
    state = model.empty_state(len(pieces))
    live = list(range(len(pieces)))
    for start in range(0, max(map(len, pieces)) - 1, chunk):
        still = [row for row in live if len(pieces[row]) - 1 > start]
        if still != live:
            state, live = state.take([live.index(row) for row in still]), still
        rows = [pieces[row] for row in live]
        end = min(start + chunk, max(map(len, rows)) - 1)
        logits = model(_tensor(model, rows, start, end), state)
        block = _nats(logits, _tensor(model, rows, start + 1, end + 1))
        for row, values in zip(live, block, strict=True):
            count = min(end, len(pieces[row]) - 1) - start
            nats[row][start + 1 : start + 1 + count] = values[:count]
            bar.update(count)
    return nats


def _primed_again(model: Conformer, pieces: Sequence[Ids], bar: tqdm[Any]) -> list[Nats]:
    """Scores pieces in overlapping windows: after the first, the second half of each window counts."""
    return [_overlapping(model, piece, model.params.max_seq_len, bar) for piece in pieces]


def windows(length: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(start, first counted, end) of the windows over `length` inputs: each input counts once."""
    counted = 0
    while counted < length:
        start = 0 if counted == 0 else max(0, min(counted - size // 2, length - size))
        end = min(start + size, length)
        yield start, counted, end
        counted = end


def _overlapping(model: Conformer, piece: Ids, size: int, bar: tqdm[Any]) -> Nats:
    nats = np.zeros(len(piece))
    for start, counted, end in windows(len(piece) - 1, size):
        logits = model(_tensor(model, [piece], start, end))
        values = _nats(logits, _tensor(model, [piece], start + 1, end + 1))[0]
        nats[counted + 1 : end + 1] = values[counted - start :]
        bar.update(end - counted)
    return nats
