"""Cache of the model between successive chunks of a sequence.

An attention caches the keys and values visible to the next query (the last `window` tokens of each scale, or
all without a window); a convolution caches its last K - 1 inputs. Tokens are stored in temporal order. Each
new token is written to the next slot, and nothing is moved until the `room` for fresh tokens is used up; then
the cache is compacted: the visible tokens move to the front. A window of 4 with room for 3:

    slot       0 1 2 3 | 4 5 6
    2 tokens   . . a b |            fresh = 0: the next token is written to the slot after the bar
    5 tokens   . . a b | c d e      fresh = 3: the next query sees b c d e, and there is no room for f
    compacted  b c d e |            fresh = 0
    6 tokens   b c d e | f

The amortized cost of a token is constant and memory does not grow, except in global layers, whose buffers
grow by doubling.

Keys are stored rotated relative to the origin, the first slot after the bar, so one decode step rotates one
query and one key. Compaction rotates the remaining keys once, by the number of slots they move: attention
depends on distances alone, so the origin is arbitrary. A key is rotated about window / room times in all,
each time with a rounding error of 1e-7. xPos powers stay small because the origin stays near.

Rows of a batch may have different numbers of tokens; they are aligned at the newest token:

    row 0, 5 tokens   a b c d e
    row 1, 2 tokens   . . . a b      padding = (0, 3)

Shapes: B batch, H heads, d head dim, N tokens, P slots of a buffer, C channels of the convolution, K its
kernel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from coma_gen.model.positions import Rotation


class KeysValues(NamedTuple):
    """Keys (not rotated) and values (B, H, N, d) of the cached tokens followed by the chunk's own tokens.

    `padding` is the number of leading padding entries among the N in each row.
    """

    keys: Tensor
    values: Tensor
    padding: tuple[int, ...] = ()


@torch.inference_mode(False)
def zeros(like: Tensor, *shape: int) -> Tensor:
    """Creates zeros that can be modified in place both inside and outside inference mode."""
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


@dataclass
class LayerCache(ABC):
    """Cache of one branch, or of one scale of an attention.

    Attributes:
        memory: the buffer.
    """

    memory: Tensor

    @abstractmethod
    def compact(self, fresh: int) -> None:
        """Moves the visible tokens, the last `fresh` ones included, to the front of the buffer."""

    @abstractmethod
    def select_rows(self, rows: Tensor) -> Self:
        """Returns a copy with the given rows in the given order; rows may repeat."""

    @abstractmethod
    def merge(self, others: Sequence[Self]) -> Self:
        """Concatenates compacted caches along the batch."""


@dataclass
class KVCache(LayerCache):
    """Keys and values of one scale of an attention.

    Attributes:
        memory: (2, B, H, P, d), keys, then values.
        origin: slot of the first fresh token; the compacted tokens end before it.
        room: number of slots for fresh tokens.
        window: number of previous tokens visible to a query; None for all.
        rotation: rotary position of the keys, or None.
    """

    origin: int
    room: int
    window: int | None
    rotation: Rotation | None

    @classmethod
    def empty(
        cls,
        *,
        batch: int,
        num_heads: int,
        head_dim: int,
        room: int,
        window: int | None,
        rotation: Rotation | None,
        like: Tensor,
    ) -> KVCache:
        """Creates an empty cache with the device and dtype of `like`."""
        origin = window or 0
        memory = zeros(like, 2, batch, num_heads, origin + room, head_dim)
        return cls(memory, origin, room, window, rotation)

    def extend(self, keys: Tensor, values: Tensor, *, lengths: Sequence[int]) -> KeysValues:
        """Appends a chunk to the compacted cache and returns all keys and values visible to its queries.

        Args:
            keys: (B, H, T, d), not rotated.
            values: (B, H, T, d).
            lengths: number of tokens that each row had before.
        """
        longest = max(lengths)
        num_past = longest if self.window is None else min(longest, self.window)
        old_keys, old_values = self.memory.narrow(3, self.origin - num_past, num_past).unbind(0)
        if self.rotation is not None:
            old_keys = self.rotation.unrotate_keys(old_keys, first=-num_past)
        extended = KeysValues(
            torch.cat((old_keys.to(self.memory.dtype), keys.to(self.memory.dtype)), dim=2),
            torch.cat((old_values, values.to(self.memory.dtype)), dim=2),
            tuple(num_past - min(length, num_past) for length in lengths),
        )
        dropped = 0 if self.window is None else max(0, extended.keys.shape[2] - self.window)
        keys, values = (part.detach()[:, :, dropped:] for part in (extended.keys, extended.values))
        if self.rotation is not None:
            keys = self.rotation.rotate_keys(keys, first=-keys.shape[2])
        self._store(keys, values)
        return extended

    def write(self, keys_values: Tensor, *, fresh: int, visible: int) -> tuple[Tensor, ...]:
        """Writes one token of each row and returns the keys and values visible to its query.

        Args:
            keys_values: (2, B, H, d), the key rotated by `fresh`.
            fresh: number of tokens since the origin, less than `room`.
            visible: N, number of tokens visible to the query, its own included.

        Returns:
            Rotated keys and values (B, H, N, d), as views.
        """
        slot = self.origin + fresh
        self.memory.select(3, slot).copy_(keys_values)
        return self.memory.narrow(3, slot + 1 - visible, visible).unbind(0)

    def compact(self, fresh: int) -> None:
        """Moves the last `fresh` tokens before the origin; without a window it moves the origin instead."""
        dropped = 0 if self.window is None else fresh
        keys, values = self.memory[:, :, :, dropped : self.origin + fresh].clone().unbind(0)
        self._store(keys if self.rotation is None else self.rotation.shift_origin(keys, shift=fresh), values)

    def _store(self, keys: Tensor, values: Tensor) -> None:
        """Writes rotated keys and values (B, H, N, d) to the slots before the origin."""
        count = keys.shape[2]
        if self.window is None:
            self.origin = count
            if count + self.room > self.memory.shape[3]:
                _, batch, heads, _, width = self.memory.shape
                self.memory = zeros(self.memory, 2, batch, heads, 2 * count + self.room, width)
        past = self.memory.narrow(3, self.origin - count, count)
        past[0], past[1] = keys, values

    def select_rows(self, rows: Tensor) -> KVCache:
        """Returns a copy with the given rows in the given order; rows may repeat."""
        return replace(self, memory=self.memory[:, rows])

    def merge(self, others: Sequence[KVCache]) -> KVCache:
        """Concatenates compacted caches along the batch."""
        parts = (self, *others)
        origin, batch = max(part.origin for part in parts), sum(part.memory.shape[1] for part in parts)
        _, _, heads, _, width = self.memory.shape
        memory, row = zeros(self.memory, 2, batch, heads, origin + self.room, width), 0
        for part in parts:
            rows = part.memory.shape[1]
            memory[:, row : row + rows, :, origin - part.origin : origin] = part.memory[
                :, :, :, : part.origin
            ]
            row += rows
        return replace(self, memory=memory, origin=origin)


@dataclass
class ConvCache(LayerCache):
    """Last inputs of a depthwise convolution.

    Attributes:
        memory: (B, K - 1 + room, C), zeros before the first token.
        count: K - 1, the slot of the first fresh input.
    """

    count: int

    def extend(self, inputs: Tensor) -> Tensor:
        """Appends a chunk (B, T, C) to the compacted cache.

        Returns:
            The cached inputs followed by the chunk's, (B, K - 1 + T, C).
        """
        past = self.memory[:, : self.count]
        extended = torch.cat((past.to(inputs.dtype), inputs), dim=1)
        past.copy_(extended[:, inputs.shape[1] :].detach())
        return extended

    def reserve(self, fresh: int) -> tuple[Tensor, Tensor]:
        """Returns views of the slot (B, C) of the next input, after `fresh` others, and of the convolution's
        inputs (B, K, C) that end with it.
        """
        return self.memory.select(1, self.count + fresh), self.memory.narrow(1, fresh, self.count + 1)

    def compact(self, fresh: int) -> None:
        """Moves the last K - 1 inputs to the front."""
        self.memory[:, : self.count] = self.memory[:, fresh : fresh + self.count].clone()

    def select_rows(self, rows: Tensor) -> ConvCache:
        """Returns a copy with the given rows in the given order; rows may repeat."""
        return replace(self, memory=self.memory[rows])

    def merge(self, others: Sequence[ConvCache]) -> ConvCache:
        """Concatenates compacted caches along the batch."""
        return replace(self, memory=torch.cat([self.memory, *(other.memory for other in others)]))


BlockState = Sequence[Sequence[LayerCache]]
"""Cache of a block: for each branch one entry per scale (attention), one (convolution) or none."""


@dataclass
class DecodeCache:
    """Cache of the whole model, made by `Conformer.init_cache` and updated in place by `Conformer.forward`.

    It is valid only for the weights that filled it.

    Attributes:
        blocks: one entry per block.
        lengths: number of tokens that each row has processed.
        room: number of fresh tokens that the buffers can take.
        fresh: number of tokens since the last `compact`.
    """

    blocks: Sequence[BlockState]
    lengths: tuple[int, ...]
    room: int
    fresh: int = 0

    @property
    def batch(self) -> int:
        """Number of rows."""
        return len(self.lengths)

    def compact(self) -> None:
        """Compacts every layer's cache, which makes room for fresh tokens."""
        if self.fresh:
            for layer in (layer for block in self.blocks for branch in block for layer in branch):
                layer.compact(self.fresh)
            self.fresh = 0

    @torch.inference_mode(False)
    def select_rows(self, rows: Sequence[int]) -> DecodeCache:
        """Returns a copy with the given rows in the given order, to drop finished rows or to repeat a prompt.

        The copy shares no memory with this cache.
        """
        index = torch.tensor(list(rows))
        blocks = [
            [[layer.select_rows(index) for layer in branch] for branch in block] for block in self.blocks
        ]
        lengths = tuple(self.lengths[row] for row in rows)
        return DecodeCache(blocks, lengths, self.room, self.fresh)

    def copy(self) -> DecodeCache:
        """Returns an independent copy."""
        return self.select_rows(range(self.batch))

    @staticmethod
    @torch.inference_mode(False)
    def merge(states: Sequence[DecodeCache]) -> DecodeCache:
        """Concatenates caches of one model along the batch, such as those of prompts of different lengths."""
        for state in states:
            state.compact()
        blocks = [
            [
                [first.merge(others) for first, *others in zip(*branches, strict=True)]
                for branches in zip(*blocks, strict=True)
            ]
            for blocks in zip(*(state.blocks for state in states), strict=True)
        ]
        lengths = tuple(length for state in states for length in state.lengths)
        return DecodeCache(blocks, lengths, states[0].room)
