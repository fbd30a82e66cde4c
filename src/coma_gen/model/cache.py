"""What the model remembers between two chunks of a sequence, so that no token is computed twice.

An attention keeps the keys and values of the tokens its next query can see (the last `window` of each scale,
everything without a window), a convolution its last K - 1 inputs. They lie in buffers in the order of time;
each new token takes the next slot, and nothing is moved until the room for new tokens is used up. Then the
kept ones go back to the front. A window of 4 with room for 3:

    slot       0 1 2 3 | 4 5 6
    2 tokens   . . a b |            fresh = 0: the next token goes to the slot after the bar
    5 tokens   . . a b | c d e      fresh = 3: the next query sees b c d e, and there is no room for f
    the same   b c d e |            fresh = 0
    6 tokens   b c d e | f

So a token costs the same at any length, and memory does not grow, except in global layers, whose buffers grow
by doubling.

Rotary keys are kept turned by their distance from the first slot after the bar, the origin, so that a step
turns one query and one key. When the kept ones go to the front they are turned once by the number of slots
they moved: positions are distances, and the origin is free. A key is turned about window / room times in its
life, each time with a rounding error of 1e-7; xPos powers stay small because the origin stays near.

Rows of a batch may have had different numbers of tokens; they are aligned at the newest token:

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
    """What the queries of a chunk may see: keys and values (B, H, N, d) of the kept tokens, then the chunk's
    own; keys not turned. `padding` says for each row how many of the N, the oldest, stand for no token.
    """

    keys: Tensor
    values: Tensor
    padding: tuple[int, ...] = ()


@torch.inference_mode(False)
def zeros(like: Tensor, *shape: int) -> Tensor:
    """Zeros that may be written to in and out of inference mode."""
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


@dataclass
class LayerCache(ABC):
    """What one part of a branch caches of the tokens it was given.

    Attributes:
        memory: the buffer.
    """

    memory: Tensor

    @abstractmethod
    def compact(self, fresh: int) -> None:
        """Moves the past to the front, after `fresh` fresh tokens."""

    @abstractmethod
    def take(self, rows: Tensor) -> Self:
        """The rows numbered, in that order; a row may be named twice."""

    @abstractmethod
    def joined(self, others: Sequence[Self]) -> Self:
        """One batch of this and others; none has fresh tokens."""


@dataclass
class KVCache(LayerCache):
    """The keys and values that one scale of one attention keeps.

    Attributes:
        memory: (2, B, H, P, d), keys, then values.
        origin: the slot of the first fresh token; the kept ones end before it.
        room: slots for fresh tokens.
        window: tokens that a query sees before its own; None for all.
        rotation: what keys are turned by, or None.
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
        """Before the first token; `like` gives device and precision."""
        origin = window or 0
        memory = zeros(like, 2, batch, num_heads, origin + room, head_dim)
        return cls(memory, origin, room, window, rotation)

    def extend(self, keys: Tensor, values: Tensor, *, lengths: Sequence[int]) -> KeysValues:
        """Takes in a chunk; there must be no fresh tokens.

        Args:
            keys: (B, H, T, d) of the chunk's tokens, not turned.
            values: (B, H, T, d).
            lengths: tokens that each row had before.
        """
        longest = max(lengths)
        num_past = longest if self.window is None else min(longest, self.window)
        old_keys, old_values = self.memory.narrow(3, self.origin - num_past, num_past).unbind(0)
        if self.rotation is not None:
            old_keys = self.rotation.turn_back(old_keys, first=-num_past)
        extended = KeysValues(
            torch.cat((old_keys.to(self.memory.dtype), keys.to(self.memory.dtype)), dim=2),
            torch.cat((old_values, values.to(self.memory.dtype)), dim=2),
            tuple(num_past - min(length, num_past) for length in lengths),
        )
        dropped = 0 if self.window is None else max(0, extended.keys.shape[2] - self.window)
        keys, values = (part.detach()[:, :, dropped:] for part in (extended.keys, extended.values))
        if self.rotation is not None:
            keys = self.rotation.turn(keys, first=-keys.shape[2])
        self._keep(keys, values)
        return extended

    def write(self, keys_values: Tensor, *, fresh: int, visible: int) -> tuple[Tensor, ...]:
        """Takes in one token of each row, after `fresh` others.

        Args:
            keys_values: (2, B, H, d), the key turned by `fresh`.
            fresh: tokens since the origin, less than `room`.
            visible: N, how many tokens the query may see, its own included.

        Returns:
            The keys, turned, and the values of those N tokens, each (B, H, N, d), as views.
        """
        slot = self.origin + fresh
        self.memory.select(3, slot).copy_(keys_values)
        return self.memory.narrow(3, slot + 1 - visible, visible).unbind(0)

    def compact(self, fresh: int) -> None:
        """Moves the last `fresh` tokens before the origin; without a window the origin moves instead."""
        dropped = 0 if self.window is None else fresh
        keys, values = self.memory[:, :, :, dropped : self.origin + fresh].clone().unbind(0)
        self._keep(keys if self.rotation is None else self.rotation.move(keys, shift=fresh), values)

    def _keep(self, keys: Tensor, values: Tensor) -> None:
        """Lays keys, turned, and values (B, H, N, d) down before the origin."""
        count = keys.shape[2]
        if self.window is None:
            self.origin = count
            if count + self.room > self.memory.shape[3]:
                _, batch, heads, _, width = self.memory.shape
                self.memory = zeros(self.memory, 2, batch, heads, 2 * count + self.room, width)
        past = self.memory.narrow(3, self.origin - count, count)
        past[0], past[1] = keys, values

    def take(self, rows: Tensor) -> KVCache:
        """The rows numbered, in that order; a row may be named twice."""
        return replace(self, memory=self.memory[:, rows])

    def joined(self, others: Sequence[KVCache]) -> KVCache:
        """One batch of this and others; none has fresh tokens."""
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
    """The inputs that a depthwise convolution keeps.

    Attributes:
        memory: (B, K - 1 + room, C), zeros before the first token.
        count: K - 1; the first fresh input lies in this slot.
    """

    count: int

    def extend(self, inputs: Tensor) -> Tensor:
        """Takes in a chunk (B, T, C); there must be no fresh tokens.

        Returns:
            The inputs before it and its own, (B, K - 1 + T, C).
        """
        past = self.memory[:, : self.count]
        extended = torch.cat((past.to(inputs.dtype), inputs), dim=1)
        past.copy_(extended[:, inputs.shape[1] :].detach())
        return extended

    def reserve(self, fresh: int) -> tuple[Tensor, Tensor]:
        """The slot (B, C) of the input of one token, after `fresh` others, and all that its convolution sees,
        (B, K, C), as views.
        """
        return self.memory.select(1, self.count + fresh), self.memory.narrow(1, fresh, self.count + 1)

    def compact(self, fresh: int) -> None:
        """Moves the last inputs to the front."""
        self.memory[:, : self.count] = self.memory[:, fresh : fresh + self.count].clone()

    def take(self, rows: Tensor) -> ConvCache:
        """The rows numbered, in that order; a row may be named twice."""
        return replace(self, memory=self.memory[rows])

    def joined(self, others: Sequence[ConvCache]) -> ConvCache:
        """One batch of this and others; none has fresh tokens."""
        return replace(self, memory=torch.cat([self.memory, *(other.memory for other in others)]))


