"""Prefill and decode for a batch of sequences, with a cache.

A prompt is prefilled in chunks, and only once where several sequences share it. A learned position embedding
ends at max_seq_len: whenever the cache reaches it, the last max_seq_len / 2 tokens are prefilled again.

Shapes: B live sequences, T tokens of a chunk, V vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from coma_gen.config.schema import ModelParams
from coma_gen.generation.sequence import SequenceState
from coma_gen.generation.token_decoder import TokenDecoder
from coma_gen.model.cache import DecodeCache
from coma_gen.model.conformer import Conformer

PREFILL_CHUNK = 2048
"""Prompt tokens per forward pass."""

Tokens = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


class DecodeEngine:
    """A model and its cache; `logits` (B, V) predict the next token of each live sequence."""

    def __init__(self, model: Conformer, sequences: Sequence[SequenceState]) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._bound = model.params.max_seq_len if model.params.position_embedding == "learned" else None
        self.logits: Reals = np.zeros((0, 0))
        self._step = TokenDecoder(model)
        receptive_field = _compute_receptive_field(model.params)
        lengths = [receptive_field if s.tokens else len(s.prompt) for s in sequences]
        self._state = self._prefill(sequences, lengths)

    def _prefill(self, sequences: Sequence[SequenceState], lengths: Sequence[int]) -> DecodeCache:
        """Runs the model over the last `lengths` tokens of the sequences, once where they are equal."""
        rows_of: dict[tuple[bytes, bytes], int] = {}
        states: list[DecodeCache] = []
        logits, rows = [], []
        for sequence, length in zip(sequences, lengths, strict=True):
            if self._bound is not None and min(length, sequence.length) >= self._bound:
                length = self._bound - self._bound // 2
            tokens, bins = np.array([sequence.tail(length)]), sequence.tail_conditions(length)
            key = (tokens.tobytes(), b"" if bins is None else bins.tobytes())
            if key not in rows_of:
                rows_of[key] = len(states)
                state = self._model.init_cache(1)
                for start in range(0, tokens.shape[1], PREFILL_CHUNK):
                    part = slice(start, start + PREFILL_CHUNK)
                    last = self._forward(tokens[:, part], None if bins is None else bins[None, part], state)
                states.append(state)
                logits.append(last)
            rows.append(rows_of[key])
        self.logits = np.concatenate(logits)[rows]
        joined = DecodeCache.merge(states) if len(states) > 1 else states[0]
        return joined if rows == list(range(len(states))) else joined.select_rows(rows)

    def _forward(self, tokens: Tokens, bins: Tokens | None, state: DecodeCache) -> Reals:
        """Returns the logits (B, V) after tokens (B, T) with condition bins (B, T, F) or None."""
        input_ids = torch.from_numpy(tokens).to(self._device)
        conditions = None if bins is None else torch.from_numpy(bins).to(self._device)
        if tokens.shape[1] == 1:
            logits = self._step(input_ids, state, conditions)
        else:
            logits = self._model(input_ids, state, conditions)[:, -1]
        return np.asarray(logits.float().cpu().numpy(), np.float64)

    def read(self, sequences: Sequence[SequenceState], rows: Sequence[int]) -> None:
        """Runs the last token of each sequence through the model.

        Args:
            sequences: The sequences that are still live.
            rows: Their rows in the batch before.
        """
        if len(rows) != self._state.batch:
            self._state = self._state.select_rows(rows)
        if self._bound is not None and max(self._state.lengths) >= self._bound:
            self._state = self._prefill(sequences, [self._bound // 2] * len(sequences))
            return
        tokens = np.array([[sequence.tokens[-1]] for sequence in sequences], np.int64)
        bins = [sequence.conditions.target_bins for sequence in sequences if sequence.conditions is not None]
        self.logits = self._forward(tokens, np.stack(bins)[:, None] if bins else None, self._state)


def _compute_receptive_field(params: ModelParams) -> int:
    """Returns the receptive field of all blocks together: earlier tokens cannot change the cache."""
    if params.global_attention_layers:
        return sys.maxsize
    reach = {"attention": max(params.window_sizes), "convolution": params.kernel_size - 1}
    return 1 + params.num_layers * sum(reach.get(branch, 0) for branch in params.branches)
