"""Runs the model over sequences that grow, with a state that is carried along.

A prompt is read in chunks, and once where several sequences share it. Under a learned position embedding,
which ends at max_seq_len, the last half of its length is read anew whenever it is full.

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

PREFILL = 2048
"""Tokens of a prompt that are read in one pass."""

Tokens = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


class DecodeEngine:
    """The model and its state; `logits` (B, V) are those of the next token of each live one."""

    def __init__(self, model: Conformer, sequences: Sequence[SequenceState]) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._bound = model.params.max_seq_len if model.params.position_embedding == "learned" else None
        self.logits: Reals = np.zeros((0, 0))
        self._step = TokenDecoder(model)
        receptive_field = _receptive_field(model.params)
        lengths = [receptive_field if s.tokens else len(s.prompt) for s in sequences]
        self._state = self._primed(sequences, lengths)

    def _primed(self, sequences: Sequence[SequenceState], lengths: Sequence[int]) -> DecodeCache:
        """Reads the last tokens of sequences, so many of each; equal ones once."""
        different: dict[tuple[bytes, bytes], int] = {}
        states: list[DecodeCache] = []
        logits, rows = [], []
        for sequence, length in zip(sequences, lengths, strict=True):
            if self._bound is not None and min(length, sequence.length) >= self._bound:
                length = self._bound - self._bound // 2
            tokens, told = np.array([sequence.tail(length)]), sequence.told_of_tail(length)
            key = (tokens.tobytes(), b"" if told is None else told.tobytes())
            if key not in different:
                different[key] = len(states)
                state = self._model.init_cache(1)
                for start in range(0, tokens.shape[1], PREFILL):
                    part = slice(start, start + PREFILL)
                    read = self._forward(tokens[:, part], None if told is None else told[None, part], state)
                states.append(state)
                logits.append(read)
            rows.append(different[key])
        self.logits = np.concatenate(logits)[rows]
        joined = DecodeCache.merge(states) if len(states) > 1 else states[0]
        return joined if rows == list(range(len(states))) else joined.select_rows(rows)

    def _forward(self, tokens: Tokens, told: Tokens | None, state: DecodeCache) -> Reals:
        """(B, V) logits behind the last of tokens (B, T), which are told (B, T, F) or nothing."""
        input_ids = torch.from_numpy(tokens).to(self._device)
        conditions = None if told is None else torch.from_numpy(told).to(self._device)
        is_one = tokens.shape[1] == 1
        move = self._step if is_one else self._model
        logits = move(input_ids, state, conditions)
        logits = logits if is_one else logits[:, -1]
        return np.asarray(logits.float().cpu().numpy(), np.float64)

    def read(self, sequences: Sequence[SequenceState], rows: Sequence[int]) -> None:
        """Goes on with the rows named: the last token of each is read."""
        if len(rows) != self._state.batch:
            self._state = self._state.select_rows(rows)
        if self._bound is not None and max(self._state.lengths) >= self._bound:
            self._state = self._primed(sequences, [self._bound // 2] * len(sequences))
            return
        tokens = np.array([[sequence.tokens[-1]] for sequence in sequences], np.int64)
        wanted = [sequence.told.wanted for sequence in sequences if sequence.told is not None]
        self.logits = self._forward(tokens, np.stack(wanted)[:, None] if wanted else None, self._state)


def _receptive_field(params: ModelParams) -> int:
    """Tokens before which nothing changes a state: those that the blocks see together."""
    if params.global_attention_layers:
        return sys.maxsize
    reach = {"attention": max(params.window_sizes), "convolution": params.kernel_size - 1}
    return 1 + params.num_layers * sum(reach.get(branch, 0) for branch in params.branches)