BlockState = Sequence[Sequence[LayerCache]]
"""What one block keeps: for each branch one entry a scale, one, or none."""


@dataclass
class DecodeCache:
    """What the whole model keeps; `Conformer.init_cache` makes one and `Conformer.forward` moves it on in
    place. It belongs to the weights that it was begun with.

    Attributes:
        blocks: one entry for each block.
        lengths: tokens that each row had.
        room: fresh tokens that the buffers can take.
        fresh: tokens since the last `compact`.
    """

    blocks: Sequence[BlockState]
    lengths: tuple[int, ...]
    room: int
    fresh: int = 0

    @property
    def batch(self) -> int:
        """The number of rows."""
        return len(self.lengths)

    def compact(self) -> None:
        """Moves the past to the front, so that there is room for fresh tokens."""
        if self.fresh:
            for layer in (layer for block in self.blocks for branch in block for layer in branch):
                layer.compact(self.fresh)
            self.fresh = 0

    @torch.inference_mode(False)
    def take(self, rows: Sequence[int]) -> DecodeCache:
        """A state with the rows named, in that order: drops finished rows, repeats a prompt for several
        continuations.

        The new state shares no memory with this one.
        """
        index = torch.tensor(list(rows))
        blocks = [[[layer.take(index) for layer in branch] for branch in block] for block in self.blocks]
        lengths = tuple(self.lengths[row] for row in rows)
        return DecodeCache(blocks, lengths, self.room, self.fresh)

    def copy(self) -> DecodeCache:
        """A state that can go another way from here."""
        return self.take(range(self.batch))

    @staticmethod
    @torch.inference_mode(False)
    def joined(states: Sequence[DecodeCache]) -> DecodeCache:
        """One batch of several states of a model, such as those of prompts of different lengths."""
        for state in states:
            state.compact()
        blocks = [
            [
                [first.joined(others) for first, *others in zip(*branches, strict=True)]
                for branches in zip(*blocks, strict=True)
            ]
            for blocks in zip(*(state.blocks for state in states), strict=True)
        ]
        lengths = tuple(length for state in states for length in state.lengths)
        return DecodeCache(blocks, lengths, states[0].room)
