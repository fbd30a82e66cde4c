"""Cache of the model between successive chunks of a sequence.

An attention caches the keys and values visible to the next query (the last `window` tokens of each scale, or
all without a window); a convolution caches its last K - 1 inputs. Tokens are stored in temporal order. Each
new token is appended in the next slot, and nothing is moved until `capacity` tokens have been appended; then
the cache is compacted: the visible tokens move to the front. A window of 4 with a capacity of 3:

    slot       0 1 2 3 | 4 5 6
    2 tokens   . . a b |            num_appended = 0: the next token is written to the slot after the bar
    5 tokens   . . a b | c d e      num_appended = 3: the next query sees b c d e; the buffer is full
    compacted  b c d e |            num_appended = 0
    6 tokens   b c d e | f

The amortized cost of a token is constant and memory does not grow, except in global layers, whose buffers
grow by doubling.

Keys are stored rotated relative to the origin, the first slot after the bar, so one decode step rotates one
query and one key. Compaction rotates the remaining keys once, by the number of slots they move: attention
depends on distances alone, so the origin is arbitrary. A key is rotated about window / capacity times in all,
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
        buffer: Cached tensors and free slots; the shape depends on the subclass.
    """

    buffer: Tensor

    @abstractmethod
    def compact(self, num_appended: int) -> None:
        """Moves the visible tokens to the front of the buffer, `num_appended` tokens after the last time."""

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
        buffer: (2, B, H, P, d), keys, then values.
        origin: Slot of the first appended token; the compacted tokens end before it.
        capacity: Number of slots for appended tokens.
        window: Number of previous tokens visible to a query; None for all.
        rotation: Rotary position of the keys, or None.
    """

    origin: int
    capacity: int
    window: int | None
    rotation: Rotation | None

    @classmethod
    def empty(
        cls,
        *,
        batch: int,
        num_heads: int,
        head_dim: int,
        capacity: int,
        window: int | None,
        rotation: Rotation | None,
        like: Tensor,
    ) -> KVCache:
        """Creates an empty cache with the device and dtype of `like`."""
        origin = window or 0
        buffer = zeros(like, 2, batch, num_heads, origin + capacity, head_dim)
        return cls(buffer, origin, capacity, window, rotation)

    def extend(self, keys: Tensor, values: Tensor, *, lengths: Sequence[int]) -> KeysValues:
        """Appends a chunk to the compacted cache and returns all keys and values visible to its queries.

        Args:
            keys: (B, H, T, d), not rotated.
            values: (B, H, T, d).
            lengths: Number of tokens that each row had before.
        """
        longest = max(lengths)
        num_past = longest if self.window is None else min(longest, self.window)
        old_keys, old_values = self.buffer.narrow(3, self.origin - num_past, num_past).unbind(0)
        if self.rotation is not None:
            old_keys = self.rotation.unrotate_keys(old_keys, first=-num_past)
        extended = KeysValues(
            torch.cat((old_keys.to(self.buffer.dtype), keys.to(self.buffer.dtype)), dim=2),
            torch.cat((old_values, values.to(self.buffer.dtype)), dim=2),
            tuple(num_past - min(length, num_past) for length in lengths),
        )
        dropped = 0 if self.window is None else max(0, extended.keys.shape[2] - self.window)
        keys, values = (part.detach()[:, :, dropped:] for part in (extended.keys, extended.values))
        if self.rotation is not None:
            keys = self.rotation.rotate_keys(keys, first=-keys.shape[2])
        self._store(keys, values)
        return extended

    def write(self, keys_values: Tensor, *, num_appended: int, visible: int) -> tuple[Tensor, ...]:
        """Writes one token of each row and returns the keys and values visible to its query.

        Args:
            keys_values: (2, B, H, d), the key rotated to the offset `num_appended`.
            num_appended: Number of tokens since the origin, less than `capacity`.
            visible: N, number of tokens visible to the query, its own included.

        Returns:
            Rotated keys and values (B, H, N, d), as views.
        """
        slot = self.origin + num_appended
        self.buffer.select(3, slot).copy_(keys_values)
        return self.buffer.narrow(3, slot + 1 - visible, visible).unbind(0)

    def compact(self, num_appended: int) -> None:
        """Moves the last `window` tokens before the origin; without a window it moves the origin instead."""
        dropped = 0 if self.window is None else num_appended
        keys, values = self.buffer[:, :, :, dropped : self.origin + num_appended].clone().unbind(0)
        if self.rotation is not None:
            keys = self.rotation.shift_origin(keys, shift=num_appended)
        self._store(keys, values)

    def _store(self, keys: Tensor, values: Tensor) -> None:
        """Writes rotated keys and values (B, H, N, d) to the slots before the origin."""
        count = keys.shape[2]
        if self.window is None:
            self.origin = count
            if count + self.capacity > self.buffer.shape[3]:
                _, batch, heads, _, width = self.buffer.shape
                self.buffer = zeros(self.buffer, 2, batch, heads, 2 * count + self.capacity, width)
        past = self.buffer.narrow(3, self.origin - count, count)
        past[0], past[1] = keys, values

    def select_rows(self, rows: Tensor) -> KVCache:
        """Returns a copy with the given rows in the given order; rows may repeat."""
        return replace(self, buffer=self.buffer[:, rows])

    def merge(self, others: Sequence[KVCache]) -> KVCache:
        """Concatenates compacted caches along the batch."""
        parts = (self, *others)
        origin, batch = max(part.origin for part in parts), sum(part.buffer.shape[1] for part in parts)
        _, _, heads, _, width = self.buffer.shape
        buffer, row = zeros(self.buffer, 2, batch, heads, origin + self.capacity, width), 0
        for part in parts:
            rows, slots = part.buffer.shape[1], slice(origin - part.origin, origin)
            buffer[:, row : row + rows, :, slots] = part.buffer[:, :, :, : part.origin]
            row += rows
        return replace(self, buffer=buffer, origin=origin)


@dataclass
class ConvCache(LayerCache):
    """Last inputs of a depthwise convolution.

    Attributes:
        buffer: (B, K - 1 + capacity, C), zeros before the first token.
        count: K - 1, the slot of the first appended input.
    """

    count: int

    def extend(self, inputs: Tensor) -> Tensor:
        """Appends a chunk (B, T, C) to the compacted cache.

        Returns:
            The cached inputs followed by the chunk's, (B, K - 1 + T, C).
        """
        past = self.buffer[:, : self.count]
        extended = torch.cat((past.to(inputs.dtype), inputs), dim=1)
        past.copy_(extended[:, inputs.shape[1] :].detach())
        return extended

    def reserve(self, num_appended: int) -> tuple[Tensor, Tensor]:
        """Returns views of the next input's slot (B, C) and of the K inputs that end with it, (B, K, C)."""
        slot = self.count + num_appended
        return self.buffer.select(1, slot), self.buffer.narrow(1, num_appended, self.count + 1)

    def compact(self, num_appended: int) -> None:
        """Moves the last K - 1 inputs to the front."""
        self.buffer[:, : self.count] = self.buffer[:, num_appended : num_appended + self.count].clone()

    def select_rows(self, rows: Tensor) -> ConvCache:
        """Returns a copy with the given rows in the given order; rows may repeat."""
        return replace(self, buffer=self.buffer[rows])

    def merge(self, others: Sequence[ConvCache]) -> ConvCache:
        """Concatenates compacted caches along the batch."""
        return replace(self, buffer=torch.cat([self.buffer, *(other.buffer for other in others)]))


BlockState = Sequence[Sequence[LayerCache]]
"""Cache of a block: for each branch one entry per scale (attention), one (convolution) or none."""


@dataclass
class DecodeCache:
    """Cache of the whole model, made by `Conformer.init_cache` and updated in place by `Conformer.forward`.

    It is valid only for the weights that filled it.

    Attributes:
        blocks: One entry per block.
        lengths: Number of tokens that each row has processed.
        capacity: Number of appended tokens that the buffers can take.
        num_appended: Number of tokens since the last `compact`.
    """

    blocks: Sequence[BlockState]
    lengths: tuple[int, ...]
    capacity: int
    num_appended: int = 0

    @property
    def batch(self) -> int:
        """Number of rows."""
        return len(self.lengths)

    def compact(self) -> None:
        """Compacts every layer's cache, which frees the slots of appended tokens."""
        if self.num_appended:
            for layer in (layer for block in self.blocks for branch in block for layer in branch):
                layer.compact(self.num_appended)
            self.num_appended = 0

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
        return DecodeCache(blocks, lengths, self.capacity, self.num_appended)

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
        return DecodeCache(blocks, lengths, states[0].capacity)
