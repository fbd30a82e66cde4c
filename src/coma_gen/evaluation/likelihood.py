"""Negative log-likelihood of every token of whole performances.

There are two protocols, each of which scores every token but BOS exactly once:

carried    The reference. The cache is carried from the first token of a performance to the last, so each
           token has all the context that the model can use. Chunk and batch size affect speed only.
windowed   For comparison with published results. Windows of `window` tokens start with an empty cache,
           `stride` tokens apart, and in each but the first only the last `stride` tokens count:

               window 6, stride 4     a b c d e f
                                              . . g h i j        e and f are context, g to j count
                                                      . . k l

           Each token after the first window thus has at least window - stride tokens before it (the last
           window extends back to full length). This underestimates a model that can use more context.

A model with a learned position embedding cannot go beyond max_seq_len. Its reference is the windowed protocol
with windows of that length, half of which count.

Shapes: B batch, T tokens of a chunk or window, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from coma_gen.evaluation.context_length import ContextCurve
from coma_gen.evaluation.scorer import Ids, Nats, Scorer
from coma_gen.model.conformer import Conformer


def model_scorer(model: Conformer, *, batch: int, chunk: int, desc: str | None = "score") -> Scorer:
    """Builds a scorer of a trained model by the reference protocol; puts the model into evaluation mode.

    Args:
        model: Model to score with.
        batch: Number of performances (or windows) per batch.
        chunk: Tokens per forward pass.
        desc: Label of the progress bar; None hides it.
    """

    def score(pieces: Sequence[Ids]) -> list[Nats]:
        if model.params.position_embedding == "learned":
            length = model.params.max_seq_len
            return score_windows(
                model, pieces, batch=batch, window=length, stride=(length + 1) // 2, desc=desc
            )[0]
        model.eval()
        order = sorted(range(len(pieces)), key=lambda index: (len(pieces[index]), index))
        scored: list[Nats] = [np.empty(0)] * len(pieces)
        with torch.inference_mode(), _progress_bar(pieces, desc) as bar:
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                nats = _score_stateful(model, [pieces[row] for row in rows], chunk, bar)
                for row, of_piece in zip(rows, nats, strict=True):
                    scored[row] = of_piece
        return scored

    return score


def score_windows(
    model: Conformer,
    pieces: Sequence[Ids],
    *,
    batch: int,
    window: int,
    stride: int,
    desc: str | None = "score",
) -> tuple[list[Nats], ContextCurve]:
    """Scores pieces by the windowed protocol; puts the model into evaluation mode.

    Args:
        model: Model to score with.
        pieces: (T,) ids of each piece, BOS first.
        batch: Number of windows per batch.
        window: Tokens per window.
        stride: Tokens between the starts of windows, at most `window`.
        desc: Label of the progress bar; None hides it.

    Returns:
        The nats of every token of each piece, and the curve over the position within the window. The curve
        includes every token of every window, also those that do not count towards the nats.
    """
    model.eval()
    nats, curve = [np.zeros(len(piece)) for piece in pieces], ContextCurve()
    spans = [
        (row, *bounds)
        for row, piece in enumerate(pieces)
        for bounds in iter_windows(len(piece) - 1, window, stride)
    ]
    with torch.inference_mode(), _progress_bar(pieces, desc) as bar:
        for first in range(0, len(spans), batch):
            group = spans[first : first + batch]
            inputs = [pieces[row][start:end] for row, start, _, end in group]
            targets = [pieces[row][start + 1 : end + 1] for row, start, _, end in group]
            block = _compute_nats(model(_pad(model, inputs)), _pad(model, targets))
            for (row, start, counted, end), values in zip(group, block, strict=True):
                curve.add(np.arange(1, end - start + 1), values[: end - start])
                nats[row][counted + 1 : end + 1] = values[counted - start : end - start]
                bar.update(end - counted)
    return nats, curve


def iter_windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yields (start, first counted, end) of windows over `length` inputs; each input is counted once."""
    counted = 0
    while counted < length:
        start = 0 if counted == 0 else max(0, min(counted - (window - stride), length - window))
        end = min(start + window, length)
        yield start, counted, end
        counted = end


def _progress_bar(pieces: Sequence[Ids], desc: str | None) -> tqdm[Any]:
    """Creates a progress bar that counts scored tokens."""
    total = sum(len(piece) - 1 for piece in pieces)
    return tqdm(total=total, desc=desc, unit="token", unit_scale=True, disable=True if desc is None else None)


def _compute_nats(logits: torch.Tensor, targets: torch.Tensor) -> Nats:
    """Returns (B, T) the nats of targets (B, T) under logits (B, T, V), in float64."""
    flat = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view(targets.shape).cpu().numpy().astype(np.float64)


def _pad(model: Conformer, rows: Sequence[Ids]) -> torch.Tensor:
    """Pads rows to (B, T) with zeros. No mask is needed: the model is causal, and padding is not scored."""
    device = next(model.parameters()).device
    block = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for row, ids in enumerate(rows):
        block[row, : len(ids)] = ids
    return torch.from_numpy(block).to(device)


def _score_stateful(model: Conformer, pieces: Sequence[Ids], chunk: int, bar: tqdm[Any]) -> list[Nats]:
    """Scores pieces, sorted by length, chunk by chunk with a cache; rows that have ended are dropped."""
    nats = [np.zeros(len(piece)) for piece in pieces]
    state = model.init_cache(len(pieces))
    live = list(range(len(pieces)))
    for start in range(0, max(map(len, pieces)) - 1, chunk):
        still = [row for row in live if len(pieces[row]) - 1 > start]
        if still != live:
            state, live = state.select_rows([live.index(row) for row in still]), still
        parts = [pieces[row][start : start + chunk + 1] for row in live]
        logits = model(_pad(model, [part[:-1] for part in parts]), state)
        block = _compute_nats(logits, _pad(model, [part[1:] for part in parts]))
        for row, part, values in zip(live, parts, block, strict=True):
            count = len(part) - 1
            nats[row][start + 1 : start + 1 + count] = values[:count]
            bar.update(count)
    return nats
